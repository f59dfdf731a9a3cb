"""How far a search goes, and what training adds to it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import (
    ConfigError,
    DataError,
    PenjingWarning,
    TrainingError,
    UnsupportedError,
)
from penjing.core.model import LayerKind
from penjing.core.technique import Observation
from penjing.core.tensors import Dense
from penjing.engine import efforts
from penjing.engine.job import silent
from penjing.engine.search import PLAIN, Search

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import Task

    Run = Callable[..., Any]

HEADER = 250
"""Bytes by which the headers of two files may differ: one tells how it was trained, too."""
TRAINED = ("trained", "reconstructed")


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train for a few steps only, on one thread."""
    monkeypatch.setattr(efforts, "STEPS", (200, 200))
    monkeypatch.setattr(efforts, "MOST_RUNS", (3, 3))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labels_of(result: Any) -> list[str]:
    return [candidate.label for candidate in result.report.candidates]


def train_rows(task: Task) -> dict[str, Any]:
    return {"x": task.x[2000:], "y": task.y[2000:]}


def test_training_is_never_worse_than_quantizing(task: Task, compressed: Run) -> None:
    budget = penjing.Budget(max_drop=0.02, confidence=None)
    sizes = {}
    for effort in ("post-training", "train"):
        train = train_rows(task) if effort == "train" else None
        result = compressed(budget=budget, effort=effort, train=train)
        sizes[effort] = result.report.after.size_bytes
        assert any(label.startswith("trained") for label in labels_of(result)) == (
            effort == "train"
        )
    assert sizes["train"] <= sizes["post-training"] + HEADER


def test_reconstruction_needs_no_rows_of_its_own(compressed: Run) -> None:
    budget = penjing.Budget(max_drop=0.02, confidence=None)
    result = compressed(budget=budget, effort="reconstruct")
    assert any(label.startswith("reconstructed") for label in labels_of(result))


def test_auto_trains_only_where_the_budget_asks_for_it(task: Task, compressed: Run) -> None:
    with pytest.warns(PenjingWarning, match="rows to train on are not used.*--effort train"):
        loose = compressed(
            budget=penjing.Budget(max_drop=0.05, confidence=None), train=train_rows(task)
        )
    assert not any(label.startswith(TRAINED) for label in labels_of(loose))
    small = int(0.85 * loose.report.after.size_bytes)
    tight = penjing.Budget(max_drop=0.02, max_size=small, confidence=None)
    strict = compressed(budget=tight, train=train_rows(task))
    assert any(label.startswith(TRAINED) for label in labels_of(strict))


def test_training_may_lose_nothing_and_still_be_smaller(task: Task, compressed: Run) -> None:
    budget = penjing.Budget(max_drop=0.0, confidence=None)
    result = compressed(budget=budget, effort="train", train=train_rows(task))
    assert any(label.startswith("trained") for label in labels_of(result))
    assert result.report.after.size_bytes < result.report.before.size_bytes
    assert result.report.met in {"met", "missed"}


def test_the_same_seed_trains_to_the_same_file(task: Task, compressed: Run) -> None:
    budget = penjing.Budget(max_drop=0.02, confidence=None)
    first, second = (
        compressed(budget=budget, effort="train", train=train_rows(task)).artifact.sha256
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"effort": "train"}, "needs rows to train on"),
        ({"effort": "post-training", "train": ...}, "would not use the rows"),
        ({"effort": "hard"}, "must be one of"),
        ({"effort": "reconstruct", "budget": penjing.Budget(0.0)}, "cannot keep a limit of 0"),
    ],
    ids=["no rows", "rows for nothing", "unknown", "nothing may be lost"],
)
def test_efforts_that_make_no_sense_are_refused(
    task: Task, compressed: Run, options: dict[str, Any], problem: str
) -> None:
    if options.get("train") is ...:
        options = {**options, "train": train_rows(task)}
    with pytest.raises(ConfigError, match=problem):
        compressed(**options)


def test_what_was_trained_can_be_proven(task: Task, compressed: Run) -> None:
    """Trained candidates are rungs of the certificate's ladder like any other."""
    result = compressed(
        budget=penjing.Budget(max_drop=0.1), effort="train", train=train_rows(task)
    )
    tested = [c for c in result.report.candidates if c.certified_upper is not None]
    assert any(c.label.startswith("trained") for c in tested)
    assert result.met


