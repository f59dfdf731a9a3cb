"""A model from any framework, seen as named weights plus a function."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from penjing.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from penjing.core.template import Template
    from penjing.core.tensors import Array, Tensor


class LayerKind(StrEnum):
    """What a weight does; techniques choose by this, never by framework class."""

    LINEAR = "linear"
    CONV = "conv"
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    BIAS = "bias"
    OTHER = "other"


MATRIX_KINDS = frozenset(
    {LayerKind.LINEAR, LayerKind.CONV, LayerKind.RECURRENT, LayerKind.EMBEDDING}
)
"""Weights that multiply their input: where nearly all parameters are."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One named weight.  Axis 0 is the output axis whatever the framework's own order."""

    name: str
    kind: LayerKind
    tensor: Tensor
    groups: int = 1
    """Equal parts of axis 0 that see different inputs (grouped convolution, directions)."""
    layer: str = ""
    """For a bias: name of the weight whose outputs it is added to, if known."""
    divides: bool = False
    """Whether something is divided by it, or by its square root: rounding must not bring a
    number to zero or past it, and training leaves it alone."""

    @property
    def is_float(self) -> bool:
        """Whether the numbers are real numbers; others are only ever coded losslessly."""
        return np.issubdtype(self.tensor.dtype, np.floating)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What calibration saw at the input of one weight.

    The weight acts as a matrix ``W`` on columns ``x``, group by group, at every position of
    every sample; rows are outputs.  Sums run over positions and are averaged over samples,
    so ``tr(E gram Eᵀ)`` is the output error energy per sample that an error ``E`` causes.
    """

    gram: Array | None = None
    """(groups, columns, columns) float64: sum of ``x xᵀ``.  None stands for the identity."""
    mean: Array | None = None
    """(groups, columns) float64: sum of ``x``."""
    positions: float = 1.0
    """Number of positions per sample."""
    cross: Array | None = None
    """(groups, rows / groups, columns) float64: sum of ``t xᵀ``, where ``t`` is the output
    that the layer should give.  None where ``t = W x``: inputs are the original ones."""
    target: Array | None = None
    """(groups, rows / groups) float64: sum of ``t``."""
    row_importance: Array | None = None
    """(rows,) float64: how often each row is used per sample, for embeddings."""
    samples: int = 0
    row_metric: Array | None = None
    """(rows, rows) float64, mean diagonal 1: how errors of two rows add up in the loss; the
    damage is then ``tr(row_metric E gram Eᵀ)``.  None stands for the identity."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a model."""

    name: str
    dtype: str
    """NumPy name of the element type, or ``str``."""
    shape: tuple[int | None, ...]
    """None where the size is free."""
    batch_axis: int | None = 0
    """Axis that counts samples; None for an input that is the same for all samples."""


