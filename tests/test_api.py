"""The whole job through the functions people call, and one clear error for bad input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.artifact.artifact import Artifact
from penjing.core.budget import parse_duration
from penjing.core.data import open_data, split
from penjing.core.errors import ConfigError, UnsupportedError
from penjing.engine import latency
from penjing.engine import pipeline as engine
from penjing.engine.decide import Decider
from penjing.engine.packing import session_of
from penjing.engine.search import Search
from penjing.testing.onnx_models import mlp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from penjing.core.tensors import Array
    from penjing.engine.job import Result

onnx = pytest.importorskip("onnx")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1500, 12)).astype(np.float32)
POINT = penjing.Budget(max_drop=0.03, confidence=None)


@pytest.fixture(autouse=True)
def _no_time_for_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time a few runs only: no test here is about speed."""
    monkeypatch.setattr(latency, "MOST_RUNS", latency.FEWEST_RUNS)


def run(model: Any, inputs: Mapping[str, Array]) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [np.asarray(output) for output in session.run(None, dict(inputs))]


def labelled(model: Any, x: Array = X) -> tuple[Array, Array]:
    """Draw labels from the model's own scores, so that it is as right as it is sure."""
    scores = 6.0 * run(model, {"x": x})[0]
    return x, (scores + np.random.default_rng(1).gumbel(size=scores.shape)).argmax(axis=1)


DATA = labelled(mlp())