TIGHT = penjing.Budget(max_drop=0.02, max_size=10, confidence=None)
"""What no effort meets: ``auto`` would go on to training."""


def failing(monkeypatch: pytest.MonkeyPatch, method: str, error: Exception) -> None:
    """Let a method of trainers fail."""
    from penjing.training.trainer import TorchTrainer

    def fail(*args: object) -> None:
        del args
        raise error

    monkeypatch.setattr(TorchTrainer, method, fail)


def test_what_cannot_be_trained_is_quantized_where_training_was_not_asked_for(
    compressed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "_agreeing", UnsupportedError("node 'n'", "Frob cannot be trained"))
    with pytest.warns(PenjingWarning, match=r"Frob cannot be trained: it is not trained"):
        result = compressed(budget=TIGHT)
    assert len(labels_of(result)) > 1
    with pytest.raises(UnsupportedError, match="Frob"):
        compressed(effort="reconstruct")


def test_labels_that_do_not_fit_are_refused_before_the_search(
    task: Task, compressed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "_key", AssertionError("it was trained"))
    rows = {"x": task.x[2000:], "y": task.y[2000:] + 100}
    phases: list[str] = []
    with pytest.raises(DataError):
        compressed(budget=TIGHT, train=rows, progress=lambda phase, *_: phases.append(phase))
    assert "finding the trade-off" not in phases


def test_training_that_fails_leaves_what_was_found_before(
    compressed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "fit", TrainingError("step 7 of 9", "the loss is no number"))
    budget = penjing.Budget(max_drop=0.02, confidence=None)
    with pytest.warns(PenjingWarning, match="step 7 of 9: the loss is no number"):
        result = compressed(budget=budget, effort="reconstruct")
    assert result.met
    assert result.report.after.size_bytes < result.report.before.size_bytes
    assert efforts.FAILED in result.report.reason


def test_limited_time_gives_the_same_epochs_at_nearly_the_same_speed() -> None:
    speeds = np.linspace(17, 22, 20)
    assert {efforts.coarse(epochs) for epochs in speeds} == {16.0}
    for epochs in np.geomspace(0.1, 400, 50):
        assert epochs / 1.42 <= efforts.coarse(float(epochs)) <= epochs * 1.001