class Backend(Protocol):
    """What the core asks of a framework.  One file in backends/ each."""

    @property
    def name(self) -> str:
        """Framework name as users type it."""

    def recognises(self, native: object) -> bool:
        """Tell whether ``native`` is a model or file of this framework; imports nothing."""

    def open(self, native: Any) -> Model:
        """Return the model; raise ModelError if it cannot be read."""

    def inputs(self, native: Any) -> tuple[Port, ...]:
        """Describe the inputs."""

    def outputs(self, native: Any) -> tuple[Port, ...]:
        """Describe the outputs."""

    def read_weights(self, native: Any) -> dict[str, Weight]:
        """Give every array of the model, in the order of the model."""

    def write_weights(self, native: Any, weights: Mapping[str, Array]) -> Any:
        """Return a copy of ``native`` with these weights; ``native`` is left as it was."""

    def predict(self, native: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on a batch."""


class Walker(Protocol):
    """Runs calibration data through a model layer by layer."""

    def run(self, encode: Callable[[str, Statistics], Mapping[str, Array]]) -> None:
        """Call ``encode(name, statistics)`` for every weight whose input can be seen.

        Weights come in the order of computation.  ``encode`` returns new values for weights
        of that layer (or nothing); later layers then see what the changed ones give, beside
        what the original gives.
        """

    def jacobian(self, name: str, samples: int, seed: int) -> tuple[Array, Array] | None:
        """Tell how the outputs answer to each row of a weight, on some of the data.

        Returns:
            (samples, rows, outputs) derivatives by each row's output, along one random
            pattern of signs over positions, and the (samples, outputs) original outputs;
            None where this is out of reach.
        """


@runtime_checkable
class Observes(Protocol):
    """A capability: the backend can watch what reaches each weight."""

    def walker(self, native: Any, batches: Iterable[Mapping[str, Array]]) -> Walker:
        """Prepare a walk over these inputs; memory grows with their number."""


@runtime_checkable
class Exports(Protocol):
    """A capability: the model can be written to a file."""

    def template(self, native: Any) -> Template:
        """Give the serialized model with its arrays cut out."""

    def original_bytes(self, native: Any) -> int:
        """Size of the model as its owner had it: the file, external data included."""


ACTIVATION_SCALES = "penjing.activation_scales"
"""Name of the weight that holds the steps of quantized activations, one for each."""
ACTIVATION_ZERO_POINTS = "penjing.activation_zero_points"
"""Name of the weight that holds their codes of zero, uint8, in the same order."""


@runtime_checkable
class QuantizesActivations(Protocol):
    """A capability: values between layers can be quantized too."""

    def activations(self, native: Any) -> tuple[str, ...]:
        """Name values to quantize, in the order of computation.

        They are what integer kernels need: inputs of products, outputs of convolutions, and
        what lies between them.  Values that only move numbers of others share their quantizer.
        """

    def watch(
        self, native: Any, names: Sequence[str]
    ) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """Give a function from inputs to the values of these names."""

    def with_quantized_activations(
        self, native: Any, ranges: Mapping[str, tuple[float, float]], bits: int = 8
    ) -> Any:
        """Return a copy of ``native`` in which values are rounded to ``2**bits`` levels.

        A value ``x`` becomes ``scale * (code - zero)``, where ``code`` is
        ``clip(round(x / scale) + zero, 0, 2**bits - 1)``; zero stays zero.  The new weights
        ``ACTIVATION_SCALES`` and ``ACTIVATION_ZERO_POINTS`` hold ``scale`` and ``zero`` of each
        value, in the order of ``activations``.  All other weights keep their names.

        Args:
            native: the model.
            ranges: smallest and largest number of each value to quantize; zero is included.
            bits: 2 to 8.

        Raises:
            UnsupportedError: a name is none of ``activations``, or the model has quantized
                activations already.
            ConfigError: a range or the number of bits makes no sense.
        """


HEAD_WEIGHT = "penjing.head_weight"
"""Name of the weight of a head that was put in place of another."""
HEAD_BIAS = "penjing.head_bias"
"""Name of its bias."""


@runtime_checkable
class OrdersLayers(Protocol):
    """A capability: the backend knows in which order layers are computed."""

    def layers(self, native: Any) -> tuple[tuple[str, ...], ...]:
        """Name the weights of each layer, with its bias, in the order of computation.

        Weights that belong to no layer are left out.
        """


@runtime_checkable
class ReplacesHead(Protocol):
    """A capability: the last linear layer can be replaced, for other classes."""

    def with_head(self, native: Any, outputs: int, seed: int) -> Any:
        """Return a copy of ``native`` whose last linear layer has other outputs.

        Its weights ``HEAD_WEIGHT`` are small random numbers, its ``HEAD_BIAS`` is zero.  What
        follows it stays, but that one probability becomes one for each class.

        Args:
            native: the model.
            outputs: number of classes.
            seed: of the random numbers.

        Raises:
            UnsupportedError: there is no such layer; the error names what is there.
        """


@dataclass(frozen=True, slots=True)
class IntegerModel:
    """A serialized model with integers in place of float weights; it computes the same."""

    serialized: bytes
    weights: tuple[str, ...]
    """Names of the weights that are integers in it."""
    activations: int
    """How many values between layers are quantized: without any, layers compute in floats."""


@runtime_checkable
class ExportsIntegers(Protocol):
    """A capability: weights can be written as the integers of their encodings."""

    def with_integers(
        self, plain: bytes, template: Template, tensors: Mapping[str, Tensor]
    ) -> IntegerModel:
        """Put integers in place of float weights.

        These are the weights in an ``Affine`` encoding whose codes fit eight bits, where the
        layout of the graph has a place for their steps.

        Args:
            plain: the filled template.
            template: the model without its arrays.
            tensors: what its arrays are decoded from, by name.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An immutable model: a native object, its backend, and the weights changed so far."""

    native: Any
    backend: Backend
    changed: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    def weights(self, only: str = "*") -> dict[str, Weight]:
        """Named weights whose name matches the ``only`` pattern, in their encodings."""
        return {
            name: replace(weight, tensor=self.changed.get(name, weight.tensor))
            for name, weight in self.backend.read_weights(self.native).items()
            if fnmatchcase(name, only)
        }

    def with_weights(self, changes: Mapping[str, Tensor]) -> Model:
        """Return a new model with some weights in a new encoding."""
        known = self.backend.read_weights(self.native)
        for name in changes:
            if name not in known:
                raise UnsupportedError(
                    name, "no such weight", f"this model has: {', '.join(sorted(known))}"
                )
        return replace(self, changed=MappingProxyType({**self.changed, **changes}))

    def to_native(self) -> Any:
        """Return the framework's own object, with every weight decoded."""
        return self.backend.write_weights(
            self.native, {name: tensor.dense() for name, tensor in self.changed.items()}
        )

    def decoded(self) -> Model:
        """Return the same function with nothing left to decode: for many predictions."""
        return Model(self.to_native(), self.backend)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the compressed model on a batch."""
        return self.backend.predict(self.to_native(), inputs)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in their present encodings, before entropy coding."""
        return sum(weight.tensor.nbytes for weight in self.weights().values())
