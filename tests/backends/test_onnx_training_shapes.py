"""Operators that move, look up, resize, quantize or repeat compute what ONNX Runtime does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.testing.onnx_nodes import Case, case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penjing.core.tensors import Array

RNG = np.random.default_rng(6)


def f(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def typed(kind: str, values: Any) -> Array:
    return np.array(values, kind)


def i(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def scalar(number: int) -> Array:
    return np.array(number, np.int64)


X = f(2, 3, 4)
IMAGE = f(1, 2, 4, 3)
BLOCKS = f(1, 8, 3, 2)

SHAPES = {
    "Reshape": case("Reshape", X, i(4, -1)),
    "Reshape_kept": case("Reshape", X, i(0, -1, 2)),
    "Reshape_empty": case("Reshape", f(0, 3), i(3, 0), allowzero=1),
    "Flatten": case("Flatten", X),
    "Flatten_0": case("Flatten", X, axis=0),
    "Flatten_back": case("Flatten", X, axis=-1),
    "Transpose": case("Transpose", X, perm=[2, 0, 1]),
    "Transpose_all": case("Transpose", X),
    "Squeeze": case("Squeeze", f(1, 3, 1), i(0, -1)),
    "Squeeze_all": case("Squeeze", f(1, 3, 1)),
    "Squeeze_11": case("Squeeze", f(1, 3, 1), opset=11, axes=[2]),
    "Unsqueeze": case("Unsqueeze", f(3, 4), i(-1, 0)),
    "Unsqueeze_11": case("Unsqueeze", f(3, 4), opset=11, axes=[3, 1]),
    "Concat": case("Concat", f(2, 3), f(2, 1), axis=-1),
    "Split": case("Split", X, i(1, 3), outputs=2, axis=2),
    "Split_even": case("Split", X, outputs=3, axis=1, opset=13),
    "Split_uneven": case("Split", f(7), outputs=3, num_outputs=3),
    "Split_11": case("Split", X, outputs=2, axis=1, split=[2, 1], opset=11),
    "Split_one": case("Split", X, i(3), axis=1),
    "Slice": case("Slice", X, i(1, 0), i(2, -1), i(0, 2)),
    "Slice_without_axes": case("Slice", X, i(0, 1), i(2, 100)),
    "Slice_steps": case("Slice", f(9), i(1), i(8), i(0), i(3)),
    "Slice_back": case("Slice", f(3, 9), i(-2), i(0), i(1), i(-2)),
    "Slice_all_back": case("Slice", f(3, 9), i(8), i(-(2**31)), i(-1), i(-1)),
    "Slice_nothing": case("Slice", f(9), i(5), i(2), i(0)),
    "Expand": case("Expand", f(3, 1), i(2, 1, 4)),
    "Tile": case("Tile", f(2, 3), i(2, 1)),
    "Shape": case("Shape", X),
    "Shape_part": case("Shape", X, start=1, end=-1),
    "Size": case("Size", X),
    "ConstantOfShape": case("ConstantOfShape", i(2, 3)),
    "Range": case("Range", scalar(2), scalar(9), scalar(3)),
    "Range_of_floats": case("Range", np.float32(1), np.float32(-1), np.float32(-0.5)),
    "EyeLike": case("EyeLike", f(3, 4), k=1),
    "EyeLike_typed": case("EyeLike", f(3, 4), dtype=7),
    "Trilu": case("Trilu", f(4, 5), scalar(1)),
    "Trilu_low": case("Trilu", f(4, 5), upper=0),
    "DepthToSpace": case("DepthToSpace", BLOCKS, blocksize=2),
    "DepthToSpace_crd": case("DepthToSpace", BLOCKS, blocksize=2, mode="CRD"),
    "SpaceToDepth": case("SpaceToDepth", f(1, 2, 4, 6), blocksize=2),
    "Pad": case("Pad", X, i(0, 1, 2, 1, 0, 0)),
    "Pad_value": case("Pad", X, i(0, 1, 2, 1, 0, 0), np.float32(1.5)),
    "Pad_axes": case("Pad", X, i(1, 2), None, i(-2)),
    "Pad_crop": case("Pad", X, i(0, -1, 2, 0, 0, -1)),
    "Pad_edge": case("Pad", X, i(2, 1, 0, 0, 2, 5), mode="edge"),
    "Pad_reflect": case("Pad", X, i(1, 1, 0, 0, 2, 3), mode="reflect"),
    "Pad_reflect_crop": case("Pad", X, i(0, 0, -1, 0, 2, 1), mode="reflect"),
    "Pad_wrap": case("Pad", X, i(1, 1, 0, 0, 2, 3), mode="wrap", opset=19),
}

PAIRS = np.array([[0, 1], [1, 2]], np.int64)
INDEXING = {
    "Gather": case("Gather", X, np.array([[0, -1], [2, 1]], np.int64), axis=1),
    "Gather_rows": case("Gather", f(5, 3), i(4, 0, -1)),
    "Gather_whole": case("Gather", np.arange(9).reshape(3, 3), i(2, 0)),
    "Gather_one": case("Gather", X, scalar(-1), axis=2),
    "GatherElements": case("GatherElements", f(3, 2), np.array([[1, -1]], np.int64)),
    "GatherND": case("GatherND", X, PAIRS),
    "GatherND_batch": case("GatherND", X, np.array([[1], [-1]], np.int64), batch_dims=1),
    **{
        f"ScatterElements_{how}": case(
            "ScatterElements", f(3, 4), PAIRS, f(2, 2), axis=1, reduction=how
        )
        for how in ("none", "add", "mul", "max", "min")
    },
    **{
        f"ScatterND_{how}": case("ScatterND", X, PAIRS, f(2, 4), reduction=how)
        for how in ("none", "add", "mul", "max", "min")
    },
    "OneHot": case("OneHot", i(0, 2, -1, 7), scalar(3), typed("float32", [0.5, 2])),
    "OneHot_axis": case("OneHot", PAIRS, scalar(3), typed("float32", [0, 1]), axis=1),
    "NonZero": case("NonZero", f(3, 4).round()),
    "ArrayFeatureExtractor": case("ai.onnx.ml/ArrayFeatureExtractor", f(3, 4), i(2, 0)),
}

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resized(scales: Sequence[float] | None, sizes: list[int] | None, **known: Any) -> Case:
    given = [None if scales is None else typed("float32", scales)]
    given += [] if sizes is None else [i(*sizes)]
    known = {k: v for k, v in known.items() if v}
    opset = known.pop("opset", 18)
    return case("Resize", IMAGE, f(0) if opset < 13 else None, *given, opset=opset, **known)


RESIZING = {
    **{
        f"{mode}_{way}_{name}": resized(
            scales, sizes, mode=mode, coordinate_transformation_mode=way
        )
        for mode in ("nearest", "linear", "cubic")
        for way in COORDINATES
        for name, scales, sizes in (
            ("up", [1, 1, 2, 2], None),
            ("down", [1, 1, 0.5, 0.7], None),
            ("odd", None, [1, 2, 7, 5]),
        )
    },
    **{
        f"nearest_{way}_{rounding}": resized(
            [1, 1, 1.6, 2.5], None, coordinate_transformation_mode=way, nearest_mode=rounding
        )
        for way in COORDINATES
        for rounding in ROUNDINGS
    },
    "axes": resized([1.5], None, axes=[2], mode="linear"),
    "symmetric": resized(
        [1, 1, 1.6, 1.3], None, mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric", opset=19,
    ),
    "for_nn": resized(
        [1, 1, 2, 2], None, coordinate_transformation_mode="tf_half_pixel_for_nn", opset=11
    ),
    "channels": resized([1, 2, 2, 1], None, mode="nearest"),
    "cubic_inside": resized([1, 1, 2, 1.5], None, mode="cubic", exclude_outside=1),
    "cubic_slope": resized([1, 1, 2, 1.5], None, mode="cubic", cubic_coeff_a=-0.5),
}  # fmt: skip

SCALES = typed("float32", [0.1, 0.3, 0.2])
ZEROS = np.array([3, -2, 0], np.int8)
QUANTIZING = {
    "Quantize": case("QuantizeLinear", 40 * f(3, 4), np.float32(0.2), np.uint8(100)),
    "Quantize_signed": case("QuantizeLinear", 40 * f(3, 4), np.float32(0.2), np.int8(-3)),
    "Quantize_wide": case(
        "QuantizeLinear", 4000 * f(9), np.float32(0.2), np.uint16(20000), opset=21
    ),
    "Quantize_channels": case("QuantizeLinear", 20 * f(2, 3, 2), SCALES, ZEROS),
    "Quantize_rows": case("QuantizeLinear", 20 * f(3, 2), SCALES, ZEROS, axis=0),
    "Quantize_no_zero": case("QuantizeLinear", 40 * f(3, 4), np.float32(0.2)),
    "Quantize_typed": case(
        "QuantizeLinear", 400 * f(9), np.float32(0.2), opset=21, output_dtype=5
    ),
    "Dequantize": case(
        "DequantizeLinear", typed("uint8", [[3, 200]]), np.float32(0.2), np.uint8(100)
    ),
    "Dequantize_channels": case(
        "DequantizeLinear", RNG.integers(-99, 99, (2, 3)).astype(np.int8), SCALES, ZEROS
    ),
    "Dequantize_bias": case(
        "DequantizeLinear", typed("int32", [[300, -70000]]), np.float32(0.01)
    ),
    "Dequantize_blocks": case(
        "DequantizeLinear", RNG.integers(-9, 9, (2, 6)).astype(np.int8),
        typed("float32", [[0.1, 0.2], [0.3, 0.4]]), opset=21, block_size=3, axis=1,
    ),
}  # fmt: skip


def recurrent(
    op: str,
    direction: str,
    *,
    bias: bool = True,
    start: int = 0,
    outputs: int = 2,
    **known: Any,
) -> Case:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    ways = 2 if direction == "bidirectional" else 1
    arrays = [f(5, 2, 3), f(ways, gates * 4, 3), f(ways, gates * 4, 4)]
    more = [f(ways, gates * 8) if bias else None, None, *[f(ways, 2, 4) for _ in range(start)]]
    known = {"hidden_size": 4, "direction": direction, **known}
    return case(op, *arrays, *(more if bias or start else []), outputs=outputs, **known)


RECURRENT = {
    **{
        f"{op}_{direction}_{name}": recurrent(op, direction, **known)
        for op in ("LSTM", "GRU", "RNN")
        for direction in ("forward", "reverse", "bidirectional")
        for name, known in (
            ("plain", {"outputs": 3 if op == "LSTM" else 2}),
            ("no_bias", {"bias": False}),
            ("start", {"start": 2 if op == "LSTM" else 1}),
            ("one_output", {"outputs": 1}),
        )
    },
    **{
        f"GRU_{direction}_resets_late": recurrent("GRU", direction, linear_before_reset=1)
        for direction in ("forward", "reverse", "bidirectional")
    },
    "LSTM_start_without_cell": recurrent("LSTM", "forward", start=1),
    "RNN_relu": recurrent("RNN", "forward", activations=["Relu"]),
    "RNN_named": recurrent("RNN", "bidirectional", activations=["Tanh", "Tanh"]),
    "LSTM_named": recurrent("LSTM", "forward", activations=["Sigmoid", "Tanh", "Tanh"]),
}

ALL = {**SHAPES, **INDEXING, **RESIZING, **QUANTIZING, **RECURRENT}


@pytest.mark.parametrize("fixed", [True, False], ids=["constants", "inputs"])
@pytest.mark.parametrize("name", ALL)
def test_operator_computes_what_the_runtime_computes(
    name: str, computes_the_same: Callable[[Any, Mapping[str, Array]], None], *, fixed: bool
) -> None:
    computes_the_same(*ALL[name].build(fixed=fixed))
