"""scikit-learn estimators: converted with skl2onnx, then treated as ONNX models."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.backends.scikit_learn_support.objections import objection
from penjing.backends.scikit_learn_support.repairs import converters, takes_option
from penjing.core.errors import MissingExtraError, ModelError
from penjing.core.registry import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.core.model import Model

__all__ = ["ScikitLearn"]

INPUT = "x"
"""Name of the input of models that take all features at once."""
TEXT = "str"
NUMBER = "float"
LOCALES = ("en_US.UTF-8", "C.UTF-8", "C")
"""How text is made lower-case: the first one that ONNX Runtime finds on this machine."""
TARGET_OPSET = {"": 18, "ai.onnx.ml": 3}
"""Some converters would fall back on operator sets older than the oldest we read."""
FAILURES = (
    AssertionError,
    AttributeError,
    KeyError,
    NameError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What skl2onnx raises where it cannot convert."""
WRAPPED = ("best_estimator_", "estimator_", "estimator", "base_estimator", "final_estimator_")
"""Attributes of estimators that hold another one."""
LONGEST_MESSAGE = 300


class ScikitLearn:
    """Reads fitted estimators and pipelines."""

    name = "scikit_learn"

    def recognises(self, native: object) -> bool:
        """Look scikit-learn up among the modules already imported."""
        base = sys.modules.get("sklearn.base")
        return base is not None and isinstance(native, base.BaseEstimator)

    def open(self, native: Any) -> Model:
        """Convert a fitted estimator to ONNX and open that.

        Pipelines that begin with a ``ColumnTransformer`` get one input for each column, of
        text or numbers; all others one input ``x`` of shape (rows, features).  Classifiers
        give labels and probabilities, an array each.  Of a search for parameters, the best
        estimator is taken.

        Raises:
            ModelError: it is not fitted, or something in it has no ONNX form.
            MissingExtraError: skl2onnx is not installed.
        """
        native = getattr(native, "best_estimator_", native)
        where = type(native).__name__
        _check_fitted(native, where)
        for part in _all_parts(native):
            found = objection(part)
            if found is not None:
                raise ModelError(where, *found)
        texts = any(_reads_text(part) for part in _all_parts(native))
        for locale in LOCALES if texts else LOCALES[-1:]:
            try:
                opened: Model = BACKENDS.load("onnx")().open(_converted(native, where, locale))
            except ModelError as error:
                if "locale" not in error.problem or locale == LOCALES[-1]:
                    raise
            else:
                break
        return opened


