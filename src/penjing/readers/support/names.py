"""Which array or column feeds which input of the model."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from penjing.core.errors import DataError, PenjingWarning

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from penjing.core.model import Port

MOST_LISTED = 12
"""A message lists no more names than this."""


class Columns(NamedTuple):
    """Columns of a table that feed one input."""

    port: Port
    names: tuple[str, ...]


def name_arrays(
    source: str, known: Collection[str], inputs: Sequence[Port], target: str | None
) -> tuple[dict[str, str], str | None]:
    """Choose arrays by name: as the model's inputs are named, or ``x`` for a single input.

    Args:
        source: how messages call the data.
        known: names of the arrays there are; those not needed are left alone.
        inputs: of the model.
        target: name of the labels; ``y`` where None, if it is there.

    Returns:
        Name of the array for each input, and for the labels if there are any.

    Raises:
        DataError: an input or the labels asked for are not there.
    """
    chosen = {port.name: port.name for port in inputs if port.name in known}
    if len(inputs) == 1 and not chosen and "x" in known:
        chosen[inputs[0].name] = "x"
    missing = [port.name for port in inputs if port.name not in chosen]
    if missing:
        named = f"call the inputs as the model does: {listed([port.name for port in inputs])}"
        raise DataError(
            source,
            f"has no array {listed(missing)}; it has {listed(known)}",
            named + (" (or x)" if len(inputs) == 1 else ""),
        )
    if target is not None:
        check_target(source, known, target)
        return chosen, target
    return chosen, "y" if "y" in known and "y" not in chosen.values() else None


def name_columns(
    source: str, known: Sequence[str], inputs: Sequence[Port], target: str | None
) -> list[Columns]:
    """Choose columns: one for each input by name, or all in order for a single 2-D input.

    Columns beside those that are named as the inputs are left out, with a warning.

    Args:
        source: how messages call the table.
        known: names of its columns, in order.
        inputs: of the model.
        target: column that holds the labels, if any; it feeds no input.

    Raises:
        DataError: columns are missing or named twice, there are not as many as a single
            input takes, or a table cannot feed this model.
    """
    if target is not None:
        check_target(source, known, target)
    twice = sorted({name for name in known if list(known).count(name) > 1})
    if twice:
        raise DataError(source, f"has more than one column named {listed(twice)}")
    features = tuple(name for name in known if name != target)
    for port in inputs:
        if port.batch_axis != 0 or len(port.shape) not in {1, 2}:
            raise DataError(
                source,
                f"is a table, but input {port.name!r} of the model has shape {port.shape}",
                "give the data as an .npz file with arrays named as the inputs",
            )
    first = inputs[0]
    width = first.shape[-1] if len(first.shape) > 1 else 1
    named = len(inputs) > 1 or width == 1 or features == (first.name,)
    if named and {port.name for port in inputs} <= set(features):
        _tell_unused(source, features, inputs, target)
        return [Columns(port, (port.name,)) for port in inputs]
    if len(inputs) == 1 and features and width in {None, len(features)}:
        return [Columns(first, features)]
    raise _mismatch(source, features, inputs, target)


def _tell_unused(
    source: str, features: Sequence[str], inputs: Sequence[Port], target: str | None
) -> None:
    wanted = {port.name for port in inputs}
    unused = [name for name in features if name not in wanted]
    if not unused:
        return
    told = f"{source}: columns that are no input of the model are left out: {listed(unused)}"
    if target is None:
        told += " (name the label column, if there is one, with --target)"
    warnings.warn(told, PenjingWarning, stacklevel=2)


def _mismatch(
    source: str, features: Sequence[str], inputs: Sequence[Port], target: str | None
) -> DataError:
    wanted = [port.name for port in inputs]
    labels = ""
    if target is None:
        labels = "; name the label column, if there is one, with --target"
    if len(inputs) == 1:
        return DataError(
            source,
            f"has {len(features)} columns for input {wanted[0]!r} of the model, which takes "
            f"{inputs[0].shape[-1]}: {listed(features)}",
            f"the columns must be the model's features, in order, and no others{labels}",
        )
    missing = [name for name in wanted if name not in features]
    extra = [name for name in features if name not in wanted]
    unused = f"; no input is called {listed(extra)}" if extra else ""
    return DataError(
        source,
        f"has no column {listed(missing)} for the model's inputs{unused}",
        f"name the columns as the model's inputs are named{labels}",
    )


def check_target(source: str, known: Collection[str], target: str) -> None:
    """Raise DataError if the labels asked for are not there."""
    if target not in known:
        close = get_close_matches(target, list(known), n=1)
        raise DataError(
            source,
            f"has no {target!r} to take labels from; it has {listed(known)}",
            f"did you mean {close[0]!r}?" if close else "",
        )


def listed(names: Collection[str]) -> str:
    """List names in quotes, the first dozen of them.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    some = [repr(name) for name in list(names)[:MOST_LISTED]]
    if len(names) > MOST_LISTED:
        some.append(f"and {len(names) - MOST_LISTED} more")
    return ", ".join(some) or "none"
