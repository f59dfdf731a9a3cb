"""Every common estimator predicts the same as ONNX, or is refused by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import ModelError
from penjing.core.registry import BACKENDS

pytest.importorskip("skl2onnx")
pd = pytest.importorskip("pandas")

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.datasets import load_digits, make_regression  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.impute import KNNImputer, SimpleImputer  # noqa: E402
from sklearn.linear_model import LogisticRegression, Ridge  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.neighbors import (  # noqa: E402
    KNeighborsClassifier,
    KNeighborsRegressor,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import (  # noqa: E402
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVR  # noqa: E402
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: E402

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.core.tensors import Array

DIGITS, DIGIT = load_digits(return_X_y=True)
DIGITS, DIGIT = DIGITS[:300].astype(np.float32), DIGIT[:300]
NAMED = np.array([f"digit {digit}" for digit in DIGIT])
LARGE = (DIGIT > 4).astype(int)
VALUES, GOAL = make_regression(200, 8, random_state=0)
VALUES = VALUES.astype(np.float32)
HOLES = np.where(np.random.default_rng(0).random(VALUES.shape) < 0.1, np.nan, VALUES)
HIGH = (GOAL > 0).astype(int)


def people(*, missing: bool = False) -> Any:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 9, 200).astype(np.float32),
            "job": rng.choice(["baker", "miner", "clerk"], 200).astype(object),
            "children": rng.integers(0, 5, 200),
        }
    )
    if missing:
        frame.loc[::5, "job"] = np.nan
    return frame


PERSON, GAPPY = people(), people(missing=True)
RICH = np.where(PERSON.age / 20 + (PERSON.job == "miner") > 2, "yes", "no")
WORDS = ["buy the stuff", "see you there", "buy it now", "meet you at sea"] * 5
SPAM = ["spam", "ham"] * 10


def columns(encoder: Any) -> Any:
    return ColumnTransformer(
        [("n", "passthrough", ["age", "children"]), ("c", encoder, ["job"])]
    )


def logistic() -> Any:
    return LogisticRegression(max_iter=50)


def boosting(**settings: Any) -> Any:
    return HistGradientBoostingClassifier(max_iter=4, **settings)


def boosting_values(**settings: Any) -> Any:
    return HistGradientBoostingRegressor(max_iter=4, **settings)


def forest() -> Any:
    return RandomForestClassifier(4, random_state=0)


def voting(*members: Any, **settings: Any) -> Any:
    return VotingClassifier([(str(n), member) for n, member in enumerate(members)], **settings)


FRAMES: dict[str, tuple[Any, Any, Any]] = {
    "boosting behind columns": (
        make_pipeline(columns(OneHotEncoder(sparse_output=False)), boosting()),
        PERSON,
        RICH,
    ),
    "search over columns": (
        GridSearchCV(
            make_pipeline(columns(OneHotEncoder()), logistic()),
            {"logisticregression__C": [0.1, 1]},
            cv=2,
        ),
        PERSON,
        RICH,
    ),
    "missing text filled in": (
        make_pipeline(
            columns(make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())),
            logistic(),
        ),
        GAPPY,
        RICH,
    ),
    "missing text as a category": (
        make_pipeline(columns(OneHotEncoder()), logistic()),
        GAPPY,
        RICH,
    ),
}
CASES: dict[str, tuple[Any, Any, Any]] = {
    "hist boosting": (boosting(), DIGITS, DIGIT),
    "hist boosting, two classes": (boosting(), DIGITS, LARGE),
    "hist boosting, names": (boosting(), DIGITS, NAMED),
    "hist boosting, missing": (boosting(), HOLES, HIGH),
    "hist boosting, values": (boosting_values(), VALUES, GOAL),
    "hist boosting, values missing": (boosting_values(), HOLES, GOAL),
    "hist boosting, poisson": (boosting_values(loss="poisson"), VALUES, abs(GOAL) + 1),
    "hist boosting, gamma": (boosting_values(loss="gamma"), VALUES, abs(GOAL) + 1),
    "forest": (forest(), DIGITS, NAMED),
    "forest, missing": (forest(), HOLES, HIGH),
    "forest, values missing": (RandomForestRegressor(4, random_state=0), HOLES, GOAL),
    "extra trees": (ExtraTreesClassifier(4, random_state=0), DIGITS, DIGIT),
    "tree": (DecisionTreeClassifier(random_state=0), HOLES, HIGH),
    "tree, values": (DecisionTreeRegressor(random_state=0), HOLES, GOAL),
    "bagging": (BaggingClassifier(DecisionTreeClassifier(), 3, random_state=0), HOLES, HIGH),
    "boosting, values": (GradientBoostingRegressor(n_estimators=4), VALUES, GOAL),
    "ada boost": (AdaBoostClassifier(n_estimators=4), DIGITS, DIGIT),
    "neighbours": (KNeighborsClassifier(), DIGITS, DIGIT),
    "neighbours, values": (KNeighborsRegressor(), VALUES, GOAL),
    "svc": (SVC(), DIGITS, NAMED),
    "svc, two classes": (SVC(), DIGITS, LARGE),
    "svc, two classes in a pipeline": (make_pipeline(MinMaxScaler(), SVC()), DIGITS, LARGE),
    "svr": (SVR(), VALUES, GOAL),
    "nu svr": (NuSVR(), VALUES, GOAL),
    "linear svc of texts": (make_pipeline(TfidfVectorizer(), LinearSVC()), WORDS, SPAM),
    "linear svc, nested": (
        make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), LinearSVC())),
        DIGITS,
        DIGIT,
    ),
    "neighbours fill in": (make_pipeline(KNNImputer(), Ridge()), HOLES, GOAL),
    "calibrated": (CalibratedClassifierCV(boosting(), cv=2), DIGITS, DIGIT),
    "stacked": (
        StackingClassifier([("a", logistic()), ("b", boosting())], cv=2),
        DIGITS,
        DIGIT,
    ),
    "hard vote": (voting(logistic(), forest(), boosting()), DIGITS, DIGIT),
    "soft vote": (voting(logistic(), forest(), voting="soft"), DIGITS, NAMED),
    "weighted vote": (
        voting(logistic(), "drop", forest(), voting="soft", weights=[1, 7, 3]),
        DIGITS,
        DIGIT,
    ),
    "mean of values": (
        VotingRegressor([("a", Ridge()), ("b", boosting_values())], weights=[1, 4]),
        VALUES,
        GOAL,
    ),
    "search": (GridSearchCV(logistic(), {"C": [0.1, 1]}, cv=2), DIGITS, DIGIT),
    "random search": (
        RandomizedSearchCV(boosting_values(), {"max_depth": [2, 3]}, n_iter=2, cv=2),
        VALUES,
        GOAL,
    ),
    "search in a pipeline": (
        make_pipeline(StandardScaler(), GridSearchCV(logistic(), {"C": [0.1, 1]}, cv=2)),
        DIGITS,
        DIGIT,
    ),
    **FRAMES,
}


def opened(estimator: Any) -> Model:
    model: Model = BACKENDS.load("scikit_learn")().open(estimator)
    return model


def fitted(estimator: Any, features: Any, labels: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fits are cut short
        return estimator.fit(features, labels)


def feed(model: Model, features: Any) -> dict[str, Array]:
    """Lay features out for the inputs as a reader of data does: missing text is empty."""
    made = {}
    for port in model.backend.inputs(model.native):
        whole = features[port.name].fillna("") if port.name in FRAME_COLUMNS else features
        kind = object if port.dtype == "str" else port.dtype
        made[port.name] = np.asarray(whole).reshape(len(features), -1).astype(kind)
    return made


FRAME_COLUMNS = {"age", "job", "children"}


@pytest.mark.parametrize(("estimator", "features", "labels"), CASES.values(), ids=CASES)
def test_predictions_are_the_estimators(estimator: Any, features: Any, labels: Any) -> None:
    fitted(estimator, features, labels)
    model = opened(estimator)
    outputs = model.predict(feed(model, features))
    given, wanted = next(iter(outputs.values())), np.asarray(estimator.predict(features))
    if given.dtype.kind == "f":
        np.testing.assert_allclose(given.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-2)
    else:
        assert (given.ravel() == wanted).mean() >= 0.99
    if hasattr(estimator, "predict_proba"):
        wrong = np.abs(outputs["probabilities"] - estimator.predict_proba(features)) > 1e-3
        assert wrong.any(axis=1).mean() <= 0.01


REFUSED: dict[str, tuple[Any, Any, Any, str]] = {
    "categories in trees": (
        boosting_values(categorical_features=[0]),
        np.abs(np.rint(VALUES)),
        GOAL,
        "splits by categories",
    ),
    "members of a vote": (
        voting(logistic(), KNeighborsClassifier(weights="distance"), voting="soft"),
        DIGITS,
        DIGIT,
        "KNeighborsClassifier weights neighbours by distance",
    ),
    "thresholds": (TunedThresholdClassifierCV(logistic()), DIGITS, LARGE, "has a threshold"),
    "indicators": (
        make_pipeline(SimpleImputer(add_indicator=True), Ridge()),
        HOLES,
        GOAL,
        "SimpleImputer adds indicators",
    ),
    "missing codes": (
        make_pipeline(columns(OrdinalEncoder()), boosting()),
        GAPPY,
        RICH,
        "OrdinalEncoder has learned of missing values",
    ),
    "largest numbers": (
        make_pipeline(Normalizer("max"), Ridge()),
        VALUES,
        GOAL,
        "largest size",
    ),
    "radius": (RadiusNeighborsRegressor(90.0), VALUES, GOAL, "no ONNX form that runs"),
    "metric": (KNeighborsClassifier(metric="chebyshev"), DIGITS, DIGIT, "'chebyshev'"),
}


@pytest.mark.parametrize(
    ("estimator", "features", "labels", "why"), REFUSED.values(), ids=REFUSED
)
def test_what_would_predict_something_else_is_refused(
    estimator: Any, features: Any, labels: Any, why: str
) -> None:
    with pytest.raises(ModelError, match=why):
        opened(fitted(estimator, features, labels))


def test_the_estimator_stays_as_it_was() -> None:
    voters = fitted(voting(logistic(), forest(), weights=[1, 2]), DIGITS, DIGIT)
    imputer = SimpleImputer(strategy="most_frequent")
    filling = make_pipeline(imputer, OneHotEncoder(sparse_output=False), Ridge())
    fitted(filling, GAPPY[["job"]], GOAL)
    for estimator in (voters, filling):
        opened(estimator)
    assert voters.flatten_transform
    assert voters.weights == [1, 2]
    assert np.isnan(imputer.missing_values)


@pytest.mark.parametrize("name", ["hist boosting", "svr", "soft vote", "search"])
def test_the_same_estimator_gives_the_same_graph(name: str) -> None:
    estimator, features, labels = CASES[name]
    fitted(estimator, features, labels)
    first, second = (opened(estimator).native.template for _ in range(2))
    assert first == second
