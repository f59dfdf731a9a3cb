"""Operators of scikit-learn models (``ai.onnx.ml``), as far as gradients can pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site

TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "NONE": lambda x: x,
    "LOGISTIC": torch.sigmoid,
    "SOFTMAX": lambda x: torch.softmax(x, -1),
}


def _transform(site: Site) -> Callable[[Tensor], Tensor]:
    name = site.get("post_transform", "NONE")
    if name not in TRANSFORMS:
        raise site.refusal(f"with post_transform {name}")
    return TRANSFORMS[name]


def _scores(x: Tensor, coefficients: Tensor, intercepts: Tensor | None, rows: int) -> Tensor:
    return functional.linear(
        x.to(coefficients.dtype), coefficients.reshape(rows, -1), intercepts
    )


def _regressor(site: Site) -> Operation:
    targets, transform = site.get("targets", 1), _transform(site)
    return lambda x, w, b=None: transform(_scores(x, w, b, targets))


def _classifier(site: Site) -> Operation:
    labels = site.get("classlabels_ints") or site.get("classlabels_strings") or []
    is_text = not site.get("classlabels_ints")
    transform = _transform(site)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        rows = len(labels) if b is None else b.numel()
        if rows != len(labels):
            raise site.refusal("with fewer scores than classes")
        scores = _scores(x, w, b, rows)
        best = scores.argmax(-1)
        # Labels of text are no numbers: their places stand for them, and nobody reads those.
        return best if is_text else torch.tensor(labels, device=x.device)[best], transform(
            scores
        )

    return run


def _normalizer(site: Site) -> Operation:
    order = {"MAX": torch.inf, "L1": 1, "L2": 2}[site.get("norm", "MAX")]

    def run(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, order, -1, keepdim=True)
        return x / torch.where(size == 0, 1.0, size)

    return run


def _scaler(x: Tensor, offset: Tensor | None, scale: Tensor | None) -> Tensor:
    x = x.to(torch.float32)
    x = x if offset is None else x - offset
    return x if scale is None else x * scale


def _imputer(site: Site) -> Operation:
    replaced = site.get("replaced_value_float", 0.0)
    if site.get("imputed_value_int64s"):
        raise site.refusal("of whole numbers")

    def run(x: Tensor, values: Tensor) -> Tensor:
        is_missing = torch.isnan(x) if replaced != replaced else x == replaced  # noqa: PLR0124  # NaN
        return torch.where(is_missing, values, x)

    return run


def _binarizer(site: Site) -> Operation:
    threshold = site.get("threshold", 0.0)
    return lambda x: (x > threshold).to(x.dtype)


def _one_hot(site: Site) -> Operation:
    categories = site.get("cats_int64s")
    if not categories or not site.get("zeros", 1):
        raise site.refusal("of text" if not categories else "without zeros")

    def run(x: Tensor) -> Tensor:
        known = torch.tensor(categories, device=x.device)
        return (x.long().unsqueeze(-1) == known).to(torch.float32)

    return run


def _vectorizer(*inputs: Tensor) -> Tensor:
    return torch.cat([x.to(torch.float32).reshape(len(x), -1) for x in inputs], 1)


LEARNING: Mapping[str, Maker] = {
    "ai.onnx.ml.Binarizer": _binarizer,
    "ai.onnx.ml.FeatureVectorizer": lambda _site: _vectorizer,
    "ai.onnx.ml.Imputer": _imputer,
    "ai.onnx.ml.LinearClassifier": _classifier,
    "ai.onnx.ml.LinearRegressor": _regressor,
    "ai.onnx.ml.Normalizer": _normalizer,
    "ai.onnx.ml.OneHotEncoder": _one_hot,
    "ai.onnx.ml.Scaler": lambda _site: _scaler,
}