def _converted(estimator: Any, where: str, locale: str) -> Any:
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
    except ImportError as error:
        raise MissingExtraError("sklearn", "converting scikit-learn estimators") from error

    types = _initial_types(estimator, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how skl2onnx calls scikit-learn
            made = convert_sklearn(
                estimator,
                # Without a name of ours the graph gets a random one: no two files are the same.
                name=type(estimator).__name__,
                initial_types=types,
                target_opset=TARGET_OPSET,
                options=_options(estimator, locale),
                custom_conversion_functions=converters(),
            )
    except (MissingConverter, MissingShapeCalculator) as error:
        raise ModelError(
            where,
            f"{_culprit(estimator, str(error))} has no conversion to ONNX",
            "replace that step; https://onnx.ai/sklearn-onnx/supported.html lists the rest",
        ) from error
    except FAILURES as error:
        cause = error.__cause__ or error
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ModelError(
            where,
            f"skl2onnx cannot convert it: {first[:LONGEST_MESSAGE]}",
            "convert it with other options yourself, and give the .onnx file",
        ) from error
    _restore_names(made.graph, [name for name, _ in types])
    _drop_unread_inputs(made.graph)
    _raise_opset(made)
    return made


def _options(estimator: Any, locale: str) -> dict[Any, Any]:
    """Choose what skl2onnx leaves to choose."""
    *_, last = ends = list(_ends(estimator))
    # Without it, probabilities come as a list of dictionaries; some classifiers have none.
    wanted = {"zipmap": False} if takes_option(last, "zipmap") else {}
    options: dict[Any, Any] = {id(part): wanted for part in ends}
    texts = [part for part in _all_parts(estimator) if _reads_text(part)]
    return options | {id(part): {"locale": locale} for part in texts}


def _ends(estimator: Any) -> Iterator[Any]:
    """Give an estimator, its last step if it has steps, the last one of that, and so on."""
    yield estimator
    if hasattr(estimator, "steps"):
        yield from _ends(estimator.steps[-1][1])
    elif hasattr(estimator, "best_estimator_"):
        yield from _ends(estimator.best_estimator_)


def _raise_opset(model: Any) -> None:
    """Declare the operator set asked for; skl2onnx declares the oldest one that will do."""
    for opset in model.opset_import:
        if not opset.domain:
            opset.version = TARGET_OPSET[""]


def _restore_names(graph: Any, names: list[str]) -> None:
    """Call inputs what their columns are called; skl2onnx takes letters and digits only."""
    taken = {name for node in graph.node for name in node.output}
    taken |= {tensor.name for tensor in graph.initializer}
    renamed = {
        value.name: name
        for value, name in zip(graph.input, names, strict=True)
        if name not in taken
    }
    for value in graph.input:
        value.name = renamed.get(value.name, value.name)
    for node in graph.node:
        sources = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(sources)


def _drop_unread_inputs(graph: Any) -> None:
    """Remove inputs for columns that the estimator drops: nobody needs to give them."""
    read = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name not in read:
            del graph.input[index]


def _check_fitted(estimator: Any, where: str) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        for part in _parts(estimator):
            check_is_fitted(part)
    except (NotFittedError, TypeError) as error:
        raise ModelError(
            where, "is not fitted", "call its fit() before compressing it"
        ) from error


def _parts(estimator: Any) -> Iterator[Any]:
    """Give the steps of a pipeline, those of pipelines inside it, or the estimator itself."""
    if hasattr(estimator, "steps"):
        for _, step in estimator.steps:
            if step not in {None, "passthrough"}:
                yield from _parts(step)
    else:
        yield estimator


def _culprit(estimator: Any, message: str) -> str:
    """Name the class that a message of skl2onnx is about."""
    known = [type(part).__name__ for part in _all_parts(estimator)]
    return next((name for name in known if f"{name}'" in message), known[0])


def _all_parts(native: Any) -> Iterator[Any]:
    for part in _parts(native):
        yield part
        inner = [*getattr(part, "transformers_", []), *getattr(part, "transformer_list", [])]
        for _, transformer, *_ in inner:
            if not isinstance(transformer, str):
                yield from _all_parts(transformer)
        members = getattr(part, "estimators_", None)
        held = [getattr(part, name, None) for name in WRAPPED]
        for estimator in [*held, *(members if isinstance(members, list) else [])]:
            if hasattr(estimator, "get_params"):
                yield from _all_parts(estimator)


def _initial_types(estimator: Any, where: str) -> list[tuple[str, Any]]:
    """Describe the inputs that an estimator was fitted on, as skl2onnx wants them."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    made = {TEXT: StringTensorType, NUMBER: FloatTensorType}
    first = next(iter(_parts(estimator)))
    names = getattr(estimator, "feature_names_in_", getattr(first, "feature_names_in_", None))
    if hasattr(first, "transformers_") and names is not None:
        kinds = _column_kinds(first, [str(name) for name in names])
        return [(name, made[kind]([None, 1])) for name, kind in kinds.items()]
    kind = _kind(first)
    if _reads_text(first):
        return [(INPUT, made[TEXT]([None, 1]))]
    features = getattr(estimator, "n_features_in_", getattr(first, "n_features_in_", None))
    if features is None:
        raise ModelError(
            where,
            "does not say how many features it was fitted on",
            "convert it yourself with skl2onnx and give the .onnx file",
        )
    return [(INPUT, made[kind]([None, int(features)]))]


def _column_kinds(transformer: Any, names: list[str]) -> dict[str, str]:
    """Tell of each column whether it holds text or numbers, by what has been learned of it."""
    found = dict.fromkeys(names, NUMBER)
    for _, inner, columns in transformer.transformers_:
        chosen = _columns(columns, names)
        found.update(zip(chosen, _kinds(inner, len(chosen)), strict=True))
    return found


def _columns(columns: Any, names: list[str]) -> list[str]:
    """Give the names of chosen columns: by name, position, slice or mask."""
    if isinstance(columns, slice):
        start, stop = columns.start, columns.stop
        if isinstance(start, str):
            start = names.index(start)
        if isinstance(stop, str):
            stop = names.index(stop) + 1  # slices of names include their end
        return names[start : stop : columns.step]
    chosen = np.atleast_1d(np.asarray(columns))
    if chosen.dtype.kind in "OUT":
        return [str(name) for name in chosen]
    return [str(name) for name in np.asarray(names, object)[chosen]] if chosen.size else []


def _kinds(transformer: Any, count: int) -> list[str]:
    """Tell what each column of a transformer holds."""
    categories = getattr(_first(transformer), "categories_", None)
    if categories is not None and len(categories) == count:
        return [_kind_of_array(known) for known in categories]
    return [_kind(transformer)] * count


def _kind(transformer: Any) -> str:
    """Tell what a fitted transformer takes, by what it has learned."""
    first = _first(transformer)
    if _reads_text(first):
        return TEXT
    if hasattr(first, "transformer_list"):
        return _kind(first.transformer_list[0][1])
    categories = getattr(first, "categories_", None)
    if categories is not None:
        return TEXT if any(_kind_of_array(known) == TEXT for known in categories) else NUMBER
    fitted = getattr(first, "_fit_dtype", None)  # of SimpleImputer
    return TEXT if fitted is not None and np.dtype(fitted).kind in "OUT" else NUMBER


def _kind_of_array(known: Any) -> str:
    """Tell whether categories are text; missing ones among them say nothing."""
    return TEXT if any(isinstance(v, str) for v in np.asarray(known).tolist()) else NUMBER


def _first(transformer: Any) -> Any:
    return transformer if isinstance(transformer, str) else next(iter(_parts(transformer)))


def _reads_text(transformer: Any) -> bool:
    """Tell whether this is a vectorizer of texts."""
    return hasattr(transformer, "build_analyzer")
