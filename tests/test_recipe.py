"""Recipes: what they read, how they refuse, and that they check before they work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.recipe import Recipe, Step
from penjing.core.registry import TECHNIQUES
from penjing.core.structures import Bitmask
from penjing.core.tensors import Cast, Codebook
from penjing.core.training import Trains
from penjing.testing import models

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.core.technique import Context, Observation

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
GOOD = """
seed: 3
steps:
  - use: magnitude_pruning
    sparsity: 0.7
  - use: weight_clustering   # shares what is left
    only: 'fc*'
    bits: 3
"""


def refused(text: str) -> tuple[str, str, str]:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_yaml(text, "r.yaml")
    return caught.value.where, caught.value.problem, caught.value.hint


def test_yaml_and_python_say_the_same() -> None:
    recipe = Recipe.from_yaml(GOOD)
    pruning, clustering = (step.technique for step in recipe.steps)
    assert pruning == TECHNIQUES.load("magnitude_pruning")(sparsity=0.7)
    assert clustering == TECHNIQUES.load("weight_clustering")(bits=3)
    assert [step.only for step in recipe.steps] == ["*", "fc*"]
    assert recipe.seed == 3
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "r.yaml"),
        ("[1, 2]", "r.yaml"),
        ("seed: 1", "r.yaml"),
        ("steps: low_rank", "r.yaml, steps"),
        ("steps: [low_rank]", "r.yaml, steps[0]"),
        ("steps: [{bits: 3}]", "r.yaml, steps[0]"),
        ("steps: [{use: 3}]", "r.yaml, steps[0].use"),
        ("steps: [{use: low_rank, only: 3}]", "r.yaml, steps[0].only"),
        ("steps: [{use: low_rank}, {use: gptq, bits: 9}]", "r.yaml, steps[1].bits"),
        ("steps: [{use: gptq, bits: 4.0}]", "r.yaml, steps[0].bits"),
        ("steps: [{use: gptq, bits: yes}]", "r.yaml, steps[0].bits"),
        ("steps: [{use: gptq, bits: [4]}]", "r.yaml, steps[0].bits"),
        ("steps: [{use: magnitude_pruning, sparsity: .nan}]", "r.yaml, steps[0].sparsity"),
        ("steps: [{use: magnitude_pruning, scope: all}]", "r.yaml, steps[0].scope"),
        ("steps: []\nseed: -1", "r.yaml, seed"),
        ("steps: []\nseed: 4294967296", "r.yaml, seed"),
        ("steps: []\nseed: x", "r.yaml, seed"),
        ("steps: []\nseed: 1\nseed: 2", "r.yaml, line 3, column 1"),
        ("steps:\n  - use: a\n  use: b", "r.yaml, line 3, column 3"),
        ("steps: !!python/object:os.system []", "r.yaml, line 1, column 8"),
        ("steps: [{use: low_rank, date: 2024-99-99}]", "r.yaml"),
        ("steps: [\x00]", "r.yaml"),
        ("[" * 2000, "r.yaml"),
    ],
)
def test_errors_name_the_file_and_the_place(text: str, where: str) -> None:
    assert refused(text)[0] == where


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("stops: []", "r.yaml, stops", "did you mean 'steps'?"),
        ("steps: [{use: low_ronk}]", "r.yaml, steps[0].use", "did you mean 'low_rank'?"),
        ("steps: [{use: gptq, bit: 4}]", "r.yaml, steps[0].bit", "did you mean 'bits'?"),
        ("steps: [{use: gptq, zzz: 4}]", "r.yaml, steps[0].zzz", "known: bits, damping"),
    ],
)
def test_unknown_names_get_a_suggestion(text: str, where: str, hint: str) -> None:
    assert refused(text)[::2] == (where, hint)


def test_an_error_is_short_whatever_the_value() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, two in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{two}: &{two} [{', '.join(['*' + one] * 9)}]\n"
    for text in (f"{bomb}steps: *i", f"{bomb}steps: [{{use: gptq, bits: *i}}]"):
        assert len("".join(refused(text))) < 500
    table = {"steps": {"x": ["y" * 10**6] * 100}}
    with pytest.raises(ConfigError, match="a list") as caught:
        Recipe.from_dict(table)
    assert len(str(caught.value)) < 500


def test_steps_build_on_each_other() -> None:
    recipe = Recipe.from_yaml(
        "steps: [{use: magnitude_pruning, sparsity: 0.8}, {use: weight_clustering, bits: 3},"
        " {use: cast_precision}]"
    )
    after = recipe.apply(models.chain()).weights()["first"].tensor
    assert isinstance(after, Bitmask)
    assert isinstance(after.values, Codebook)
    assert isinstance(after.values.centroids, Cast)
    assert np.count_nonzero(after.dense()) == round(0.2 * after.dense().size)


def test_a_step_touches_only_what_it_names() -> None:
    steps = "steps: [{use: round_to_nearest, only: 'first'}, {use: low_rank, only: 'con*'}]"
    assert set(Recipe.from_yaml(steps).apply(models.chain()).changed) == {"first", "conv"}


def test_nothing_runs_before_all_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (TECHNIQUES.load(name)() for name in ("magnitude_pruning", "gptq"))
    ran: list[str] = []

    def apply(self: object, model: Model, context: Context) -> Model:
        del self, context
        ran.append("pruning")
        return model

    monkeypatch.setattr(type(first), "apply", apply)
    with pytest.raises(UnsupportedError, match=r"steps\[1\]: gptq needs calibration data"):
        Recipe((Step(first), Step(second))).apply(models.chain())
    assert ran == []


def test_steps_are_given_what_was_observed() -> None:
    model = models.chain()
    observation: Observation = models.context(model).observation
    recipe = Recipe.from_yaml("steps: [{use: gptq, only: first}]")
    gptq = recipe.apply(model, observation).weights()["first"].tensor
    rounding = Recipe.from_yaml("steps: [{use: round_to_nearest, bits: 4, only: first}]")
    rounded = rounding.apply(model).weights()["first"].tensor
    gram, array = observation.statistics["first"].gram, model.weights()["first"].tensor.dense()
    assert gram is not None
    errors = [tensor.dense().astype(np.float64) - array for tensor in (gptq, rounded)]
    losses = [float(np.einsum("ij,jk,ik", e, gram[0], e)) for e in errors]
    assert losses[0] < losses[1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_run_and_shrink(path: Path) -> None:
    recipe = Recipe.from_yaml(path.read_text(), path.name)
    if recipe.trains:
        pytest.importorskip("accelerate")
    model = models.onnx_model("mlp") if recipe.trains else models.chain()
    seen = models.context(model)
    after = recipe.apply(model, seen.observation, seen.trainer)
    assert after.nbytes < 0.6 * model.nbytes
    assert np.isfinite(after.decoded().predict(models.inputs(model))["y"]).all()


def test_every_technique_that_trains_is_combined_in_a_shipped_recipe() -> None:
    steps = [Recipe.load(path).to_dict()["steps"] for path in RECIPES]
    shipped = {step["use"] for each in steps if len(each) > 1 for step in each}
    trains = {n for n in TECHNIQUES.names() if Trains in TECHNIQUES.load(n).needs}
    assert trains - shipped == set()
