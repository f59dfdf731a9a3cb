"""Training a module of PyTorch from data, with labels, with teachers, or with both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from penjing.core.architecture import Task
from penjing.core.errors import ConfigError, DataError, TrainingError, UnsupportedError
from penjing.core.registry import BACKENDS
from penjing.core.training import to_numpy
from penjing.training.loop import Run
from penjing.training.losses import Form, Objective, are_shares, mean_of, total_loss
from penjing.training.rows import Rows, divided
from penjing.training.trainer import CHECKPOINTS, digest_model, function_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.architecture import Problem
    from penjing.core.data import Part
    from penjing.core.metric import Outputs
    from penjing.core.model import Model, Port
    from penjing.core.tensors import Array
    from penjing.core.training import Function, Moment, TrainingSettings
    from penjing.training.checkpoints import Checkpoints
    from penjing.training.loop import Pace
    from penjing.training.rows import Sample

OUTPUT = "output"
STATE, RUN = "module", "run"
SMALLEST_SHARE = 1e-7
SCORES_AXES = 2
"""Samples and classes."""
TOLERANCE = 1e-3
"""How far, relative to the largest, outputs of the exported model may be from the module's."""


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A model whose outputs a student learns to give, read as the student gives them."""

    model: Model
    function: Function
    port: Port
    output: str
    form: Form

    @classmethod
    def of(cls, model: Model, task: Task, rows: Array) -> Teacher:
        """Look at what a model gives for some rows.

        Raises:
            UnsupportedError: it takes several inputs, or gives nothing that fits the task.
        """
        ports = model.backend.inputs(model.native)
        if len(ports) != 1 or ports[0].batch_axis != 0:
            raise UnsupportedError(
                "teacher", "takes several inputs, or rows not on the first axis", "give another"
            )
        port, values = ports[0], torch.from_numpy(np.ascontiguousarray(rows))
        outputs = model.predict({port.name: to_numpy(_fed(values, port))})
        floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
        if not floats:
            raise UnsupportedError("teacher", "gives no real numbers to learn from")
        name, scores = next(iter(floats.items()))
        form = Form.VALUES
        if task is Task.CLASSIFICATION:
            form = _form_of(scores)
        return cls(model, function_of(model), port, name, form)

    def scores(self, values: torch.Tensor) -> torch.Tensor:
        """Give logits of classes, or values, for rows as the student takes them."""
        found = self.function({}, {self.port.name: _fed(values, self.port)})[self.output]
        scores: torch.Tensor = found.float()
        if self.form is Form.SHARES:
            return scores.clamp_min(SMALLEST_SHARE).log()
        if self.form in {Form.SHARE, Form.LOGIT}:
            flat = scores.reshape(-1)
            if self.form is Form.SHARE:
                flat = torch.logit(flat, eps=SMALLEST_SHARE)
            return torch.stack([torch.zeros_like(flat), flat], dim=1)
        return scores


def answers(teachers: list[Teacher], part: Part, name: str) -> Array:
    """Give what the teachers together answer: logits or values of every row."""
    found = []
    with torch.no_grad():
        for batch in part.batches(128):
            values = torch.from_numpy(np.ascontiguousarray(batch.inputs[name]))
            given = [{OUTPUT: each.scores(values)} for each in teachers]
            is_values = teachers[0].form is Form.VALUES
            objective = Objective(OUTPUT, Form.VALUES if is_values else Form.LOGITS, 0)
            found.append(to_numpy(mean_of(objective, given)[OUTPUT]))
    return np.concatenate(found)


def _form_of(scores: Array) -> Form:
    """Tell what a classifier gives."""
    if scores.ndim == SCORES_AXES and scores.shape[1] > 1:
        return Form.SHARES if are_shares(scores) else Form.LOGITS
    if scores[:1].size != 1:
        raise UnsupportedError(
            "teacher",
            f"gives scores of shape {scores.shape[1:]} for a row, not one for each class",
            "give a classifier with the classes of the labels",
        )
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    return Form.SHARE if inside else Form.LOGIT


def _fed(values: torch.Tensor, port: Port) -> torch.Tensor:
    """Lay rows out as a teacher takes them."""
    sizes = [size for size in port.shape[1:] if size is not None]
    if values.ndim != len(port.shape) and len(sizes) == len(port.shape) - 1:
        values = values.reshape(len(values), *sizes)
    return values.to(getattr(torch, port.dtype))


@dataclass(eq=False)
class ModuleTrainee:
    """A module made for a problem, with its loss; see ``penjing.training.loop.Trainee``.

    Errors of values are divided by their standard deviation in the training rows, so that
    they are of the order of one whatever the unit.
    """

    module: nn.Module
    problem: Problem
    settings: TrainingSettings
    teachers: list[Teacher]

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Let matrices decay, vectors not."""
        parameters = list(self.module.parameters())
        matrices = [each for each in parameters if each.ndim > 1]
        vectors = [each for each in parameters if each.ndim <= 1]
        made = [(vectors, 0.0), (matrices, weight_decay)]
        return [
            {"params": members, "lr": learning_rate, "weight_decay": decay}
            for members, decay in made
            if members
        ]

    def loss(
        self, module: Any, sample: Sample, moment: Moment
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the module on a batch; give what to minimise, and what to show."""
        del moment
        inputs, labels = sample
        values = inputs[self.problem.name]
        given = module(values)
        teacher = None
        weight = self.settings.distillation.weight
        wanted = self._wanted(values, labels)
        if self.teachers and (wanted is None or weight > 0):
            with torch.no_grad():
                said = [each.scores(values).reshape(given.shape) for each in self.teachers]
                teacher = mean_of(self.objective, [{OUTPUT: self._scaled(s)} for s in said])
        loss = total_loss(
            self.objective,
            self.settings.distillation,
            {OUTPUT: self._scaled(given)},
            wanted,
            teacher=teacher,
            features=(),
        )
        l1 = self.settings.training.l1
        return (loss + l1 * self._magnitude() if l1 else loss), loss

    def _magnitude(self) -> torch.Tensor:
        """Sum the magnitudes of all that may decay."""
        matrices = [each for each in self.module.parameters() if each.ndim > 1]
        return torch.stack([each.abs().sum() for each in matrices]).sum()

    def after(self, moment: Moment, pace: Pace) -> None:
        """Change nothing between steps."""

    @cached_property
    def objective(self) -> Objective:
        """Tell how outputs are read."""
        if self.problem.task is Task.CLASSIFICATION:
            return Objective(OUTPUT, Form.LOGITS, self.problem.outputs)
        return Objective(OUTPUT, Form.VALUES, 0)

    def _wanted(self, values: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor | None:
        if self.problem.task is Task.RECONSTRUCTION:
            return self._scaled(values)
        if labels is None or self.problem.task is Task.CLASSIFICATION:
            return labels
        return self._scaled(labels.reshape(len(labels), -1))

    def _scaled(self, values: torch.Tensor) -> torch.Tensor:
        if self.problem.task is Task.CLASSIFICATION:
            return values.float()
        mean, std = (
            torch.as_tensor(array, dtype=torch.float64, device=values.device)
            for array in self.problem.output_scale
        )
        return ((values.double() - mean) / std).float()


class Fitted(NamedTuple):
    """What a run came to; patience may have ended it early, and held rows out for that."""

    rows: int
    epochs: float
    steps: int


def fit(  # noqa: PLR0913  # all that makes a run
    trainee: ModuleTrainee,
    part: Part,
    *,
    epochs: float,
    learning_rate: float,
    seed: int,
    key: str,
    checkpoints: Checkpoints,
    progress: Callable[[str, float, str], None],
) -> Fitted:
    """Train a module in place.

    Raises:
        ConfigError: batches are too small for the module.
        TrainingError: the loss became NaN again and again.
        OutputError: the result cannot be kept.
    """
    axes = {trainee.problem.name: 0}
    optimization = trainee.settings.training
    trained, kept = divided(part, seed) if optimization.patience else (part, None)
    rows = Rows(trained, axes)
    _check_batches(trainee.module, len(rows), optimization.batch_size)
    digest = _digest(trainee, part, key, (epochs, learning_rate, seed))
    run = Run(
        trainee,
        rows,
        optimization,
        epochs,
        learning_rate,
        seed,
        digest,
        checkpoints,
        lambda share, note: progress("training", share, note),
        held=None if kept is None else Rows(kept, axes),
    )
    known = checkpoints.result(digest)
    if known is not None:
        state = {name: torch.from_numpy(array) for name, array in known[STATE].items()}
        trainee.module.load_state_dict(state)
        progress("training", 1.0, "done before")
        steps = int(known[RUN]["steps"])
    else:
        steps = _go(run)
        trainee.module.cpu()
        arrays = {n: np.array(to_numpy(t)) for n, t in trainee.module.state_dict().items()}
        checkpoints.finish(digest, {STATE: arrays, RUN: {"steps": np.array(steps)}})
    trainee.module.eval()
    done = epochs if steps == run.steps else steps / run.steps_per_epoch
    return Fitted(len(rows), done, steps)


def _go(run: Run) -> int:
    try:
        return run.go()
    except TrainingError as error:
        raise TrainingError(
            error.where, error.problem, "give a smaller learning rate, with --learning-rate"
        ) from error


def _check_batches(module: nn.Module, rows: int, batch_size: int) -> None:
    """Refuse batches of one row where a layer is normalized over the batch."""
    left = rows % batch_size
    smallest = left if 2 * left >= batch_size and left else min(rows, batch_size)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if smallest < 2 and any(isinstance(part, norms) for part in module.modules()):  # noqa: PLR2004
        raise ConfigError(
            "batch_size",
            f"of {batch_size} leaves batches of one row, and layers of this model are "
            "normalized over the batch",
            "give 4 or more",
        )


def _digest(trainee: ModuleTrainee, part: Part, key: str, told: tuple[float, ...]) -> str:
    """Digest all that decides the result of a run."""
    seen = hashlib.sha256()
    for name, tensor in trainee.module.state_dict().items():
        seen.update(name.encode() + np.ascontiguousarray(to_numpy(tensor)).tobytes())
    for teacher in trainee.teachers:
        digest_model(seen, teacher.model)
    rows = np.ascontiguousarray(part.rows)
    seen.update(part.dataset.digest.encode() + rows.tobytes())
    seen.update(repr((CHECKPOINTS, key, told, trainee.settings, trainee.problem.task)).encode())
    return seen.hexdigest()


def export(module: nn.Module, name: str, rows: Array) -> Model:
    """Give a trained module as an ONNX model, checked against the module on these rows.

    Raises:
        ModelError: it cannot be exported.
        TrainingError: the exported model computes something else.
    """
    model: Model = BACKENDS.load("pytorch")().exported(module, {name: rows})
    with torch.no_grad():
        wanted = to_numpy(module(torch.from_numpy(np.ascontiguousarray(rows))))
    outputs: Outputs = model.predict({name: rows})
    found = next(iter(outputs.values()))
    size = float(np.abs(wanted).max(initial=0))
    if not np.allclose(found, wanted, rtol=0, atol=TOLERANCE * size + 1e-6):
        raise TrainingError(
            "export",
            f"outputs in ONNX Runtime are off by {np.abs(found - wanted).max():.3g}",
            "this is an error of the conversion; please report it with the command",
        )
    return model


def check_teachers(teachers: list[Teacher], problem: Problem, where: str) -> Problem:
    """Give the problem with the teachers' number of classes.

    Raises:
        DataError: labels and teachers, or the teachers among each other, do not fit.
    """
    rows = np.zeros((2, *problem.shape), problem.dtype)
    for teacher in teachers:
        with torch.no_grad():
            shape = tuple(teacher.scores(torch.from_numpy(rows)).shape[1:])
        width = int(np.prod(shape))
        if problem.task is Task.CLASSIFICATION and width > problem.outputs:
            problem = replace(problem, outputs=width)
        wanted = problem.size if problem.task is Task.RECONSTRUCTION else problem.outputs
        if width != wanted:
            raise DataError(
                where,
                f"wants {wanted} outputs, but a teacher gives {width}",
                "teachers must give what the student is to give",
            )
    return problem
