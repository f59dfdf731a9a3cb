"""Every operator that can be trained computes what ONNX Runtime computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto

from penjing.testing.onnx_nodes import case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.tensors import Array

RNG = np.random.default_rng(5)


def f(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def typed(kind: str, values: Any) -> Array:
    return np.array(values, kind)


def i(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def pos(*shape: int) -> Array:
    return (np.abs(RNG.normal(size=shape)) + 0.2).astype(np.float32)


def unit(*shape: int) -> Array:
    return RNG.uniform(-0.9, 0.9, size=shape).astype(np.float32)


def truth(*shape: int) -> Array:
    return RNG.integers(0, 2, shape).astype(bool)


WHOLE = np.array([[7, -7, 5], [-5, 9, -2]], np.int64)
DIVISOR = np.array([[2, 2, -3], [3, -4, 5]], np.int64)
IMAGE = f(2, 3, 7, 6)

ELEMENTWISE = {
    **{
        op: case(op, f(3, 4))
        for op in (
            *("Abs", "Atan", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Identity"),
            *("HardSigmoid", "HardSwish", "IsNaN", "LeakyRelu", "Neg", "Relu", "Round", "Selu"),
            *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "Tanh", "Mish"),
            *("Asinh", "Celu", "ThresholdedRelu", "Softmax", "LogSoftmax", "Hardmax", "Shrink"),
        )
    },
    **{op: case(op, unit(3, 4)) for op in ("Acos", "Asin", "Atanh")},
    **{op: case(op, pos(3, 4)) for op in ("Sqrt", "Log", "Reciprocal")},
    "Acosh": case("Acosh", pos(3, 4) + 1),
    **{op: case(op, f(3, 4), f(4)) for op in ("Add", "Sub", "Mul", "Div", "PRelu")},
    **{
        op: case(op, f(2, 3).round(), f(2, 3).round())
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    **{op: case(op, truth(3, 4), truth(4)) for op in ("And", "Or", "Xor")},
    **{
        f"{op}_of_whole": case(op, WHOLE, DIVISOR) for op in ("Add", "Div", "Mod", "Mul", "Sub")
    },
    **{
        f"{op}_of_three": case(op, f(3, 4), f(4), f(3, 1))
        for op in ("Max", "Min", "Sum", "Mean")
    },
    "Max_of_one": case("Max", f(3)),
    "Not": case("Not", truth(4)),
    "BitwiseAnd": case("BitwiseAnd", WHOLE, DIVISOR),
    "BitwiseOr": case("BitwiseOr", WHOLE, DIVISOR),
    "BitwiseXor": case("BitwiseXor", WHOLE, DIVISOR),
    "BitwiseNot": case("BitwiseNot", WHOLE),
    "BitShift": case(
        "BitShift", typed("uint8", [1, 2, 64]), typed("uint8", [1, 2, 3]), direction="LEFT"
    ),
    "Mod_fmod": case("Mod", f(5), f(5), fmod=1),
    "Mod_fmod_of_whole": case("Mod", WHOLE, DIVISOR, fmod=1),
    "Pow": case("Pow", pos(3, 4), f(4)),
    "Pow_of_whole": case("Pow", f(3), np.array(3, np.int64)),
    "Pow_by_number": case("Pow", f(3), np.array(2, np.int32)),
    "Clip": case("Clip", f(9), np.float32(-0.5), np.float32(0.7)),
    "Clip_low": case("Clip", f(9), np.float32(-0.5)),
    "Clip_high": case("Clip", f(9), None, np.float32(0.5)),
    "Clip_nothing": case("Clip", f(9)),
    "Clip_of_whole": case("Clip", WHOLE, np.array(-3, np.int64), np.array(6, np.int64)),
    "Clip_at_zero": case("Clip", WHOLE, np.array(0, np.int64)),
    "Elu_alpha": case("Elu", f(9), alpha=0.3),
    "Celu_alpha": case("Celu", f(9), alpha=0.3),
    "Selu_alpha": case("Selu", f(9), alpha=1.5, gamma=0.9),
    "LeakyRelu_alpha": case("LeakyRelu", f(9), alpha=0.2),
    "HardSigmoid_alpha": case("HardSigmoid", f(9), alpha=0.5, beta=0.4),
    "Shrink_bias": case("Shrink", f(9), lambd=0.4, bias=0.3),
    "PRelu_channels": case("PRelu", f(2, 3, 4, 4), f(3, 1, 1)),
    "Gelu": case("Gelu", f(9), opset=20),
    "Gelu_tanh": case("Gelu", f(9), opset=20, approximate="tanh"),
    "IsInf": case("IsInf", typed("float32", [1, np.inf, -np.inf, np.nan])),
    "IsInf_positive": case("IsInf", typed("float32", [1, np.inf, -np.inf]), detect_negative=0),
    "IsInf_negative": case("IsInf", typed("float32", [1, np.inf, -np.inf]), detect_positive=0),
    "Where": case("Where", truth(3, 1), f(3, 4), f(4)),
    "Cast": case("Cast", f(9) * 9, to=TensorProto.INT32),
    "Cast_to_bool": case("Cast", f(9).round(), to=TensorProto.BOOL),
    "Cast_from_bytes": case("Cast", typed("uint8", [0, 200]), to=TensorProto.FLOAT),
    "CastLike": case("CastLike", WHOLE, f(1), opset=19),
    "Dropout": case("Dropout", f(9)),
    "Dropout_with_mask": case("Dropout", f(9), outputs=2),
    **{
        f"{op}_axis": case(op, f(2, 3, 4), axis=1)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
    },
    **{
        f"{op}_11": case(op, f(2, 3, 4), opset=11)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
    },
    "Softmax_11_axis": case("Softmax", f(2, 3, 4), opset=11, axis=2),
    "CumSum": case("CumSum", f(2, 3), np.array(1, np.int64)),
    "CumSum_turned": case("CumSum", f(2, 3), np.array(0, np.int64), reverse=1, exclusive=1),
}

LAYERS = {
    "BatchNormalization": case("BatchNormalization", IMAGE, f(3), f(3), f(3), pos(3)),
    "InstanceNormalization": case("InstanceNormalization", IMAGE, f(3), f(3), epsilon=0.01),
    "LayerNormalization": case("LayerNormalization", f(2, 3, 4), f(4), f(4)),
    "LayerNormalization_axis": case("LayerNormalization", f(2, 3, 4), f(3, 4), axis=1),
    "LayerNormalization_spread": case("LayerNormalization", f(2, 3, 4), f(4), f(1, 4), axis=1),
    "LayerNormalization_all": case("LayerNormalization", f(2, 3, 4), f(4), f(4), outputs=3),
    "GroupNormalization_21": case(
        "GroupNormalization", f(2, 6, 4), f(6), f(6), opset=21, num_groups=3
    ),
    "GroupNormalization": case("GroupNormalization", f(2, 6, 4), f(3), f(3), num_groups=3),
    "RMSNormalization": case("RMSNormalization", f(2, 3, 4), f(4), opset=23),
    "LpNormalization": case("LpNormalization", f(3, 4)),
    "LpNormalization_1": case("LpNormalization", f(3, 4), p=1, axis=0),
    "MeanVarianceNormalization": case("MeanVarianceNormalization", IMAGE),
    "LRN": case("LRN", f(1, 7, 3, 2), size=3, alpha=0.3, bias=1.5, beta=0.7),
    "Einsum": case("Einsum", f(2, 3, 4), f(2, 4, 5), equation="bij, bjk -> bik"),
    "Einsum_ellipsis": case("Einsum", f(2, 3, 4), f(4), equation="...i,i->..."),
    "MatMul_vector": case("MatMul", f(4), f(4, 3)),
    "MatMul_stack": case("MatMul", f(2, 1, 3, 4), f(5, 4, 2)),
    "Gemm_scaled": case("Gemm", f(2, 3), f(3, 4), f(2, 1), alpha=0.5, beta=2.0),
    "Gemm_without_bias": case("Gemm", f(2, 3), f(4, 3), transB=1),
    "Gemm_full_bias": case("Gemm", f(2, 3), f(3, 4), f(2, 4)),
}

POOLS = {
    f"{op}{len(x.shape) - 2}_{name}": case(op, x, kernel_shape=[3] * (x.ndim - 2), **known)
    for op in ("MaxPool", "AveragePool", "LpPool")
    for name, x, known in (
        ("plain", f(2, 3, 9), {}),
        ("plain", IMAGE, {}),
        ("plain", f(1, 2, 5, 6, 5), {}),
        ("strides", IMAGE, {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
        ("odd_pads", IMAGE, {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
        ("wide_pads", IMAGE, {"pads": [2, 1, 2, 1]}),
        ("same_upper", IMAGE, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("same_lower", IMAGE, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ("valid", IMAGE, {"strides": [2, 2], "auto_pad": "VALID"}),
        ("ceil", f(1, 2, 8, 8), {"strides": [2, 2], "ceil_mode": 1}),
        ("ceil_pads", f(1, 2, 7, 8), {"strides": [3, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    )
    if not (op == "LpPool" and "ceil" in name)
}
COUNTED: dict[str, Any] = {"count_include_pad": 1, "kernel_shape": [3, 3]}
REDUCING = {
    **POOLS,
    "MaxPool_dilated": case("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3]),
    "MaxPool_of_bytes": case(
        "MaxPool", typed("uint8", [[[[1, 9], [3, 4]]]]), kernel_shape=[2, 2], pads=[1, 1, 0, 0]
    ),
    "AveragePool_counted": case("AveragePool", IMAGE, pads=[1, 1, 1, 1], **COUNTED),
    "AveragePool_counted_odd": case("AveragePool", IMAGE, pads=[1, 0, 0, 1], **COUNTED),
    "AveragePool_counted_ceil": case(
        "AveragePool", f(1, 2, 8, 8), pads=[1, 1, 1, 1], strides=[2, 2], ceil_mode=1, **COUNTED
    ),
    "LpPool_3": case("LpPool", pos(1, 2, 6, 6), kernel_shape=[2, 2], p=3),
    "GlobalAveragePool": case("GlobalAveragePool", IMAGE),
    "GlobalMaxPool": case("GlobalMaxPool", IMAGE),
    "GlobalLpPool": case("GlobalLpPool", IMAGE, p=2),
    **{
        f"Reduce{op}_{name}": case(f"Reduce{op}", pos(2, 3, 4), *axes, opset=opset, **known)
        for op in (
            *("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min"),
            *("Prod", "Sum", "SumSquare"),
        )
        for name, opset, axes, known in (
            ("all", 18, (), {}),
            ("axes", 18, (i(1, -1),), {"keepdims": 0}),
            ("nothing", 18, (), {"noop_with_empty_axes": 1}),
            ("axes_12", 12, (), {"axes": [-2], "keepdims": 0}),
        )
        if not (op in {"L1", "L2", "LogSum", "LogSumExp", "SumSquare"} and name == "nothing")
    },
    "ReduceSum_13": case("ReduceSum", f(2, 3), i(0), opset=13),
    "ReduceMax_of_whole": case("ReduceMax", WHOLE, i(1)),
    "ReduceL1_of_whole": case("ReduceL1", WHOLE, i(1)),
    **{
        f"{op}_{name}": case(op, f(3, 4).round(), **known)
        for op in ("ArgMax", "ArgMin")
        for name, known in (
            ("first", {}),
            ("axis", {"axis": -1, "keepdims": 0}),
            ("last", {"axis": 1, "select_last_index": 1}),
        )
    },
    "TopK": case("TopK", f(3, 6).round(), i(4), outputs=2),
    "TopK_smallest": case("TopK", f(3, 6), i(2), outputs=2, largest=0, axis=0),
}

ALL = {**ELEMENTWISE, **LAYERS, **REDUCING}


@pytest.mark.parametrize("fixed", [True, False], ids=["constants", "inputs"])
@pytest.mark.parametrize("name", ALL)
def test_operator_computes_what_the_runtime_computes(
    name: str, computes_the_same: Callable[[Any, Mapping[str, Array]], None], *, fixed: bool
) -> None:
    computes_the_same(*ALL[name].build(fixed=fixed))
