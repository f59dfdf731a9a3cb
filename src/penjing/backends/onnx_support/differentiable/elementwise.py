"""Operators that work on each element, with broadcasting."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from penjing.backends.onnx_support.differentiable.node import TORCH_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site


def _divide(one: Tensor, other: Tensor) -> Tensor:
    if one.is_floating_point() or other.is_floating_point():
        return one / other
    return torch.div(one, other, rounding_mode="trunc")


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _shift(site: Site) -> Operation:
    return (
        torch.bitwise_left_shift
        if site.get("direction") == "LEFT"
        else torch.bitwise_right_shift
    )


PLAIN: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Det": torch.det,
    "Div": _divide,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Max": lambda *xs: reduce(torch.maximum, xs),
    "Mean": lambda *xs: reduce(torch.add, xs) / len(xs),
    "Min": lambda *xs: reduce(torch.minimum, xs),
    "Mish": functional.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": _prelu,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": lambda *xs: reduce(torch.add, xs),
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}
"""Operators without attributes."""


def _pow(site: Site) -> Operation:
    exponent = site.number(1)
    base = site.constant(1)
    if exponent is not None and base is not None and base.dim() == 0:
        return lambda x, _: torch.pow(x, exponent).to(x.dtype)
    return lambda x, y: torch.pow(x, y).to(x.dtype)


def _mod(site: Site) -> Operation:
    return torch.fmod if site.get("fmod", 0) else torch.remainder


def _clip(site: Site) -> Operation:
    low, high = site.number(1), site.number(2)
    if (low is None) == site.has(1) or (high is None) == site.has(2):
        return _clip_by_tensors
    if low is None and high is None:
        return lambda x, *_: x
    if low == 0 and high is None:
        return lambda x, *_: torch.relu(x)
    return lambda x, *_: torch.clamp(x, low, high)


def _clip_by_tensors(
    x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def cast_type(site: Site, attribute: str = "to") -> torch.dtype:
    """Give the number type that an attribute names.

    Raises:
        UnsupportedError: PyTorch cannot compute with it.
    """
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(site.get(attribute)).lower()
    if kind not in TORCH_TYPES:
        raise site.refusal(f"to {kind}")
    return TORCH_TYPES[kind]


def _cast(site: Site) -> Operation:
    dtype = cast_type(site)
    return lambda x: x.to(dtype)


def _is_inf(site: Site) -> Operation:
    negative, positive = site.get("detect_negative", 1), site.get("detect_positive", 1)
    if negative and positive:
        return torch.isinf
    return torch.isneginf if negative else torch.isposinf


def _elu(site: Site) -> Operation:
    alpha = site.get("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


def _celu(site: Site) -> Operation:
    alpha = site.get("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


def _selu(site: Site) -> Operation:
    alpha = site.get("alpha", 1.67326319217681884765625)
    gamma = site.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * functional.elu(x, alpha)


def _leaky_relu(site: Site) -> Operation:
    alpha = site.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


def _thresholded_relu(site: Site) -> Operation:
    alpha = site.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, 0.0)


def _hard_sigmoid(site: Site) -> Operation:
    alpha, beta = site.get("alpha", 0.2), site.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


def _swish(site: Site) -> Operation:
    alpha = site.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def _gelu(site: Site) -> Operation:
    approximate = site.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


def _shrink(site: Site) -> Operation:
    limit, bias = site.get("lambd", 0.5), site.get("bias", 0.0)
    return lambda x: torch.where(
        x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x))
    )


def _softmax(function: Callable[..., Tensor]) -> Maker:
    def make(site: Site) -> Operation:
        axis = site.get("axis", -1 if site.opset >= 13 else 1)  # noqa: PLR2004  # opset
        if site.opset >= 13:  # noqa: PLR2004  # opset
            return lambda x: function(x, axis)
        # Until then all axes from the given one on were one.
        return lambda x: function(x.flatten(axis), -1).reshape(x.shape)

    return make


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _dropout(site: Site) -> Operation:
    """Leave everything as it is, as when a model is used."""
    if site.number(2):
        raise site.refusal("in training mode")
    if site.gives(1):
        return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
    return lambda x, *_: (x, None) if len(site.node.outputs) > 1 else x


ELEMENTWISE: Mapping[str, Maker] = {
    **{name: (lambda _site, plain=plain: plain) for name, plain in PLAIN.items()},  # type: ignore[misc]
    "BitShift": _shift,
    "Cast": _cast,
    "CastLike": lambda _site: lambda x, like: x.to(like.dtype),
    "Celu": _celu,
    "Clip": _clip,
    "Dropout": _dropout,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "Hardmax": _softmax(_hardmax),
    "IsInf": _is_inf,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _softmax(torch.log_softmax),
    "Mod": _mod,
    "Pow": _pow,
    "Selu": _selu,
    "Shrink": _shrink,
    "Softmax": _softmax(torch.softmax),
    "Swish": _swish,
    "ThresholdedRelu": _thresholded_relu,
}