def linear(weight: Array) -> Any:
    """One product with a matrix, (12, outputs)."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 12])],
        [helper.make_tensor_value_info("y", kind, ["n", weight.shape[1]])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@pytest.fixture(scope="module")
def result() -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "MOST_RUNS", latency.FEWEST_RUNS)
        return penjing.compress(mlp(), DATA, budget=penjing.Budget(max_drop=0.05))


# --- what comes out -----------------------------------------------------------------------


def test_a_model_becomes_smaller_and_its_limit_is_proven(result: Result) -> None:
    summary = result.summary()
    assert result.met
    assert summary["verdict"] == "met"
    assert summary["ratio"] > 3
    assert summary["drop"] <= summary["drop_upper"] <= 0.05
    assert summary["bytes"] == len(result.artifact.to_bytes())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_file_loaded_back_gives_what_the_report_says(
    result: Result, tmp_path: Path
) -> None:
    path = tmp_path / "small.penjing"
    result.artifact.save(path)
    x, y = DATA
    split = result.report.splits
    rows = penjing.compress(mlp(), DATA, budget=POINT).report.splits
    assert split == rows, "the split depends on the seed alone"
    np.savez(tmp_path / "all.npz", x=x, y=y)
    before = (run(mlp(), {"x": x})[0].argmax(axis=1) == y).mean()
    after = (penjing.predict(path, {"x": x})["y"].argmax(axis=1) == y).mean()
    assert penjing.evaluate(path, tmp_path / "all.npz").value.value == pytest.approx(after)
    assert before - after <= 0.05
    assert path.stat().st_size == result.report.after.size_bytes
    plain = penjing.unpack(path, tmp_path / "plain.onnx")
    onnx.checker.check_model(str(tmp_path / "plain.onnx"))
    assert plain.size_bytes == (tmp_path / "plain.onnx").stat().st_size


def test_figures_come_from_the_file_on_the_certification_rows(result: Result) -> None:
    model = penjing.wrap(mlp())
    data = open_data(DATA, model.backend.inputs(model.native))
    part = split(data, None, None, 0).certification
    session = session_of(Artifact.from_bytes(result.artifact.to_bytes()))
    x, y = DATA[0][part.rows], DATA[1][part.rows]
    right = session.run({"x": x})["y"].argmax(axis=1) == y
    assert result.report.after.metric.value == pytest.approx(right.mean())
    assert result.report.splits["certification"]["rows"] == len(x)


def test_the_header_holds_evidence_and_no_times(result: Result) -> None:
    header = result.artifact.header
    text = json.dumps(header).lower()
    for word in ("seconds", "latency", "_ms", "date", "time", "thread", "python", "machine"):
        assert word not in text, word
    assert header["evidence"]["verdict"] == "met"
    assert header["evidence"]["upper"] == pytest.approx(
        result.report.certificate["upper"], rel=1e-5
    )
    assert header["recipe"]["steps"][0]["use"] == "rate_distortion"
    assert header["original_bytes"] == result.report.before.size_bytes


def test_the_recipe_of_a_file_makes_it_again(result: Result) -> None:
    recipe = penjing.Recipe.from_dict(result.artifact.header["recipe"])
    again = penjing.compress(mlp(), DATA, budget=penjing.Budget(max_drop=0.05), recipe=recipe)
    first, second = result.artifact.arrays(), again.artifact.arrays()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    assert len(again.report.candidates) == 2
    assert again.artifact.header["recipe"] == result.artifact.header["recipe"]


def test_the_model_given_is_not_changed() -> None:
    model = mlp()
    before = model.SerializeToString()
    wrapped = penjing.wrap(model)
    weights = {name: w.tensor.dense().copy() for name, w in wrapped.weights().items()}
    penjing.compress(wrapped, DATA, budget=POINT)
    penjing.compress(model, DATA, budget=POINT)
    assert model.SerializeToString() == before
    for name, weight in wrapped.weights().items():
        np.testing.assert_array_equal(weight.tensor.dense(), weights[name])


def test_the_ledger_accounts_for_every_byte(result: Result) -> None:
    report = result.report
    total = sum(row.size_bytes for row in report.layers) + sum(report.overhead.values())
    assert total == report.after.size_bytes
    assert {row.name for row in report.layers} == set(penjing.wrap(mlp()).weights())
    assert sum(row.damage for row in report.layers) == pytest.approx(1)


def test_labels_of_candidates_are_names(result: Result) -> None:
    labels = [row.label for row in result.report.candidates]
    assert len(set(labels)) == len(labels)
    assert [row.status for row in result.report.candidates].count("chosen") == 1


# --- budgets ------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.95, None])
@pytest.mark.parametrize("limit", [1000, 1600])
def test_a_size_limit_is_about_the_written_file(limit: int, confidence: float | None) -> None:
    budget = penjing.Budget(max_size_bytes=limit, confidence=confidence)
    found = penjing.compress(mlp(), DATA, budget=budget)
    assert found.met
    assert 0.6 * limit < len(found.artifact.to_bytes()) <= limit


def test_evidence_that_no_longer_fits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "fits", lambda _self, _candidate: True)
    found = penjing.compress(
        mlp(), DATA, budget=penjing.Budget(max_size_bytes=500, confidence=None)
    )
    assert found.summary()["verdict"] == "missed"
    assert "more than 500" in found.report.reason
    assert found.artifact.header["evidence"]["verdict"] == "missed"


@pytest.mark.parametrize("confidence", [0.95, None])
def test_no_drop_at_all_is_lossless_packing(confidence: float | None) -> None:
    recipe = penjing.Recipe.from_dict({"steps": [{"use": "rate_distortion"}]})
    for given in (None, recipe):
        found = penjing.compress(
            mlp(),
            DATA,
            budget=penjing.Budget(max_drop=0, confidence=confidence),
            recipe=given,
        )
        assert found.met
        assert found.summary()["drop"] == 0
        assert "lossless" in found.report.reason
        for name, array in found.artifact.arrays().items():
            np.testing.assert_array_equal(
                array, penjing.wrap(mlp()).weights()[name].tensor.dense()
            )


@pytest.mark.parametrize("confidence", [0.95, None])
def test_a_recipe_that_makes_the_file_larger_is_not_kept(confidence: float | None) -> None:
    recipe = penjing.Recipe.from_dict(
        {"steps": [{"use": "rate_distortion", "trade_off": 1e-15, "only": "w"}]}
    )
    # A table of few values is smaller as it is than as codes that keep every digit.
    values = np.repeat(np.array([1.3, -0.7, 0.2], np.float32), 160)
    weight = np.random.default_rng(5).permutation(values)
    model = linear(weight.reshape(12, 40))
    x, y = labelled(model)
    found = penjing.compress(
        model,
        (x, y),
        budget=penjing.Budget(max_drop=0.05, confidence=confidence),
        recipe=recipe,
    )
    lossless, other = found.report.candidates
    assert other.size_bytes > lossless.size_bytes
    assert lossless.status == "chosen"
    assert "nothing that was tried gives a smaller file" in found.report.reason


def test_a_file_larger_than_the_model_is_warned_about() -> None:
    model = linear((RNG.normal(size=(12, 3)) * 2).astype(np.float32))
    found = penjing.compress(model, labelled(model), budget=POINT, time_limit_s=0)
    assert found.report.ratio < 1
    assert "no smaller than the model" in found.report.warnings[0]


def test_interrupted_searches_keep_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Search.attempt

    def impatient(search: Search, *arguments: Any) -> Any:
        if len(search.candidates) == 6:
            raise KeyboardInterrupt
        return attempt(search, *arguments)

    monkeypatch.setattr(Search, "attempt", impatient)
    found = penjing.compress(mlp(), DATA, budget=penjing.Budget(max_drop=0.05))
    assert len(found.report.candidates) == 6
    assert found.report.ratio > 1


def test_an_interrupt_while_observing_leaves_lossless_packing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "observe", interrupted)
    found = penjing.compress(mlp(), DATA, budget=POINT)
    assert [row.label for row in found.report.candidates] == ["lossless"]
    assert found.met


def test_an_interrupted_certification_keeps_the_best_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged, calls = Decider.judged, []

    def impatient(decider: Decider, candidate: Any) -> Any:
        calls.append(candidate.label)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return judged(decider, candidate)

    monkeypatch.setattr(Decider, "judged", impatient)
    found = penjing.compress(mlp(), DATA, budget=penjing.Budget(max_drop=0.05))
    assert found.report.met == "undecided"
    assert "interrupted" in found.report.reason
    assert found.report.ratio > 1


def test_strict_refuses_what_was_left_alone() -> None:
    recipe = penjing.Recipe.from_dict({"steps": [{"use": "rate_distortion", "only": "w1"}]})
    with pytest.raises(UnsupportedError, match="left alone"):
        penjing.compress(mlp(), DATA, budget=POINT, recipe=recipe, strict=True)


def test_the_command_that_makes_it_again_has_every_setting(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=DATA[0], y=DATA[1])
    options: dict[str, Any] = {
        "budget": penjing.Budget(max_drop=0.0123456789, max_size_bytes=3000),
        "seed": 7,
    }
    model, data = str(tmp_path / "m.onnx"), str(tmp_path / "d.npz")
    words = penjing.compress(model, data, **options).report.reproduce.split()
    assert words[:5] == ["penjing", "compress", model, "--data", data]
    given = dict(zip(words[5::2], words[6::2], strict=True))
    assert float(given["--max-drop"]) == 0.0123456789
    assert given["--max-size"] == "3000"
    assert given["--seed"] == "7"
    assert float(given["--confidence"]) == 0.95
    assert penjing.compress(model, DATA, **options).report.reproduce == ""
    test = (DATA[0][:700], DATA[1][:700])
    assert penjing.compress(model, data, test=test, **options).report.reproduce == ""


def test_a_seed_takes_the_place_of_that_of_the_recipe() -> None:
    recipe = penjing.Recipe.from_dict({"seed": 3, "steps": [{"use": "round_to_nearest"}]})

    def seed_of(**options: Any) -> object:
        made = penjing.compress(mlp(), DATA, budget=POINT, recipe=recipe, **options)
        return made.artifact.header["recipe"]["seed"]

    assert seed_of() == 3
    assert seed_of(seed=5) == 5


# --- scikit-learn -------------------------------------------------------------------------


def test_a_fitted_estimator_is_compressed_and_certified() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = datasets.load_digits(return_X_y=True)
    mlp = MLPClassifier((32,), solver="lbfgs", max_iter=30, tol=1e-1, random_state=0)
    fitted = make_pipeline(StandardScaler(), mlp).fit(x[:600], y[:600])
    found = penjing.compress(
        fitted, (x[600:].astype(np.float32), y[600:]), budget=penjing.Budget(max_drop=0.04)
    )
    assert found.met
    assert found.report.metric == "accuracy"
    assert found.report.ratio > 3


def test_one_array_is_enough_where_there_is_one_input(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx")
    session = penjing.load(tmp_path / "m.onnx")
    rows = DATA[0][:3]
    named = session.run({session.inputs[0].name: rows})
    for name, array in session.run(rows).items():
        np.testing.assert_array_equal(array, named[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.01}, r"budget: must be a penjing.Budget, got 0.01.*max_drop="),
        ({"metric": "foo"}, "metric: no metric is called 'foo'.*accuracy"),
        ({"metric": "acc"}, "did you mean 'accuracy'"),
        ({"recipe": 3}, "recipe: must be a penjing.Recipe or the path"),
        ({"recipe": "nope.yaml"}, "nope.yaml: cannot be read"),
    ],
    ids=["budget", "metric", "short metric", "recipe", "no such recipe"],
)
def test_settings_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        penjing.compress(mlp(), DATA, **options)


def test_a_recipe_may_be_a_path_and_results_show_little(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("steps: [{use: round_to_nearest, bits: 8}]")
    found = penjing.compress(mlp(), DATA, recipe=str(path), budget=POINT, name="net")
    assert found.report.recipe.count("round_to_nearest") == 1
    for shown in map(repr, (found, found.report, found.artifact)):
        assert f"{found.artifact.size_bytes:,} bytes" in shown
        assert len(shown) < 200


def test_a_size_may_be_given_in_two_ways_but_once() -> None:
    assert penjing.Budget(max_size="2kB") == penjing.Budget(max_size_bytes=2000)
    with pytest.raises(ConfigError, match="beside max_size_bytes"):
        penjing.Budget(max_size="2kB", max_size_bytes=3)
    with pytest.raises(ConfigError, match=r"max_drop: must be in \[0, 1\), got '200%'"):
        penjing.Budget(max_drop="200%")  # type: ignore[arg-type]  # as it may be typed
    with pytest.raises(ConfigError, match="max_drop: must be"):
        penjing.Budget(max_drop=[1])  # type: ignore[arg-type]  # no number


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1m30s", 90), ("1.5m", 90), ("1 min 43 s", 103), ("1h", 3600), ("7", 7)],
)
def test_times_are_read_as_they_are_shown(text: str, seconds: float) -> None:
    assert parse_duration(text, "--time-limit") == seconds


def test_limits_may_be_text() -> None:
    given: Any = {"max_drop": "0.5%", "max_size_bytes": "2kB", "confidence": "none"}
    assert penjing.Budget(**given) == penjing.Budget(0.005, 2000, None)


def test_errors_of_a_damaged_file_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.penjing").write_bytes(b"not ours")
    with pytest.raises(penjing.PenjingError, match=r"broken\.penjing"):
        penjing.load(tmp_path / "broken.penjing")
