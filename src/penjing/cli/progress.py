"""Progress of a search: one bar with the time left, or one line per phase."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from penjing.cli.screen import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from rich.progress import Progress

    from penjing.cli.screen import Screen

SPLITTING, CERTIFYING, INTERRUPTED = "splitting data", "certifying", "interrupted"
EXPECTED = "expected time"
LOG_EVERY_S = 60.0
"""Seconds between lines of one phase, where nobody watches a bar."""
SHARES = {
    "probing layers": (0.0, 0.1),
    "finding the trade-off": (0.1, 0.4),
    "comparing settings": (0.4, 0.65),
    "refining": (0.65, 0.95),
    CERTIFYING: (0.95, 1.0),
}
"""Where each phase of a search begins and ends, as usual shares of the whole time."""

SHARES_WITH_TRAINING = {
    "probing layers": (0.0, 0.02),
    "finding the trade-off": (0.02, 0.05),
    "comparing settings": (0.05, 0.08),
    "refining": (0.08, 0.12),
    "training": (0.12, 0.97),
    CERTIFYING: (0.97, 1.0),
}
"""The same, where something is trained: that takes nearly all of the time."""


class SearchProgress:
    """Shows on standard error how far a search, or training, is; call it as the engine does."""

    def __init__(
        self,
        screen: Screen,
        seed: int,
        shares: Mapping[str, tuple[float, float]] = MappingProxyType(SHARES),
        limit_s: float | None = None,
    ) -> None:
        """Show nothing but the split where nobody watches; a limit caps the time left."""
        self.screen, self.seed, self.shares = screen, seed, shares
        self.interrupted = False
        self._done = 0.0
        self._told: dict[str, float] = {}
        """When a phase was told last."""
        self._left = _TimeLeft(limit_s)
        self._stack = ExitStack()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if not self.screen.quiet and self.screen.err.is_terminal:
            self._bar = self._stack.enter_context(self._make_bar())
            self._task = self._bar.add_task("reading", total=1.0, left=self._left, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(self, phase: str, share: float, note: str = "") -> None:
        """Take note that ``share`` of ``phase`` is done."""
        if phase == SPLITTING:
            self.screen.note(f"Split (seed {self.seed}): {note}")
            return
        if phase == EXPECTED:
            self.screen.note(f"Expected time: {note}")
            return
        if phase == INTERRUPTED:
            if self.interrupted:  # as was promised the first time
                raise KeyboardInterrupt
            self.interrupted = True
            self.screen.note(f"Interrupted: {note} (Ctrl-C again stops without a result)")
            return
        low, high = self.shares.get(phase, (self._done, self._done))
        # Phases may come round again: what is done stays done.
        self._done = max(self._done, low + (high - low) * share)
        self._left.estimate(self._done)
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self._done,
                description=printable(phase),
                note="" if phase == CERTIFYING else printable(note),
            )
        elif not self.screen.as_json:
            self._log(phase, "" if phase == CERTIFYING else note)

    def _log(self, phase: str, note: str) -> None:
        """Write a line for a new phase, then now and again, with the time left."""
        now = time.monotonic()
        last = self._told.get(phase)
        if last is not None and now - last < LOG_EVERY_S:
            return
        self._told[phase] = now
        left = "" if last is None else str(self._left)
        known = ", ".join(filter(None, (f"{self._done:.0%} done", left, note)))
        self.screen.note(f"{phase} ... ({known})")

    def _make_bar(self) -> Progress:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[left]}", style="cyan", markup=False),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.screen.err,
            transient=True,
        )


@contextmanager
def kept_training(screen: Screen, folder: Path | None) -> Iterator[None]:
    """Say, where Ctrl-C leaves no result, that training can go on from what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None and folder.is_dir():
            screen.note(
                f"What was trained so far is kept in {folder}: the same command goes on from "
                "there"
            )
        raise


class _TimeLeft:
    """Text that counts down: what a bar shows is formatted anew at every refresh."""

    def __init__(self, limit_s: float | None) -> None:
        self._started = time.monotonic()
        self._latest = math.inf if limit_s is None else self._started + limit_s
        self._end: float | None = None

    def estimate(self, done: float) -> None:
        """Expect the rest to go as fast as what is done, a share in [0, 1]."""
        if done > 0.02:  # noqa: PLR2004  # before that it is too early to tell
            now = time.monotonic()
            expected = now + (now - self._started) * (1 - done) / done
            self._end = min(expected, max(self._latest, now))

    def __str__(self) -> str:
        if self._end is None:
            return ""
        left = max(0, round(self._end - time.monotonic()))
        return f"{left // 60}:{left % 60:02d} left" if left else "a moment left"
