"""Example inputs, for models that do not say what shapes they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array

    Example = Mapping[str, Array] | tuple[Array, ...]
    """A few rows: inputs by name, maybe with labels ``y`` among them, or in order."""


@dataclass(frozen=True, slots=True, eq=False)
class WithExample:
    """A model together with inputs that it runs on.

    >>> model = WithExample(module, (tokens, mask))  # doctest: +SKIP
    >>> penjing.compress(model, loader)  # doctest: +SKIP
    """

    model: Any
    """A PyTorch module or a Keras model."""
    inputs: Any
    """Samples first, two or more: one tensor or array, a tuple in the order of ``forward()``,
    or a dict by the names of its parameters.  They may be nested."""


@runtime_checkable
class LearnsFromExample(Protocol):
    """A capability of a backend: some of its models open only with example inputs."""

    def lacks_example(self, native: object) -> bool:
        """Tell whether ``native`` must be opened as a ``WithExample``."""
