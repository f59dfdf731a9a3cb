"""Faults of skl2onnx 1.20, put right while it converts.

skl2onnx calls a function of ours for each class below.  All of them let skl2onnx do its work
and change only what it gets wrong.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Converter = Callable[[Any, Any, Any], None]

MISSING_TEXT = ""
"""What a missing cell of text comes as."""


def converters() -> dict[type, Converter]:
    """Give the function that converts each class, as skl2onnx takes them."""
    from sklearn import ensemble, impute, preprocessing, tree

    trees = (
        tree.DecisionTreeClassifier,
        tree.DecisionTreeRegressor,
        tree.ExtraTreeClassifier,
        tree.ExtraTreeRegressor,
        ensemble.RandomForestClassifier,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesClassifier,
        ensemble.ExtraTreesRegressor,
        ensemble.HistGradientBoostingClassifier,
        ensemble.HistGradientBoostingRegressor,
    )
    return {
        **dict.fromkeys(trees, _convert_trees),
        ensemble.VotingClassifier: _convert_changed(_voting),
        ensemble.VotingRegressor: _convert_changed(_voting),
        impute.SimpleImputer: _convert_changed(_filling_missing_text),
        preprocessing.OneHotEncoder: _convert_changed(_knowing_missing_text),
    }


def takes_option(estimator: Any, option: str) -> bool:
    """Tell whether skl2onnx has an option for estimators of this class."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    alias = sklearn_operator_name_map.get(type(estimator))
    return alias is not None and option in (get_converter(alias).get_allowed_options() or ())


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Convert as skl2onnx does."""
    from skl2onnx.common._registration import get_converter

    get_converter(operator.type)(scope, operator, container)


def _convert_changed(change: Callable[[Any], Any]) -> Converter:
    """Convert another estimator in the place of the one given; that one stays as it was."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        operator.raw_operator = change(operator.raw_operator)
        _convert(scope, operator, container)

    return convert


# ---- trees -------------------------------------------------------------------------------


def _convert_trees(scope: Any, operator: Any, container: Any) -> None:
    _convert(scope, operator, _TreeNodes(scope, operator.raw_operator, container))


class _TreeNodes:
    """A container of nodes that completes those of tree ensembles.

    * In histogram gradient boosting, leaves carry False among integers, which protobuf refuses
      from version 7 on; and values whose logarithm was learned stay logarithms.
    * In other trees, missing values always go right, whatever was learned.
    """

    def __init__(self, scope: Any, estimator: Any, container: Any) -> None:
        self._scope, self._estimator, self._container = scope, estimator, container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(
        self, op_type: str, inputs: Any, outputs: Any, *args: Any, **attributes: Any
    ) -> None:
        """Add a node as skl2onnx's container does."""
        add = self._container.add_node
        if not op_type.startswith("TreeEnsemble"):
            add(op_type, inputs, outputs, *args, **attributes)
            return
        attributes["nodes_missing_value_tracks_true"] = self._directions(attributes)
        if not _learns_logarithms(self._estimator):
            add(op_type, inputs, outputs, *args, **attributes)
            return
        logarithm = self._scope.get_unique_variable_name("logarithm")
        add(op_type, inputs, logarithm, *args, **attributes)
        add("Exp", logarithm, outputs, name=self._scope.get_unique_operator_name("Exp"))

    def _directions(self, attributes: dict[str, Any]) -> list[int]:
        """Tell of each node whether missing values go left."""
        given = [int(left) for left in attributes["nodes_missing_value_tracks_true"]]
        members = getattr(self._estimator, "estimators_", [self._estimator])
        trees = [member.tree_ for member in members if hasattr(member, "tree_")]
        learned = [int(left) for tree in trees for left in tree.missing_go_to_left]
        return learned if len(learned) == len(given) else given


def _learns_logarithms(estimator: Any) -> bool:
    """Tell whether the trees of a regressor add up to the logarithm of its values."""
    from sklearn.base import is_regressor

    loss = getattr(estimator, "_loss", None)
    return is_regressor(estimator) and type(getattr(loss, "link", None)).__name__ == "LogLink"


# ---- estimators that skl2onnx refuses for no reason -----------------------------------------


def _voting(voting: Any) -> Any:
    """Give weights as an array, and leave out what only ``transform`` depends on."""
    changed = copy.copy(voting)
    changed.flatten_transform = False
    if voting.weights is not None:
        pairs = zip(voting.estimators, voting.weights, strict=True)
        kept = [weight for (_, member), weight in pairs if not isinstance(member, str)]
        changed.weights = np.array(kept)
    return changed


def _filling_missing_text(imputer: Any) -> Any:
    """Look for empty text where text is missing: so the readers of data give it."""
    if imputer.statistics_.dtype.kind not in "OUT" or isinstance(imputer.missing_values, str):
        return imputer
    changed = copy.copy(imputer)
    changed.missing_values = MISSING_TEXT
    return changed


def _knowing_missing_text(encoder: Any) -> Any:
    """Take empty text for the category of missing text."""
    changed = copy.copy(encoder)
    changed.categories_ = [_with_empty_text(known) for known in encoder.categories_]
    return changed


def _with_empty_text(categories: Any) -> Any:
    if not any(isinstance(known, str) for known in categories):
        return categories
    return np.array([k if isinstance(k, str) else MISSING_TEXT for k in categories], object)
