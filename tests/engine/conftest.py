"""Small jobs: a model that is right about as often as its margins say, and judges of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.data import Part, open_data
from penjing.core.registry import METRICS
from penjing.engine import latency
from penjing.engine.job import silent
from penjing.engine.judging import Judge
from penjing.engine.observe import observe
from penjing.engine.running import Running
from penjing.engine.search import Search
from penjing.testing.onnx_models import mlp

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.metric import Metric
    from penjing.core.model import Model
    from penjing.core.technique import Observation
    from penjing.core.tensors import Array

SHARPNESS = 6.0
"""Of the labels drawn from the model's own scores: its accuracy is about 90 %."""


@dataclass(frozen=True)
class Task:
    """A model, and rows with labels that it would get right about as often as it is sure."""

    model: Model
    x: Array
    y: Array

    def part(self, first: int, last: int) -> Part:
        dataset = open_data(
            {"x": self.x, "y": self.y}, self.model.backend.inputs(self.model.native)
        )
        return Part(dataset, np.arange(first, last))


@pytest.fixture(autouse=True)
def _no_time_for_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time a few runs only: no test here is about speed."""
    monkeypatch.setattr(latency, "MOST_RUNS", latency.FEWEST_RUNS)


@pytest.fixture(scope="session")
def task() -> Task:
    model = penjing.wrap(mlp())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 12)).astype(np.float32)
    scores = SHARPNESS * Running(model).run({"x": x})["y"].astype(np.float64)
    # The largest of scores plus Gumbel noise is a draw from their softmax.
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return Task(model, x, y)


@pytest.fixture(scope="session")
def observation(task: Task) -> Observation:
    return observe(task.model, task.part(0, 400), 0)


@dataclass
class Searching:
    """Makes searches over one task, and the judge of their proof."""

    task: Task
    observation: Observation
    searches: list[Search] = field(default_factory=list)

    def __call__(
        self, *, deadline: float = np.inf, metric: str = "accuracy", **limits: Any
    ) -> Search:
        judge = self.judge(metric, 400, 1400)
        made = Search(
            self.task.model,
            self.observation,
            judge,
            penjing.Budget(**limits),
            1600,
            silent,
            0,
            deadline,
        )
        made.attempt(penjing.Recipe(()), "lossless")
        self.searches.append(made)
        return made

    def judge(self, metric: str, first: int, last: int) -> Judge:
        loaded: Metric = METRICS.load(metric)()
        return Judge(Running(self.task.model), self.task.part(first, last), loaded, 0)

    def proof(self, metric: str = "accuracy") -> Judge:
        return self.judge(metric, 1400, 3000)


@pytest.fixture(scope="session")
def searching(task: Task, observation: Observation) -> Searching:
    return Searching(task, observation)


@pytest.fixture
def compressed(task: Task) -> Callable[..., Any]:
    """Give a function that compresses the task's model on some of its rows."""

    def run(rows: int = 2000, **options: Any) -> Any:
        return penjing.compress(task.model, {"x": task.x[:rows], "y": task.y[:rows]}, **options)

    return run
