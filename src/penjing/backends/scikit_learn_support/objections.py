"""What skl2onnx 1.20 converts without complaint into something else, or into what won't run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Objection(NamedTuple):
    """Why some fitted parts of an estimator cannot be converted, and what to do instead."""

    applies: Callable[[Any], bool]
    problem: str
    """What the name of the part's class is put before."""
    hint: str


def _called(part: Any, start: str) -> bool:
    return type(part).__name__.startswith(start)


OBJECTIONS = (
    Objection(
        lambda part: hasattr(part, "best_threshold_"),
        "has a threshold, which its ONNX form would leave out",
        "give its estimator_, and apply its best_threshold_ yourself",
    ),
    Objection(
        lambda part: bool(getattr(part, "add_indicator", False)),
        "adds indicators of missing values, which its ONNX form would leave out",
        "fit it with add_indicator=False",
    ),
    Objection(
        lambda part: getattr(part, "is_categorical_", None) is not None,
        "splits by categories, which its ONNX form would take for numbers",
        "put a OneHotEncoder in front, and fit with categorical_features=None",
    ),
    Objection(
        lambda part: bool(getattr(part, "_missing_indices", None)),  # of OrdinalEncoder
        "has learned of missing values, which its ONNX form would take for a category",
        "put a SimpleImputer in front",
    ),
    Objection(
        lambda part: _called(part, "KNeighbors") and part.weights not in {"uniform", None},
        "weights neighbours by distance, which its ONNX form would leave out",
        'fit it with weights="uniform"',
    ),
    Objection(
        lambda part: _called(part, "Normalizer") and part.norm == "max",
        'divides by the largest size (norm="max"), its ONNX form by the largest number',
        "take MaxAbsScaler or another norm",
    ),
    Objection(
        lambda part: _called(part, "RadiusNeighbors"),
        "has no ONNX form that runs",
        "take the KNeighbors estimator instead",
    ),
)


def objection(part: Any) -> tuple[str, str] | None:
    """Find problem and hint of a fitted part; None if there is no problem."""
    for known in OBJECTIONS:
        if known.applies(part):
            return f"{type(part).__name__} {known.problem}", known.hint
    return None
