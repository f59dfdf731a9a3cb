"""Whatever goes into a file comes out again, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from penjing.artifact import Artifact, container
from penjing.artifact.leaves import DTYPES
from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker
from penjing.core.template import Slot, Template
from penjing.core.tensors import Affine, Array, Cast, Codebook, Dense, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Make = Callable[..., Artifact]

QUICK = settings(max_examples=60, deadline=None)
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantize(values: Array) -> Tensor:
    return Affine.encode(np.round(values * 10).astype(np.int32), 0.1)


def share(values: Array) -> Tensor:
    table = np.linspace(-2, 2, 9, dtype=np.float32)
    nearest = np.abs(values.reshape(-1, 1) - table).argmin(axis=1)
    return Codebook(nearest.astype(np.uint8).reshape(values.shape), Dense(table))


def artifact_of(tensor: Tensor) -> Artifact:
    slot = Slot("w", 2, tensor.shape, tensor.dtype.name)
    return Artifact(Template(b"w!", (slot,)), {"w": tensor}, {})


def assert_same(left: Tensor | Array, right: Tensor | Array) -> None:
    """Compare class, settings and the bits of every array."""
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor)
        assert left.shape == right.shape
        first, second = left.parts(), right.parts()
        assert list(first) == list(second)
        for name, part in first.items():
            assert_same(part, second[name])
        return
    assert isinstance(right, np.ndarray)
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    assert left.tobytes() == right.tobytes()


def assert_round_trip(tensor: Tensor) -> Artifact:
    made = artifact_of(tensor)
    back = Artifact.from_bytes(made.to_bytes())
    assert_same(tensor, back.tensors["w"])
    assert made.onnx_bytes() == back.onnx_bytes()
    assert sum(row["bytes"] for row in back.ledger()) == made.size_bytes
    return back


SPARSE = np.where(np.abs(numbers(12, 30)) > 1, numbers(12, 30), 0).astype(np.float32)
ENCODINGS: dict[str, Tensor] = {
    "dense": Dense(numbers(8, 9)),
    "scalar": Dense(np.array(2.5, np.float32)),
    "empty": Dense(np.zeros((0, 4), np.float32)),
    "nan payloads": Dense(
        np.array([0x7FC00001, 0xFF800000, 0x80000000, 1] * 9, "u4").view("f4")
    ),
    "half": Cast.encode(numbers(5, 7), "float16"),
    "bfloat16": Cast.encode(numbers(5, 7), "bfloat16"),
    "one step": quantize(numbers(20, 30)),
    "step per row": Affine.encode(np.arange(24).reshape(4, 6), np.ones((4, 1), np.float32)),
    "step per column": Affine.encode(np.arange(24).reshape(4, 6), numbers(6), np.arange(6)),
    "zero point": Affine.encode(np.arange(40).reshape(4, 10) + 70, 0.5, 90),
    "wide codes": Affine.encode(np.arange(-9, 9).reshape(3, 6) * 10**6, 1e-6),
    "quantized scalar": Affine.encode(np.array(3), 0.5),
    "shared": share(numbers(9, 11)),
    "many shared": Codebook(
        np.arange(600, dtype=np.uint16).reshape(20, 30), Cast.encode(numbers(600), "bfloat16")
    ),
    "sparse": Bitmask.encode(SPARSE),
    "sparse quantized": Bitmask.encode(SPARSE).map_values(quantize),
    "sparse shared": Bitmask.encode(SPARSE).map_values(share),
    "all zero": Bitmask.encode(np.zeros((6, 7), np.float32)),
    "2:4": NMSparse.encode(numbers(6, 10), 2, 4),
    "2:4 quantized": NMSparse.encode(numbers(6, 2, 3, 3), 2, 4).map_values(quantize),
    "low rank": LowRank.encode(numbers(12, 9), 3).map_values(quantize),
    "tucker": Tucker(Dense(numbers(2, 3, 3, 3)), Dense(numbers(8, 2)), quantize(numbers(5, 3))),
    "four deep": LowRank(
        Bitmask(
            Codebook(np.zeros(6, np.uint8), quantize(numbers(1))),
            np.array([252], np.uint8),
            (3, 2),
        ),
        Dense(numbers(2, 4)),
        (3, 4),
    ),
}


@pytest.mark.parametrize("tensor", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_every_encoding_comes_back_bit_for_bit(tensor: Tensor) -> None:
    assert_round_trip(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@QUICK
@given(data=st.data())
def test_any_array_comes_back_bit_for_bit(dtype: str, data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=0, max_dims=4, max_side=7))
    if dtype == "bool":
        assert_round_trip(Dense(data.draw(arrays(np.bool_, shape))))
        return
    bits = data.draw(arrays(BITS[np.dtype(dtype).itemsize], shape))
    assert_round_trip(Dense(bits.reshape(-1).view(dtype).reshape(shape)))


@QUICK
@given(
    codes=arrays(np.int16, array_shapes(max_dims=4, max_side=12), elements=st.integers(-9, 9)),
    scale=st.floats(width=32),
    zero_point=st.integers(-(2**31), 2**31 - 1),
)
def test_any_quantized_array_comes_back(codes: Array, scale: float, zero_point: int) -> None:
    assert_round_trip(Affine.encode(codes, scale, zero_point))


@QUICK
@given(arrays(np.int8, array_shapes(max_dims=3, max_side=16), elements=st.integers(0, 1)))
def test_any_mask_comes_back(keep: Array) -> None:
    values = np.arange(keep.size, dtype=np.float32).reshape(keep.shape)
    assert_round_trip(Bitmask.encode(values, keep.astype(bool)).map_values(quantize))


@pytest.mark.parametrize(
    "coder", ["context_arithmetic", "rans", "huffman", "float_split", "zstd", "raw"]
)
def test_a_coder_can_be_demanded(coder: str, make: Make) -> None:
    tensor = Dense(numbers(30, 30)) if coder == "float_split" else quantize(numbers(30, 30))
    made = make({"w": tensor}, coder=coder)
    back = Artifact.from_bytes(made.to_bytes())
    assert back.ledger()[0]["coder"] == coder
    assert_same(tensor, back.tensors["w"])


def test_the_smallest_coder_is_chosen(make: Make) -> None:
    tensor = quantize(numbers(40, 40))
    names = ["context_arithmetic", "rans", "huffman", "zstd", "raw"]
    sizes = [make({"w": tensor}, coder=name).size_bytes for name in names]
    assert make({"w": tensor}).size_bytes == min(sizes)


def test_an_unknown_coder_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="lzma"):
        make({"w": Dense(numbers(3))}, coder="lzma").to_bytes()


def test_equal_arrays_are_stored_once(make: Make) -> None:
    one, other = numbers(50, 50), numbers(50, 50)
    alone = make({"a": Dense(one)}).size_bytes
    assert make({"a": Dense(one), "b": Dense(other)}).size_bytes < alone + 60
    back = Artifact.from_bytes(make({"a": Dense(one), "b": Dense(other)}).to_bytes())
    assert_same(back.tensors["a"], back.tensors["b"])


def test_steps_of_few_digits_take_fewer_bytes(make: Make) -> None:
    codes = np.arange(24).reshape(4, 6)
    short, long = (make({"w": Affine.encode(codes, s)}).to_bytes() for s in (0.75, 0.1))
    assert container.sections(long)[3].size_bytes - container.sections(short)[3].size_bytes == 2


def test_slots_are_filled_in_every_layout(small: Artifact) -> None:
    weight = small.tensors["fc.weight"].dense()
    filled = Artifact.from_bytes(small.to_bytes()).onnx_bytes()
    assert filled == small.onnx_bytes()
    assert len(filled) == small.template.size_bytes
    assert filled[10 : 10 + weight.nbytes] == weight.T.tobytes()


REFUSED: dict[str, tuple[Mapping[str, Tensor], str]] = {
    "missing": ({}, "without a tensor"),
    "extra": ({"w": Dense(numbers(3)), "x": Dense(numbers(3))}, "no slot"),
    "shape": ({"w": Dense(numbers(4))}, "shape"),
    "type": ({"w": Dense(np.zeros(3, np.int32))}, "cannot stand in"),
    "complex": ({"w": Dense(np.zeros(3, np.complex64))}, "cannot stand in"),
    "step type": ({"w": Affine(np.zeros(3, np.int8), np.ones(1), np.zeros(1, np.int32))}, "64"),
    "inner shape": (
        {"w": Bitmask(Dense(numbers(1, 3)), np.array([224], np.uint8), (3,))},
        "where",
    ),
    "too deep": (
        {
            "w": Codebook(
                np.zeros(3, np.uint8),
                Codebook(
                    np.zeros(1, np.uint8),
                    Codebook(
                        np.zeros(1, np.uint8),
                        Codebook(np.zeros(1, np.uint8), Dense(numbers(1))),
                    ),
                ),
            )
        },
        "deep",
    ),
}


@pytest.mark.parametrize(("tensors", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_format_cannot_hold_is_refused(
    tensors: Mapping[str, Tensor], problem: str
) -> None:
    template = Template(b"w!", (Slot("w", 2, (3,), "float32"),))
    with pytest.raises(UnsupportedError, match=problem):
        Artifact(template, tensors, {}).to_bytes()
