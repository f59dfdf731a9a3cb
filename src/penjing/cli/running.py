"""From arguments to an exit code: every way a command can end is decided here."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from penjing.cli.screen import Screen
from penjing.core.errors import PenjingError, PenjingWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

MET, FAULT, BAD_INPUT, LIMIT_MISSED = 0, 1, 2, 3
INTERRUPTED = 130
"""What shells report for a program that Ctrl-C has ended."""
PIPE_CLOSED = 141
DEBUG = "PENJING_DEBUG"

# typer may bring its own copy of click or use an installed one: this finds the class in both.
(UsageError,) = typer.BadParameter.__bases__


def run(arguments: Sequence[str]) -> int:
    """Run one command; give its exit code.

    0: all limits met.  1: a fault of ours.  2: bad input or usage.  3: the best result is
    saved, but a limit is missed or undecided.  130: interrupted by Ctrl-C.
    """
    from penjing.cli.app import app

    screen = Screen("--json" in arguments, "--quiet" in arguments)
    ending = _Ending(screen)
    with ending, _notes(screen):
        command = typer.main.get_command(app)
        given = command.main(
            list(arguments) or ["--help"], prog_name="penjing", standalone_mode=False
        )
        ending.code = given if isinstance(given, int) else MET
    return ending.code


@contextmanager
def _notes(screen: Screen) -> Iterator[None]:
    """Show each warning of ours as a note, once; others as Python does."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", PenjingWarning)
        usual = warnings.showwarning

        def show(  # noqa: PLR0913, PLR0917  # as Python calls it
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, PenjingWarning):
                usual(message, category, filename, lineno, file, line)
            elif str(message) not in shown:
                shown.add(str(message))
                screen.note(f"Note: {message}")

        warnings.showwarning = show
        yield


class _Ending:
    """Turns whatever ends a command into one message and an exit code."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.code = screen, FAULT

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return True
        if isinstance(error, PenjingError):
            self._end(BAD_INPUT, error.where, error.problem, error.hint)
        elif isinstance(error, UsageError):
            self._end(BAD_INPUT, *_usage(error))
        elif isinstance(error, (KeyboardInterrupt, typer.Abort)):
            self._end(INTERRUPTED, "penjing", "interrupted before it was done")
        elif isinstance(error, BrokenPipeError) or (
            # rich turns the same into an exit of its own
            isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
        ):
            # Whoever read our output has left; keep the interpreter from complaining at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.code = PIPE_CLOSED
        elif isinstance(error, Exception):
            if os.environ.get(DEBUG):
                traceback.print_exception(kind, error, trace, file=sys.stderr)
            self._end(FAULT, "penjing", *_apology(error))
        else:
            return False
        return True

    def _end(self, code: int, where: str, problem: str, hint: str = "") -> None:
        self.code = code
        self.screen.error(where, problem, hint, code)


def _usage(error: Any) -> tuple[str, str, str]:
    """Say what is wrong with the arguments, and where the help is."""
    command = error.ctx.command_path if error.ctx is not None else "penjing"
    return command, error.format_message(), f"see '{command} --help'"


def _apology(error: Exception) -> tuple[str, str]:
    told = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {told[0]}" if told else type(error).__name__
    return (
        f"stopped by a fault of its own, sorry ({what})",
        f"run it again with {DEBUG}=1 for the details, and send them to us with the command",
    )
