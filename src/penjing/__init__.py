"""State the budget, get the smallest model that provably keeps it.

>>> import penjing
>>> budget = penjing.Budget(max_drop=0.005)
>>> result = penjing.compress("model.onnx", "val.npz", budget=budget)  # doctest: +SKIP
>>> result.artifact.save("small.penjing")  # doctest: +SKIP
"""

from importlib import import_module as _import
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penjing.api import bench as bench
    from penjing.api import compress as compress
    from penjing.api import evaluate as evaluate
    from penjing.api import load as load
    from penjing.api import open_artifact as open_artifact
    from penjing.api import predict as predict
    from penjing.api import unpack as unpack
    from penjing.api import wrap as wrap
    from penjing.core.budget import Budget as Budget
    from penjing.core.errors import PenjingError as PenjingError
    from penjing.core.errors import PenjingWarning as PenjingWarning
    from penjing.core.example import WithExample as WithExample
    from penjing.core.recipe import Recipe as Recipe
    from penjing.core.recipe import Step as Step
    from penjing.learning import train as train
    from penjing.learning import transfer as transfer
    from penjing.modules import from_state_dict as from_state_dict
    from penjing.modules import to_module as to_module

__all__ = [
    "Budget",
    "PenjingError",
    "PenjingWarning",
    "Recipe",
    "Step",
    "WithExample",
    "bench",
    "compress",
    "evaluate",
    "from_state_dict",
    "load",
    "open_artifact",
    "predict",
    "to_module",
    "train",
    "transfer",
    "unpack",
    "wrap",
]

_HOMES = {
    "penjing.api": (
        *("bench", "compress", "evaluate", "load", "open_artifact", "predict", "unpack"),
        "wrap",
    ),
    "penjing.core.budget": ("Budget",),
    "penjing.core.errors": ("PenjingError", "PenjingWarning"),
    "penjing.core.example": ("WithExample",),
    "penjing.core.recipe": ("Recipe", "Step"),
    "penjing.learning": ("train", "transfer"),
    "penjing.modules": ("from_state_dict", "to_module"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what is asked for only then: the command line must be in charge early."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import(_HOME[name]), name)


def __dir__() -> list[str]:
    """List what there is, imported or not."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
