"""Biases that keep the means of outputs while the codes beside them change."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.model import LayerKind, Statistics, Weight
from penjing.core.technique import Context, Observation
from penjing.core.tensors import Affine, Dense
from penjing.core.training import Function, Plan, to_numpy
from penjing.techniques.rate_penalized_training import RatePenalizedTraining, mean_outputs

torch = pytest.importorskip("torch")

from penjing.core.training import Moment  # noqa: E402
from penjing.training.learner import Learner  # noqa: E402  # needs PyTorch

if TYPE_CHECKING:
    from penjing.core.tensors import Array

STEP = 0.25
NOW = Moment(0, 10, 0.1)
MEANS = np.array([[4.0, 0.5, 1.0]])


def linear(
    weights: Any, inputs: Any, *, watch: object = (), detach: object = ()
) -> dict[str, Any]:
    del watch, detach
    return {"y": inputs["x"] @ weights["w"].T + weights["b"]}


def learner(*, centered: bool = True, seen: Statistics | None = None) -> Learner:
    rng = np.random.default_rng(0)
    codes = rng.integers(-2, 3, (2, 3))
    weight = Weight("w", LayerKind.LINEAR, Affine.encode(codes, STEP))
    bias = Weight("b", LayerKind.BIAS, Dense(np.array([0.5, -1.0], np.float32)), layer="w")
    technique = RatePenalizedTraining(centered=centered)
    seen = seen or Statistics(mean=2 * MEANS, positions=2.0)
    context = Context(observation=Observation(MappingProxyType({"w": seen}), {}))
    made = {w.name: technique.parametrize(w, context) for w in (bias, weight)}
    function: Function = linear  # type: ignore[assignment]
    return Learner(function, technique.plan(made, context))


def tensors(module: Learner) -> dict[str, Array]:
    held, plan = module.arrays(), module.plan
    assert isinstance(plan, Plan)
    return {n: np.asarray(p.tensor(held[n]).dense()) for n, p in plan.parametrizations.items()}


def flip(module: Learner) -> None:
    """Change every code of the weight by one."""
    with torch.no_grad():
        dict(module.named_parameters())["boxes.1.latent"].add_(1.0)


def outputs(module: Learner) -> Array:
    made, _ = module({"x": torch.tensor(MEANS, dtype=torch.float32)}, NOW)
    return np.asarray(to_numpy(made["y"]))


def fine(module: Learner) -> Learner:
    """Give the bias a step that is next to nothing, so that rounding it plays no part."""
    with torch.no_grad():
        held = dict(module.named_parameters())
        held["boxes.0.growth"].fill_(-12.0)
    return module


def test_means_stay_when_codes_change() -> None:
    module = fine(learner())
    before = outputs(module)
    flip(module)
    np.testing.assert_allclose(outputs(module), before, atol=1e-4)
    plain = fine(learner(centered=False))
    flip(plain)
    assert np.abs(outputs(plain) - before).min() > STEP * MEANS.sum() / 2


def test_the_trained_bias_is_the_one_of_the_last_step() -> None:
    module = fine(learner())
    flip(module)
    made = tensors(module)
    held = module.held()
    for name, parametrization in module.plan.parametrizations.items():
        run = to_numpy(parametrization.weight(held[name]))
        np.testing.assert_allclose(made[name], run, rtol=1e-6)
    np.testing.assert_allclose(MEANS @ made["w"].T + made["b"], outputs(module), rtol=1e-6)


def test_no_gradient_asks_codes_for_what_biases_do() -> None:
    module = learner()
    made, _ = module({"x": torch.tensor(MEANS, dtype=torch.float32)}, NOW)
    made["y"].sum().backward()
    asked = {name: to_numpy(p.grad) for name, p in module.named_parameters()}
    assert np.abs(asked["boxes.1.latent"]).max() < 1e-5
    assert np.abs(asked["boxes.0.latent"]).min() > 0


def test_without_statistics_biases_are_trained_as_they_are() -> None:
    module = learner(seen=Statistics())
    assert all(not p.beside for p in module.plan.parametrizations.values())


def test_a_bias_alone_needs_no_weight_beside_it() -> None:
    both = learner()
    alone = {"b": both.plan.parametrizations["b"]}
    module = Learner(both.function, replace(both.plan, parametrizations=alone))
    assert "beside" not in module.held()["b"]
    assert alone["b"].tensor(module.arrays()["b"]).shape == (2,)


def test_groups_have_means_of_their_own() -> None:
    weight = np.arange(8, dtype=np.float32).reshape(4, 2, 1)
    means = np.array([[1.0, 2.0], [10.0, 20.0]], np.float32)
    np.testing.assert_allclose(mean_outputs(weight, means), [2.0, 8.0, 140.0, 200.0])
