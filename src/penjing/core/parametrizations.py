"""Training a weight in the encoding it is in: the same code for every encoding and nesting.

What is real-valued in an encoding is trained as it is: kept values, shared values, factors.
Integers and 16-bit numbers are trained as latent floats that are rounded in the forward pass,
with a straight-through gradient; so are steps (learned step size quantization).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker
from penjing.core.tensors import Affine, Array, Cast, Codebook, Dense, Tensor
from penjing.core.training import Parametrization, stop_gradient, straight_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NESTED: dict[type[Tensor], tuple[str, ...]] = {
    Bitmask: ("values",),
    NMSparse: ("values",),
    Codebook: ("centroids",),
    LowRank: ("left", "right"),
    Tucker: ("core", "outputs", "inputs"),
}
"""Fields of each encoding that hold further encodings."""
STEP_RATE = 0.1
"""Learning rate of the logarithm of a step, relative to that of weights."""
SMALLEST_STEP = 1e-12


def leaves(tensor: Tensor, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Give the innermost encodings, each with the names of the fields that lead to it."""
    inner = NESTED.get(type(tensor))
    if inner is None:
        yield path or "values", tensor
        return
    for name in inner:
        yield from leaves(getattr(tensor, name), f"{path}_{name}" if path else name)


def rebuilt(tensor: Tensor, make: Callable[[str, Tensor], Tensor], path: str = "") -> Tensor:
    """Give the same structure with every innermost encoding replaced."""
    inner = NESTED.get(type(tensor))
    if inner is None:
        return make(path or "values", tensor)
    parts = {
        name: rebuilt(getattr(tensor, name), make, f"{path}_{name}" if path else name)
        for name in inner
    }
    changed: Any = tensor
    return replace(changed, **parts)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Encoded(Parametrization):
    """Trains a weight in the encoding it is in.

    References:
        Han et al., "Deep Compression", ICLR 2016 (shared values are trained).
        Esser et al., "Learned Step Size Quantization", ICLR 2020 (steps).
        Bengio, Léonard, Courville, arXiv:1308.3432 (straight-through gradients).
    """

    encoding: Tensor

    def parameters(self) -> Mapping[str, Array]:
        """Give real values, latent ones where they are rounded, and logarithms of steps."""
        found: dict[str, Array] = {}
        for path, leaf in leaves(self.encoding):
            found[path] = np.array(leaf.dense(), np.float32)
            if isinstance(leaf, Affine):
                found[f"{path}_log_step"] = np.log(np.maximum(leaf.scale, SMALLEST_STEP))
        return found

    def rates(self) -> Mapping[str, float]:
        """Change steps slowly: a step moves all of its weights."""
        return {name: STEP_RATE for name in self.parameters() if name.endswith("_log_step")}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Decode, with rounded numbers straight through."""

        def make(path: str, leaf: Tensor) -> Tensor:
            values = held[path]
            if isinstance(leaf, Affine):
                step = array_namespace(values).exp(held[f"{path}_log_step"])
                return Dense(fake_quantized(values, step, *_codes(leaf)))
            rounding = _rounding(leaf)
            if rounding is not None:
                rounded = rounding.project(stop_gradient(values)).dense()
                return Dense(straight_through(rounded, values))
            return Dense(values)

        return rebuilt(self.encoding, make).dense()

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Encode what was trained."""

        def make(path: str, leaf: Tensor) -> Tensor:
            values = held[path]
            if isinstance(leaf, Affine):
                step = np.exp(held[f"{path}_log_step"])
                low, high, zero = _codes(leaf)
                codes = np.clip(np.round(values / step) + zero, low, high)
                return Affine.encode(codes.astype(np.int64), step, leaf.zero_point)
            if isinstance(leaf, Cast):
                return leaf.project(values)
            return Dense(values.astype(leaf.dtype))

        return rebuilt(self.encoding, make)


def _rounding(leaf: Tensor) -> Cast | None:
    """Give what rounds to the 16 bits of an innermost encoding; None where nothing does."""
    if isinstance(leaf, Cast):
        return leaf
    halves = isinstance(leaf, Dense) and leaf.dtype == np.float16
    return Cast(np.zeros(0, np.uint16), "float16") if halves else None


def _codes(leaf: Affine) -> tuple[int, int, Array]:
    """Give the range of codes of as many bits as those in use need, and the zero points."""
    if not leaf.codes.size:
        return 0, 0, leaf.zero_point
    low, high = int(leaf.codes.min()), int(leaf.codes.max())
    if low >= 0:
        return 0, max(2 ** int(high).bit_length() - 1, 1), leaf.zero_point
    half = 2 ** max(int(high).bit_length(), int(-low - 1).bit_length(), 1)
    symmetric = low > -half  # the lowest code is left out where it is not in use
    return -half + symmetric, half - 1, leaf.zero_point


def fake_quantized(values: Any, step: Any, low: int, high: int, zero: Array | int = 0) -> Any:
    """Round onto a grid between two codes; values and steps get the gradients of LSQ.

    Args:
        values: latent numbers.
        step: broadcasts against them.
        low: smallest code.
        high: largest code.
        zero: code of zero, from NumPy; broadcasts against the values.
    """
    xp = array_namespace(values)
    offset: Any = int(zero) if np.ndim(zero) == 0 else xp.asarray(zero, device=values.device)
    inside = xp.clip(values / step, low - offset, high - offset)
    return straight_through(xp.round(inside), inside) * step
