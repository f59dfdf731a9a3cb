"""What a source holds, told as the inputs of a model that is still to be made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penjing.core.errors import DataError
from penjing.core.model import Port
from penjing.readers.support.names import check_target, listed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np


def beside(source: str, known: Collection[str], target: str | None) -> list[str]:
    """Give all names but that of the labels asked for.

    Raises:
        DataError: there are no such labels.
    """
    if target is not None:
        check_target(source, known, target)
    return [name for name in known if name != target]


def name_inputs(source: str, known: Collection[str], target: str | None) -> list[str]:
    """Choose the arrays that a model would take in: ``x``, or all that are not the labels.

    Args:
        source: how messages call the data.
        known: names of the arrays there are.
        target: name of the labels; ``y`` where None.

    Raises:
        DataError: there are none, or the labels asked for are not there.
    """
    names = [name for name in beside(source, known, target) if target or name != "y"]
    names = ["x"] if "x" in names else names
    if not names:
        raise DataError(
            source,
            f"has no array of inputs beside the labels; it has {listed(known)}",
            "call the inputs x",
        )
    return names


def name_features(source: str, known: Sequence[str], target: str | None) -> Port:
    """Describe a table: one input that takes all columns but the label, as numbers.

    Raises:
        DataError: there are none, or the label column asked for is not there.
    """
    width = len(beside(source, known, target))
    if not width:
        raise DataError(source, f"has no columns beside the label {target!r}")
    return Port("x", "float32", (None, width))


def as_port(where: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Port:
    """Describe an array with the rows on axis 0.

    Raises:
        DataError: it has no axes.
    """
    if not shape:
        raise DataError(where, "holds one value, not one row for each sample")
    kind = "str" if dtype.kind in "OUS" else dtype.name
    return Port(name, kind, (None, *shape[1:]))
