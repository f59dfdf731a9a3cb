"""Runs a technique's plan on training data: the model's function, its teachers, the loop."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from penjing.core.data import Part
from penjing.core.errors import DataError, UnsupportedError
from penjing.core.model import Exports
from penjing.core.parametrizations import Encoded
from penjing.core.processes import is_main
from penjing.core.training import Function, Moment, Plan, TrainingSettings, Trains
from penjing.training.agreement import agrees
from penjing.training.checkpoints import Checkpoints
from penjing.training.learner import Learner
from penjing.training.loop import Run
from penjing.training.losses import Objective, mean_of, total_loss
from penjing.training.rows import Rows, divided
from penjing.training.state import make_optimizer
from penjing.training.stepping import Stepper
from penjing.training.surroundings import accelerated, all_alike, reproducible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.model import Model
    from penjing.core.tensors import Array
    from penjing.training.rows import Sample
    from penjing.training.state import Pace

TIMED_STEPS = 5
OVERHEAD = 1.5
"""Time of a whole step over that of its gradients."""
CHECKPOINTS = 5
"""Version of what they hold: others are not taken up."""
FIRST_ROWS = 8
"""Rows on which a model must give the same in training as in use."""
SOME_ROWS = 256
"""Rows by whose outputs the loss is chosen."""


def quiet(phase: str, share: float, note: str = "") -> None:
    """Show nothing."""
    del phase, share, note


@dataclass(eq=False)
class TorchTrainer:
    """Trains models with PyTorch, through Accelerate; see ``penjing.core.training.Trainer``."""

    part: Part
    """Rows to train on."""
    teachers: tuple[Model, ...]
    """Whose outputs count beside the labels: the original, as a rule."""
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    seed: int = 0
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    progress: Callable[[str, float, str], None] = quiet

    @property
    def has_labels(self) -> bool:
        """Whether there is more to learn from than the teachers' outputs."""
        return self.part.labels is not None

    def inputs(self, rows: int) -> list[Mapping[str, Array]]:
        """Give the inputs of some of the rows, evenly drawn, in batches."""
        every = max(1, len(self.part) // rows)
        chosen = Part(self.part.dataset, self.part.rows[::every][:rows])
        return [batch.inputs for batch in chosen.batches(SOME_ROWS)]

    def clear(self) -> None:
        """Remove what unfinished and finished runs have left on disk."""
        if is_main():
            self.checkpoints.clear()

    def configured(self, settings: TrainingSettings, seed: int) -> TorchTrainer:
        """Give a trainer on the same rows with the settings and the seed of a recipe."""
        return replace(self, settings=settings, seed=seed)

    def fit(self, model: Model, plan: Plan) -> dict[str, dict[str, Array]]:
        """Train; give everything that each parametrization held at the end."""
        if plan.distillation is not None:
            settings = replace(self.settings, distillation=plan.distillation)
            return replace(self, settings=settings).fit(model, replace(plan, distillation=None))
        key = self._key(model, plan)
        tell = self.progress if is_main() else quiet
        with reproducible(), accelerated(self.settings.training.precision) as accelerator:
            known = self.checkpoints.result(key)
            if all_alike(accelerator, int(known is not None)) and known is not None:
                tell(plan.label, 1.0, "done before")
                return known
            trainee = self._trainee(model, plan)
            rows, held = self._rows
            Run(
                trainee,
                rows,
                self.settings.training,
                plan.epochs,
                plan.learning_rate,
                self.seed,
                key,
                self.checkpoints,
                lambda share, note: tell(plan.label, share, note),
                held=held,
                settled=plan.settled,
            ).go()
        found = trainee.module.arrays()
        if is_main():
            self.checkpoints.finish(key, found)
        return found

    def seconds_per_step(self, model: Model) -> float:
        """Measure about how long a step of training takes, where it will take place."""
        plan = Plan(
            {n: Encoded(w.tensor) for n, w in model.weights().items() if w.is_float}, 1.0, 1e-3
        )
        settings = self.settings.training
        rows, _ = self._rows
        with reproducible(), accelerated(settings.precision) as accelerator:
            trainee = self._trainee(model, plan)
            stepper = Stepper(trainee, rows, settings, self.seed, accelerator, lambda _: None)
            optimizer = make_optimizer(settings, trainee.groups(0.0, 0.0), 0.0)
            places = list(range(min(settings.batch_size, len(rows))))
            seconds = []
            for _ in range(1 + TIMED_STEPS):
                started = time.monotonic()
                float(stepper.gradients(optimizer, places, Moment(0, 1, 0.0)))
                seconds.append(time.monotonic() - started)
        return OVERHEAD * min(seconds[1:])  # the first prepares; others may have been disturbed

    @cached_property
    def _rows(self) -> tuple[Rows, Rows | None]:
        """Rows to train on, and those held out where training may end early."""
        model = self.teachers[0]
        axes = {port.name: port.batch_axis for port in model.backend.inputs(model.native)}
        if not self.settings.training.patience:
            return Rows(self.part, axes), None
        part, held = divided(self.part, self.seed)
        return Rows(part, axes), Rows(held, axes)

    @cached_property
    def objective(self) -> Objective:
        """The output that is trained, by the first teacher's outputs and the labels."""
        rows = Part(self.part.dataset, self.part.rows[:SOME_ROWS])
        model = self.teachers[0]
        (batch,) = rows.batches(SOME_ROWS)
        outputs = model.backend.predict(model.to_native(), batch.inputs)
        labels = self.part.labels
        made = Objective.of(outputs, batch.labels, self.part.dataset.source)
        if labels is not None:
            made.check(outputs[made.output], labels, self.part.dataset.labels_where)
        return made

    def check(self, model: Model) -> None:
        """Refuse, before any work, a model that cannot be trained, or labels that do not fit.

        Raises:
            UnsupportedError: an operator, or the size of batches, stands in the way.
            DataError: the labels do not fit the model.
        """
        for port in model.backend.inputs(model.native):
            size = None if port.batch_axis is None else port.shape[port.batch_axis]
            if size is not None:
                raise UnsupportedError(
                    f"input {port.name!r}",
                    f"takes batches of {size} only: the model cannot be trained",
                    "export the model with a free batch size",
                )
        self._agreeing(model)
        assert self.objective
        for teacher in self.teachers[1:]:
            self._check_teacher(teacher)

    def _check_teacher(self, teacher: Model) -> None:
        """Refuse a teacher that does not take and give what the original does."""
        original, first = self.teachers[0], self.part.dataset.take(self.part.rows[:FIRST_ROWS])
        takes, wanted = _ports(teacher), _ports(original)
        if takes != wanted:
            raise DataError(
                "teacher",
                f"takes {', '.join(takes)}, and the original {', '.join(wanted)}",
                "give models with the same inputs",
            )
        aim, given = (
            each.backend.predict(each.to_native(), first.inputs) for each in (original, teacher)
        )
        name = self.objective.output
        if name not in given or given[name].shape != aim[name].shape:
            raise DataError(
                "teacher",
                f"does not give {name!r} of shape {aim[name].shape[1:]}, as the original does",
                "give models with the same outputs",
            )
        function_of(teacher)

    def _agreeing(self, model: Model) -> Function:
        """Convert a model, and see that it gives the same on some rows."""
        function = function_of(model)
        first = self.part.dataset.take(self.part.rows[:FIRST_ROWS])
        agrees(model.backend, model.to_native(), function, first.inputs)
        return function

    def _trainee(self, model: Model, plan: Plan) -> _Student:
        function = self._agreeing(model)
        features: tuple[str, ...] = ()
        if self.settings.distillation.features > 0:
            features = function.milestones
        return _Student(
            Learner(function, plan),
            self.objective,
            self.settings,
            [function_of(teacher) for teacher in self.teachers],
            features,
        )

    def _key(self, model: Model, plan: Plan) -> str:
        """Digest all that decides the result of a run."""
        seen = hashlib.sha256()
        for each in (model, *self.teachers):
            digest_model(seen, each)
        rows = np.ascontiguousarray(self.part.rows)
        seen.update(self.part.dataset.digest.encode() + rows.tobytes())
        told_last = (
            CHECKPOINTS,
            plan.key,
            plan.epochs,
            plan.learning_rate,
            self.settings,
            self.seed,
            self.has_labels,
        )
        seen.update(repr(told_last).encode())
        return seen.hexdigest()


def _ports(model: Model) -> list[str]:
    ports = model.backend.inputs(model.native)
    return sorted(f"{port.name!r} ({port.dtype}, {len(port.shape)} axes)" for port in ports)


def digest_model(seen: hashlib._Hash, model: Model) -> None:
    """Digest all that decides what a model computes: its graph and its weights."""
    if isinstance(model.backend, Exports):
        skeleton = model.backend.template(model.native).skeleton
        seen.update(repr(len(skeleton)).encode() + skeleton)
    for name, weight in sorted(model.weights().items()):
        array = np.ascontiguousarray(weight.tensor.dense())
        told = (name, type(weight.tensor).__name__, array.shape, array.dtype.str)
        seen.update(repr(told).encode() + array.tobytes())


@dataclass(eq=False)
class _Student:
    """A learner with its loss."""

    module: Learner
    objective: Objective
    settings: TrainingSettings
    teachers: list[Function]
    features: tuple[str, ...]

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        return self.module.groups(learning_rate, weight_decay)

    def loss(
        self, module: Any, sample: Sample, moment: Moment
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = sample
        distillation = self.settings.distillation
        teacher = None
        asked = distillation.weight > 0 or self.features or self.objective.others
        if labels is None or asked:
            with torch.no_grad():
                given = [
                    each({}, inputs, watch=() if number else self.features)
                    for number, each in enumerate(self.teachers)
                ]
                teacher = mean_of(self.objective, given)
        detach = self.features if distillation.local else ()
        outputs, penalty = module(inputs, moment, watch=self.features, detach=detach)
        loss = total_loss(
            self.objective,
            distillation,
            outputs,
            labels,
            teacher=teacher,
            features=self.features,
        )
        shown = loss
        if self.settings.training.l1:
            loss = loss + self.settings.training.l1 * self.module.magnitude()
        return (loss if penalty is None else loss + penalty), shown

    def after(self, moment: Moment, pace: Pace) -> None:
        self.module.shrink(moment, pace)
        self.module.update(moment)


def function_of(model: Model) -> Function:
    """Convert a model; weights changed so far are what they are now.

    Raises:
        UnsupportedError: its backend, or one of its operators, cannot be trained.
    """
    if not isinstance(model.backend, Trains):
        raise UnsupportedError(
            model.backend.name,
            "models of this backend cannot be trained",
            "give an ONNX file or a PyTorch module",
        )
    return model.backend.function(model.to_native())
