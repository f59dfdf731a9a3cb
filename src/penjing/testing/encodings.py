"""What every encoding promises, one promise per function.

A check takes a tensor and raises AssertionError when the promise is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass
from importlib.util import find_spec
from typing import Any, cast

import numpy as np

from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker, selected, zeroed
from penjing.core.tensors import Affine, Array, Cast, Codebook, Dense, Tensor

EncodingCheck = Callable[[Tensor], None]
TOLERANCE = 1e-4
"""Of the largest element: singular vectors in float32 are no more exact."""


def structure(tensor: Tensor) -> tuple[Any, ...]:
    """Describe an encoding without its numbers: types, shapes and number types, nested."""
    return (
        type(tensor).__name__,
        tensor.shape,
        tuple(
            (name, structure(part) if isinstance(part, Tensor) else (part.shape, part.dtype))
            for name, part in tensor.parts().items()
        ),
    )


def assert_same(one: Array, other: Array, what: str) -> None:
    """Assert that two arrays agree as far as float32 goes."""
    assert np.isfinite(one).all(), f"{what}: not finite"
    largest = float(np.abs(one).max()) if one.size else 0.0
    np.testing.assert_allclose(
        other, one, rtol=TOLERANCE, atol=TOLERANCE * largest, err_msg=what
    )


def check_describes_itself(tensor: Tensor) -> None:
    """States the shape and number type that decoding gives, and the bytes of its parts."""
    dense = tensor.dense()
    assert isinstance(dense, np.ndarray), "decodes to something other than an array"
    assert (dense.shape, dense.dtype) == (tensor.shape, tensor.dtype)
    stored = sum(part.nbytes for part in tensor.parts().values())
    assert 0 <= tensor.nbytes <= stored, "counts more bytes than its parts have"
    assert tensor.nbytes or not dense.size, "counts no bytes"


def check_cannot_change(tensor: Tensor) -> None:
    """Is a frozen dataclass; decoding and projecting write into none of its arrays."""
    assert is_dataclass(tensor)
    for field in fields(tensor):
        try:
            setattr(tensor, field.name, getattr(tensor, field.name))
        except FrozenInstanceError:
            continue
        raise AssertionError(f"{field.name} can be reassigned")
    before = _bytes(tensor)
    target = np.asarray(tensor.dense() + 1, tensor.dtype)
    kept = target.copy()
    tensor.project(target)
    tensor.map_values(Dense)
    assert _bytes(tensor) == before, "changed its own arrays"
    np.testing.assert_array_equal(target, kept, "changed the array to project")


def check_projects_onto_itself(tensor: Tensor) -> None:
    """Projecting keeps the structure, and projecting what it holds changes nothing."""
    dense = tensor.dense()
    again = tensor.project(dense)
    assert structure(again) == structure(tensor), "projecting changed the structure"
    assert again.nbytes == tensor.nbytes, "projecting changed the size"
    assert_same(dense, again.dense(), "projecting its own numbers changed them")
    noise = np.random.default_rng(5).normal(size=dense.shape)
    moved = np.asarray(dense + 0.1 * np.abs(dense).max(initial=0) * noise, dense.dtype)
    once = tensor.project(moved)
    assert structure(once) == structure(tensor), "projecting changed the structure"
    assert np.isfinite(once.dense()).all()
    assert_same(once.dense(), once.project(once.dense()).dense(), "projecting twice differs")


def check_projects_closer(tensor: Tensor) -> None:
    """What projecting gives is no farther from an array than what was there."""
    dense = tensor.dense().astype(np.float64)
    noise = np.random.default_rng(6).normal(size=dense.shape)
    moved = dense + 0.2 * np.abs(dense).max(initial=0) * noise
    now = np.linalg.norm(tensor.project(np.asarray(moved, tensor.dtype)).dense() - moved)
    before = np.linalg.norm(dense - moved)
    assert now <= before * (1 + TOLERANCE), f"{now} away, was {before}"


def check_maps_its_values(tensor: Tensor) -> None:
    """Re-encoding its real numbers as they are changes nothing; doubling them shows."""
    dense = tensor.dense()
    assert_same(dense, tensor.map_values(Dense).dense(), "re-encoding changed the numbers")
    assert tensor.map_values(Dense).shape == tensor.shape
    zero = tensor.map_values(lambda array: Dense(np.zeros_like(array))).dense()
    np.testing.assert_array_equal(zero, np.zeros_like(dense), "holds numbers it never gives")


def check_can_be_pruned(tensor: Tensor) -> None:
    """``zeroed`` and ``selected`` give exactly the elements asked for."""
    dense = tensor.dense()
    keep = np.random.default_rng(4).integers(0, 2, dense.shape, np.uint8).astype(bool)
    np.testing.assert_array_equal(zeroed(tensor, keep).dense(), np.where(keep, dense, 0))
    np.testing.assert_array_equal(selected(tensor, keep).dense(), dense[keep])


def check_projects_any_array(tensor: Tensor) -> None:
    """``project`` and then ``dense`` need nothing beyond the array API standard."""
    if not find_spec("array_api_strict"):
        return
    import array_api_strict as strict

    target = np.asarray(tensor.dense() * 0.9, tensor.dtype)
    try:
        there: Any = tensor.project(cast("Array", strict.asarray(target))).dense()
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise AssertionError(f"not in the standard: {error}") from error
    assert isinstance(there, strict._array_object.Array), "left the framework of the array"  # noqa: SLF001  # the class has no public name
    assert_same(tensor.project(target).dense(), np.asarray(there), "differs from NumPy")


def _bytes(tensor: Tensor) -> list[bytes]:
    return [
        byte
        for part in tensor.parts().values()
        for byte in (_bytes(part) if isinstance(part, Tensor) else [part.tobytes()])
    ]


CHECKS: tuple[EncodingCheck, ...] = (
    check_describes_itself,
    check_cannot_change,
    check_projects_onto_itself,
    check_projects_closer,
    check_maps_its_values,
    check_can_be_pruned,
    check_projects_any_array,
)


def affine(array: Array) -> Affine:
    """Quantize to 8 bits with one step, about zero."""
    step = float(np.abs(array).max(initial=0)) / 127 or 1.0
    return Affine.encode(np.rint(array / step), step)


def shared(array: Array) -> Codebook:
    """Share eight values: the middle of each eighth."""
    table = np.quantile(array, (np.arange(8) + 0.5) / 8).astype(array.dtype)
    near = np.abs(array[..., None] - table).argmin(axis=-1)
    return Codebook(near.astype(np.uint8), Dense(table))


def half(array: Array) -> Cast:
    """Round to half precision."""
    return Cast.encode(array, "float16")


def sparse(array: Array) -> Bitmask:
    """Keep the larger half."""
    return Bitmask.encode(array, np.abs(array) > np.median(np.abs(array)))


def examples() -> dict[str, Tensor]:
    """Tensors of every encoding, alone and nested, by name."""
    rng = np.random.default_rng(9)
    matrix = rng.normal(size=(12, 20)).astype(np.float32)
    kernel = rng.normal(size=(8, 6, 3, 3)).astype(np.float32)
    step = np.abs(matrix).max(axis=1, keepdims=True) / 100
    low_rank = LowRank.encode(matrix, 4)
    core = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    factors = [np.linalg.qr(rng.normal(size=s))[0].astype("f4") for s in ((8, 4), (6, 3))]
    tucker = Tucker(Dense(core), *(Dense(factor) for factor in factors))
    plain: dict[str, Tensor] = {
        "dense": Dense(matrix),
        "half": half(matrix),
        "bfloat16": Cast.encode(matrix, "bfloat16"),
        "scalar_half": half(np.array(0.3, np.float32)),
        "affine": affine(matrix),
        "affine_per_channel": Affine.encode(np.rint(matrix / step) + 3, step, 3),
        "codebook": shared(matrix),
        "bitmask": sparse(matrix),
        "nm": NMSparse.encode(matrix[:, :17], 2, 4),
        "nm_kernel": NMSparse.encode(kernel, 1, 4),
        "low_rank": low_rank,
        "tucker": tucker.project(kernel),
    }
    nested: dict[str, Tensor] = {"codebook_of_half": plain["codebook"].map_values(half)}
    for outer in ("bitmask", "nm", "low_rank", "tucker"):
        for inner in (affine, shared, half, sparse):
            nested[f"{outer}_of_{inner.__name__}"] = plain[outer].map_values(inner)
    return plain | nested


def encoding_cases(
    tensors: dict[str, Tensor] | None = None,
) -> Iterator[tuple[str, tuple[EncodingCheck, Tensor]]]:
    """Yield ``(id, (check, tensor))`` for every combination; of ``examples()`` if None."""
    for name, tensor in (examples() if tensors is None else tensors).items():
        for check in CHECKS:
            yield f"{name}-{check.__name__}", (check, tensor)