def test_it_is_said_where_training_was_of_no_use(
    task: Task, compressed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = penjing.Budget(max_drop=0.02, confidence=None)
    monkeypatch.setattr(efforts, "MOST_RUNS", (0, 0))
    result = compressed(budget=budget, effort="train", train=train_rows(task))
    assert any("nothing was trained" in warning for warning in result.report.warnings)
    trained = compressed(budget=budget, effort="reconstruct", rows=1000)
    assert any("nothing was trained" in warning for warning in trained.report.warnings)


def test_a_recipe_says_itself_what_is_trained(task: Task, compressed: Run) -> None:
    recipe = penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest"}]})
    with pytest.raises(ConfigError, match="does not go with a recipe"):
        compressed(recipe=recipe, effort="train", train=train_rows(task))


def stub(
    rows: int = 100,
    kind: LayerKind = LayerKind.CONV,
    *,
    labelled: bool = True,
    bounded: bool = True,
) -> Any:
    """Make a search of training runs that knows nothing but what these tests ask for."""
    weight = SimpleNamespace(kind=kind, is_float=True, tensor=Dense(np.ones((4, 5), "f4")))
    model: Any = SimpleNamespace(weights=lambda: {"w": weight})
    judge: Any = SimpleNamespace(metric=SimpleNamespace(bounded=bounded))
    search = Search(
        model,
        Observation({}, {}),
        judge,
        penjing.Budget(max_drop=0.01),
        proof_samples=100,
        progress=silent,
        seed=3,
        deadline=math.inf,
    )
    splits: Any = None
    trainer: Any = SimpleNamespace(part=range(rows), teachers=("the original",))
    return efforts._Trained(search, splits, trainer, labelled=labelled)  # noqa: SLF001


@pytest.mark.parametrize(
    ("how", "fast", "precision"),
    [
        ({}, True, "bfloat16"),
        ({}, False, "float32"),
        ({"bounded": False}, True, "float32"),
        ({"kind": LayerKind.LINEAR}, True, "float32"),
        ({"rows": efforts.MANY_ROWS}, True, "float32"),
    ],
)
def test_precision_is_halved_where_classes_are_told_by_convolutions_and_few_rows(
    how: dict[str, Any],
    fast: bool,  # noqa: FBT001  # a parameter of the test
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from penjing.training import surroundings

    monkeypatch.setattr(surroundings, "fast_in_bfloat16", lambda: fast)
    monkeypatch.setattr(efforts, "kept_by", lambda *_: {})
    trained = stub(**how)
    recipe = trained._recipe(1e-6, 1.0, 2.0, trained._sections())  # noqa: SLF001
    assert recipe.to_dict()["training"]["precision"] == precision


@pytest.mark.parametrize(
    ("rows", "passing", "start"),
    [
        (100, {1e-8, 2e-8}, efforts.BEYOND[1] * 2e-8),
        (100, {1e-8}, efforts.BEYOND[1] * 1e-8),
        (100, set(), 1e-8),
        (efforts.MANY_ROWS, {1e-8, 2e-8}, efforts.BEYOND[0] * 2e-8),
    ],
)
def test_training_begins_beyond_the_boldest_plain_quantization_that_passes(
    rows: int, passing: set[float], start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = stub(rows)
    probed = {"sequential": True, "probe_at": 1e-8}
    tried = [(1e-8, PLAIN), (2e-8, PLAIN), (4e-8, PLAIN), (8e-8, probed)]
    candidates: Any = [
        SimpleNamespace(recipe=trained.search.quantized(at, settings), at=at)
        for at, settings in tried
    ]
    trained.search.candidates = candidates
    passes = {*passing, 8e-8}
    monkeypatch.setattr(Search, "excess", lambda _, c: 0.0 if c.at in passes else 1.0)
    recipe = trained._recipe(1e-6, 3.0, 2.0, {})  # noqa: SLF001
    quantize, train = recipe.to_dict()["steps"]
    assert quantize["trade_off"] == pytest.approx(3.0 * start)
    assert not quantize["sequential"]
    assert train["trade_off"] == 1e-6
    assert train["centered"] is trained.few


@pytest.mark.parametrize(
    ("how", "limit", "blends"),
    [
        ({}, 0.01, True),
        ({}, 0.0, False),
        ({"bounded": False}, 0.01, False),
        ({"rows": efforts.MANY_ROWS}, 0.01, False),
        ({"rows": efforts.MANY_ROWS, "labelled": False}, 0.01, True),
    ],
)
def test_images_are_blended_where_labels_would_be_learned_by_heart(
    how: dict[str, Any],
    limit: float,
    blends: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(efforts, "kept_by", lambda *_: {"shift": 1})
    trained = stub(**how)
    trained.search.budget = penjing.Budget(max_drop=limit)
    assert trained.blends is blends
    sections = trained._sections()  # noqa: SLF001
    assert sections["training"].get("distort", False) is blends
    assert (sections["distillation"]["weight"] == 1) is blends


@pytest.mark.parametrize(
    ("rows", "labelled", "within", "beyond", "following"),
    [
        (100, True, [1.0], [], 1.12),
        (100, True, [1.0, 1.12], [], 1.12 * 1.12**2),
        (efforts.MANY_ROWS, True, [1.0], [], 4.0),
        (efforts.MANY_ROWS, False, [1.0], [], 2.0),
        (efforts.MANY_ROWS, True, [1.0, 4.0], [], 8.0),
        (100, True, [], [1.12], 1.0),
        (100, True, [], [1.12, 1.0], 1 / 1.12**2),
        (efforts.MANY_ROWS, True, [], [1.0], 0.5),
        (100, True, [1.0], [4.0], 2.0),
        (100, True, [1.0], [1.1], None),
    ],
)
def test_the_next_trade_off_leaps_steps_or_lies_between(
    rows: int,
    labelled: bool,  # noqa: FBT001
    within: list[float],
    beyond: list[float],
    following: float | None,
) -> None:
    trained = stub(rows, labelled=labelled)
    trained.within, trained.beyond = within, beyond
    assert trained._next() == pytest.approx(following)  # noqa: SLF001
