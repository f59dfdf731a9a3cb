"""From arguments to an exit code: every way a command can end is decided here."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer

from penjing.cli import INTERRUPTED, STOPPED
from penjing.cli.screen import Screen
from penjing.core.errors import OutputError, PenjingError, PenjingWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

MET, FAULT, BAD_INPUT, LIMIT_MISSED = 0, 1, 2, 3
PIPE_CLOSED = 141
TAKEN_FOR_AN_EXIT = 130
"""What typer returns when it has caught Ctrl-C; no command of ours does."""
OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *(
            "metric",
            "seed",
            "time_limit",
            "epochs",
            "learning_rate",
            "batch_size",
            "shift",
            "mirror",
            "blend",
            "distort",
            "teacher",
        ),
        *("stages", "decay", "task"),
    )
}
"""Settings that errors of the engine name, and the options that give them."""
DEBUG = "PENJING_DEBUG"

# typer may bring its own copy of click or use an installed one: this finds the class in both.
(UsageError,) = typer.BadParameter.__bases__


def run(arguments: Sequence[str]) -> int:
    """Run one command; give its exit code.

    0: all limits met.  1: a fault of ours.  2: bad input or usage, no room for the output, or
    Ctrl-C before there was a result.  3: the best result is saved, but a limit is missed or
    undecided.
    """
    from penjing.cli.app import app

    screen = Screen("--json" in arguments, "--quiet" in arguments)
    ending = _Ending(screen)
    with ending, _notes(screen), redirect_stdout(_guarded(sys.stdout)):
        command = typer.main.get_command(app)
        if not arguments:
            with redirect_stdout(sys.stderr):
                command.main(["--help"], prog_name="penjing", standalone_mode=False)
            ending.code = BAD_INPUT
            return ending.code
        given = command.main(list(arguments), prog_name="penjing", standalone_mode=False)
        if given == TAKEN_FOR_AN_EXIT:
            raise KeyboardInterrupt
        sys.stdout.flush()
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
        if isinstance(error, _NoRoomError):
            _forget_output()
        if isinstance(error, PenjingError):
            self._end(BAD_INPUT, _as_typed(error.where), error.problem, error.hint)
        elif isinstance(error, UsageError):
            self._end(BAD_INPUT, *_usage(error))
        elif _is_interrupt(error):
            self._end(INTERRUPTED, "penjing", STOPPED)
        elif isinstance(error, BrokenPipeError) or (
            # rich turns the same into an exit of its own
            isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
        ):
            _forget_output()
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
        try:
            self.screen.error(where, problem, hint, code)
        except OSError:  # the text for people is out, the JSON has no room
            _forget_output()


def _is_interrupt(error: BaseException) -> bool:
    """Tell whether Ctrl-C is behind an error: compiled modules turn it into one of theirs."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (KeyboardInterrupt, typer.Abort)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _forget_output() -> None:
    """Keep the interpreter from complaining, at its exit, of what nobody could be told."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _guarded(stream: TextIO) -> TextIO:
    """Give standard output that says clearly when it takes no more."""
    return cast("TextIO", _Guard(stream))


class _Guard:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _explained():
            return self._stream.write(text)

    def flush(self) -> None:
        with _explained():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _NoRoomError(OutputError):
    """Standard output takes no more."""


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _NoRoomError(
            "standard output",
            f"cannot be written to: {error.strerror or error}",
            "send it elsewhere; files that the command was to write are complete",
        ) from error


def _as_typed(where: str) -> str:
    """Call a setting as it is called on the command line."""
    word, blank, rest = where.partition(" ")
    return f"{OPTIONS[word]}{blank}{rest}" if word in OPTIONS else where


def _usage(error: Any) -> tuple[str, str, str]:
    """Say what is wrong with the arguments, and where the help is."""
    command = error.ctx.command_path if error.ctx is not None else "penjing"
    told = error.format_message().replace("Value error, ", "")  # a validator's own word
    return command, told, f"see '{command} --help'"


def _apology(error: Exception) -> tuple[str, str]:
    told = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {told[0]}" if told else type(error).__name__
    return (
        f"stopped by a fault of its own, sorry ({what})",
        f"run it again with {DEBUG}=1 for the details, and send them to us with the command",
    )
