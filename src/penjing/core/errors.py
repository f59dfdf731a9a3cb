"""Every error this package raises on purpose.

* PenjingError
    * ConfigError         a setting, recipe or budget is not usable
    * DataError           the data given do not fit the model or the task
    * ModelError          this is not a model we can read, or it does not run
    * UnsupportedError    this model cannot take this technique
    * TrainingError       training went wrong: the loss became NaN
    * FormatError         a .penjing file is damaged, hostile or from a newer version
    * OutputError         a result could not be written
    * MissingExtraError   an optional dependency is not installed

All of them mean "bad input or usage" to the command line (exit code 2).

PenjingWarning tells what was accepted though it may not be meant.
"""


class PenjingError(Exception):
    """Base class: catch this to catch everything raised on purpose."""

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        """Say where it went wrong, what is wrong there, and what to do next."""
        self.where, self.problem, self.hint = where, problem, hint
        super().__init__(f"{where}: {problem}" + (f"\nHint: {hint}" if hint else ""))


class ConfigError(PenjingError, ValueError):
    """A setting is wrong.  ``where`` is its path, for example ``steps[1].sparsity``."""


class DataError(PenjingError, ValueError):
    """The data given do not fit the model or the task.  ``where`` is a file or an array."""


class ModelError(PenjingError, ValueError):
    """This is not a model we can read, or it does not run.  ``where`` is a file or a node."""


class UnsupportedError(PenjingError, TypeError):
    """This model cannot take this technique.  ``where`` is the technique or the weight."""


class TrainingError(PenjingError, ArithmeticError):
    """Training went wrong.  ``where`` is the step."""


class FormatError(PenjingError, ValueError):
    """A ``.penjing`` file is damaged, hostile or newer.  ``where`` is a part of the file."""


class OutputError(PenjingError, OSError):
    """A result could not be written.  ``where`` is the path."""


class MissingExtraError(PenjingError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, wanted_for: str) -> None:
        """Name the extra and what needed it."""
        super().__init__(
            wanted_for, f"needs the {extra!r} extra", f"pip install 'penjing[{extra}]'"
        )


class PenjingWarning(UserWarning):
    """Something was accepted that may not be meant; the command line shows it as a note."""
