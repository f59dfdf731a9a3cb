"""scikit-learn estimators: what they predict is what their ONNX form predicts."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import ModelError
from penjing.core.model import LayerKind, Statistics
from penjing.core.registry import BACKENDS

pytest.importorskip("skl2onnx")
pd = pytest.importorskip("pandas")

from sklearn.compose import ColumnTransformer, make_column_selector  # noqa: E402
from sklearn.datasets import load_digits, make_regression  # noqa: E402
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import (  # noqa: E402
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import (  # noqa: E402
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, LinearSVR  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Model
    from penjing.core.tensors import Array

ADULT_NUMBERS = ("age", "fnlwgt", "education-num", "hours-per-week")


def opened(estimator: Any) -> Model:
    model: Model = BACKENDS.load("scikit_learn")().open(estimator)
    return model


def fitted(estimator: Any, features: Any, labels: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fits are cut short
        return estimator.fit(features, labels)


DIGITS, DIGIT = load_digits(return_X_y=True)
DIGITS, DIGIT = DIGITS[:400].astype(np.float32), DIGIT[:400]
VALUES, GOAL = make_regression(200, 20, random_state=0)
GOALS = np.stack([GOAL, -GOAL], axis=1)


def people(rows: int = 200) -> Any:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.normal(size=rows),
            "job": rng.choice(["baker", "miner", "clerk"], rows),
            "children": rng.integers(0, 5, rows),
            "note": ["ignored"] * rows,
            "sex": rng.choice(["f", "m"], rows),
        }
    )


def preprocessing() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return ColumnTransformer(
        [("n", numbers, ["age", "children"]), ("c", OneHotEncoder(), ["job", "sex"])]
    )


def by_position() -> Any:
    encoder = OneHotEncoder(handle_unknown="ignore")
    return ColumnTransformer([("n", StandardScaler(), [0, 2]), ("c", encoder, [1, 4])])


def by_type() -> Any:
    numbers = make_column_selector(dtype_include="number")
    return ColumnTransformer(
        [("n", StandardScaler(), numbers), ("c", OneHotEncoder(), ["job"])]
    )


PERSON = people()
RICH = np.where(PERSON.age + (PERSON.job == "miner") > 0, "yes", "no")
TEXTS = [f"{a} {b} the {c}" for a in "xyz" for b in ("buy", "meet") for c in ("Now", "sea")]
CASES: dict[str, tuple[Any, Any, Any]] = {
    "mlp": (MLPClassifier((24,), max_iter=20, random_state=0), DIGITS, DIGIT),
    "mlp_binary": (MLPClassifier((24,), max_iter=20, random_state=0), DIGITS, DIGIT > 4),
    "mlp_regressor": (
        MLPRegressor(hidden_layer_sizes=(16,), max_iter=20, random_state=0),
        VALUES,
        GOALS,
    ),
    "logistic": (LogisticRegression(max_iter=30), DIGITS, DIGIT),
    "logistic_binary": (LogisticRegression(max_iter=30), DIGITS, DIGIT > 4),
    "sgd": (SGDClassifier(random_state=0), DIGITS, DIGIT),
    "ridge_classifier": (RidgeClassifier(), DIGITS, DIGIT),
    "linear_svc": (LinearSVC(max_iter=30), DIGITS, DIGIT),
    "svc": (SVC(kernel="linear"), DIGITS, DIGIT),
    "ridge": (Ridge(), VALUES, GOAL),
    "least_squares": (LinearRegression(), VALUES, GOALS),
    "linear_svr": (LinearSVR(max_iter=30), VALUES, GOAL),
    "boosting": (GradientBoostingClassifier(n_estimators=3), DIGITS, DIGIT),
    "forest": (RandomForestRegressor(3, random_state=0), VALUES, GOAL),
    "scaled": (
        make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=10)),
        DIGITS,
        DIGIT,
    ),
    "columns": (make_pipeline(preprocessing(), LogisticRegression()), PERSON, RICH),
    "columns_by_position": (make_pipeline(by_position(), LogisticRegression()), PERSON, RICH),
    "columns_by_type": (
        make_pipeline(by_type(), MLPClassifier((16,), max_iter=5)),
        PERSON.drop(columns="sex"),
        RICH,
    ),
    "texts": (
        make_pipeline(TfidfVectorizer(), LogisticRegression()),
        TEXTS,
        ["buy" in text for text in TEXTS],
    ),
}


def feed(model: Model, features: Any) -> dict[str, Array]:
    """Lay features out for the inputs, as a reader of data does."""
    made = {}
    for port in model.backend.inputs(model.native):
        named = isinstance(features, pd.DataFrame) and port.name in features.columns
        column = features[port.name].to_numpy() if named else np.asarray(features)
        kind = object if port.dtype == "str" else port.dtype
        made[port.name] = column.reshape(len(features), -1).astype(kind)
    return made


@pytest.mark.parametrize(("estimator", "features", "labels"), CASES.values(), ids=CASES)
def test_predictions_are_the_estimators(estimator: Any, features: Any, labels: Any) -> None:
    fitted(estimator, features, labels)
    model = opened(estimator)
    given = next(iter(model.predict(feed(model, features)).values()))
    wanted = np.asarray(estimator.predict(features))
    if given.dtype.kind == "f":
        np.testing.assert_allclose(given.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-2)
    else:
        assert (given.ravel() == wanted.ravel()).mean() >= 0.99


@pytest.mark.parametrize(
    "name", ["logistic", "ridge_classifier", "linear_svc", "least_squares"]
)
def test_coefficients_of_linear_models_are_seen(name: str) -> None:
    estimator, features, labels = CASES[name]
    model = opened(fitted(estimator, features, labels))
    (weight,) = [w for w in model.weights().values() if w.kind is LayerKind.LINEAR]
    assert weight.tensor.shape == estimator.coef_.shape
    seen: dict[str, Statistics] = {}
    batch = feed(model, features)
    model.backend.walker(model.native, [batch]).run(lambda n, s: seen.update({n: s}) or {})  # type: ignore[attr-defined]
    rows = batch["x"].astype(float)
    gram = seen[weight.name].gram
    assert gram is not None
    np.testing.assert_allclose(gram[0], rows.T @ rows / len(rows), rtol=1e-3, atol=1e-2)


def test_many_intercepts_are_biases_of_their_coefficients() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 9)).astype(np.float32)
    labels = rng.integers(0, 20, 400)
    model = opened(fitted(LogisticRegression(max_iter=5), features, labels))
    kinds = {str(w.kind): w for w in model.weights().values()}
    assert kinds["bias"].layer == kinds["linear"].name
    changed = {kinds["linear"].name: kinds["linear"].tensor.dense() * 0}
    native = model.backend.write_weights(model.native, changed)
    shares = model.backend.predict(native, {"x": features[:3]})["probabilities"]
    np.testing.assert_allclose(shares[0], shares[1])


def test_dropped_columns_need_not_be_given() -> None:
    for name in ("columns", "columns_by_position"):
        model = opened(fitted(*CASES[name]))
        names = {port.name for port in model.backend.inputs(model.native)}
        assert names == {"age", "children", "job", "sex"}, name


@pytest.mark.parametrize(
    "estimator",
    [MLPClassifier(), make_pipeline(StandardScaler(), Ridge()), preprocessing()],
    ids=["classifier", "pipeline", "columns"],
)
def test_unfitted_estimators_are_refused(estimator: Any) -> None:
    with pytest.raises(ModelError, match="is not fitted"):
        opened(estimator)


def test_what_has_no_onnx_form_is_named() -> None:
    estimator = make_pipeline(SplineTransformer(), Ridge()).fit(VALUES, GOAL)
    with pytest.raises(ModelError, match="SplineTransformer has no conversion to ONNX"):
        opened(estimator)


def test_knows_estimators_only() -> None:
    backend = BACKENDS.load("scikit_learn")()
    assert backend.recognises(Ridge())
    assert backend.recognises(make_pipeline(Ridge()))
    for other in (None, 3, "model.onnx", object(), Ridge):
        assert not backend.recognises(other)


def test_looking_imports_nothing() -> None:
    code = (
        "import sys; from penjing.core.registry import BACKENDS;"
        "assert not BACKENDS.load('scikit_learn')().recognises(3);"
        "assert not {'sklearn', 'skl2onnx', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def adult(rows: int) -> tuple[Any, Any]:
    """Census data if they are at hand, or something alike."""
    folder = os.environ.get("PENJING_DATA")
    path = Path(folder or ".") / "adult" / "adult-train.csv"
    if folder and path.exists():
        names = [f"column-{number}" for number in range(15)]
        frame = pd.read_csv(path, skipinitialspace=True, header=None, names=names).head(rows)
        return frame.iloc[:, :-1], frame.iloc[:, -1].astype(str)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.normal(size=rows) for name in ADULT_NUMBERS})
    for name, count in (("workclass", 9), ("education", 16), ("occupation", 14)):
        frame[name] = [f"kind {number}" for number in rng.integers(0, count, rows)]
    score = frame["age"] + frame["education-num"] + (frame["education"] == "kind 3")
    return frame, pd.Series(np.where(score > 0, ">50K", "<=50K"))


def test_a_pipeline_is_compressed_end_to_end() -> None:
    import penjing

    features, labels = adult(3000)
    numbers = [name for name in features.columns if features[name].dtype.kind in "if"]
    others = [name for name in features.columns if name not in numbers]
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("n", StandardScaler(), numbers), ("c", encoder, others)])
    estimator = make_pipeline(columns, MLPClassifier((32,), max_iter=8, random_state=0))
    fitted(estimator, features[:1500], labels[:1500])
    result = penjing.compress(
        estimator,
        features[1500:].assign(label=labels[1500:]),
        target="label",
        budget=penjing.Budget(max_drop=0.05, confidence=None),
    )
    summary: Mapping[str, Any] = result.summary()
    assert summary["drop"] < 0.08
    assert summary["metric"] in {"accuracy", "f1", "auc"}
    assert summary["ratio"] > 3


def test_the_same_estimator_gives_the_same_graph() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 8))
    model = LinearRegression().fit(rows, rows @ np.arange(8.0))
    first, second = (BACKENDS.load("scikit_learn")().open(model) for _ in range(2))
    assert first.native.template == second.native.template
    assert first.weights(), "its few coefficients are weights, too"
