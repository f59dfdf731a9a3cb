"""What commands say: one JSON object for scripts, or text for people."""

from __future__ import annotations

import json
import math
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.table import Table


NO_EDGE = 10_000
"""Columns where nobody watches: programs that read a table want each row on one line."""


class Screen:
    """Standard output for the result, standard error for everything else."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:  # noqa: FBT001, FBT002  # the two switches
        """Say the result as JSON, or as text unless ``quiet``."""
        self.as_json, self.quiet = as_json, quiet

    @cached_property
    def out(self) -> Console:
        """Where a result goes that people read."""
        from rich.console import Console

        made = Console(highlight=False, markup=False, emoji=False)
        if not made.is_terminal:
            made.width = NO_EDGE
        return made

    @cached_property
    def err(self) -> Console:
        """Where everything else goes."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False, stderr=True)

    @property
    def talks(self) -> bool:
        """Whether the result is to be shown as text."""
        return not self.as_json and not self.quiet

    def json(self, payload: Mapping[str, Any]) -> None:
        """Write the one JSON object, where it was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(payload), allow_nan=False) + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell something on the way, on standard error."""
        if not self.quiet:
            self.err.print(printable(text), soft_wrap=True)

    def error(
        self, where: str, problem: str, hint: str, exit_code: int, **more: object
    ) -> None:
        """Say what went wrong, where, and what to do next; even when quiet."""
        told = {"where": where, "problem": problem, "hint": hint}
        sys.stderr.write(f"Error: {_encodable(printable(f'{where}: {problem}'))}\n")
        if hint:
            sys.stderr.write(f"Hint: {_encodable(printable(hint))}\n")
        sys.stderr.flush()
        self.json({"error": told, "exit_code": exit_code, **more})


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Begin a plain table; the columns in ``right`` hold numbers."""
    from rich.table import Table

    made = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def printable(text: str) -> str:
    """Show what would steer a terminal, such as escapes in a hostile name, as escapes."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


def size(count: int) -> str:
    """Write a number of bytes as people read it.

    >>> size(999), size(12_345), size(999_960)
    ('999 B', '12.3 kB', '1.00 MB')
    """
    if count < 1000:  # noqa: PLR2004  # below, bytes are exact
        return f"{count} B"
    # Three digits; rounding first, so that 999,960 becomes 1.00 MB and not 1000 kB.
    digits, exponent = f"{count:.2e}".split("e")
    thousands = min(int(exponent) // 3, 3)
    scaled = float(digits) * 10 ** (int(exponent) - 3 * thousands)
    places = max(0, 2 - (int(exponent) - 3 * thousands))
    return f"{scaled:.{places}f} {('kB', 'MB', 'GB')[thousands - 1]}"


def _encodable(text: str) -> str:
    encoding = sys.stderr.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
