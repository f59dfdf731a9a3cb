"""What training gives: a model, what it is worth on rows held out, and what it took."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.architecture import Task
from penjing.core.bootstrap import Bootstrap
from penjing.core.data import Part
from penjing.core.errors import ConfigError, DataError, UnsupportedError
from penjing.core.files import write_file
from penjing.core.measure import Measurement
from penjing.core.metric import values
from penjing.core.model import Exports
from penjing.core.processes import processes
from penjing.core.registry import METRICS, RUNTIMES
from penjing.engine.chance import warn_of_chance
from penjing.engine.evaluate import run_all
from penjing.engine.packing import RUNTIME

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.core.bootstrap import Floats, Integers
    from penjing.core.data import Dataset
    from penjing.core.metric import Outputs
    from penjing.core.model import Model
    from penjing.core.tensors import Array
    from penjing.training.checkpoints import Checkpoints

HELD_OUT_SHARE = 0.1
CONFIDENCE = 0.95
STEPS = 5000
"""About as many steps are made where nobody says how many."""
MOST_EPOCHS = 300.0
FEWEST_BATCHES = 32
"""Batches of an epoch that few rows are divided into, where nobody says how large they are."""
BATCH_SIZES = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A trained model, and what there is to know about it."""

    model: Model
    content: bytes = field(repr=False)
    """The ONNX file."""
    task: str
    metric: str
    value: Measurement
    """Of the metric, on the rows held out, measured in ONNX Runtime."""
    rows: int
    """Trained on."""
    held_out: int
    """Rows that training did not see."""
    split: bool
    """Whether they are a part of the rows to train on."""
    epochs: float
    steps: int
    seconds: float
    checkpoints: Checkpoints | None = field(default=None, repr=False)
    """Where training was kept on the way."""

    @property
    def size_bytes(self) -> int:
        """Size of the ONNX file."""
        return len(self.content)

    def clear(self) -> None:
        """Remove what training has left in the folder of checkpoints."""
        if self.checkpoints is not None:
            self.checkpoints.clear()

    def save(self, path: str | Path) -> None:
        """Write the ONNX file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_file(path, self.content)

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return {
            "task": str(self.task),
            "metric": self.metric,
            "value": asdict(self.value),
            "rows": self.rows,
            "held_out": self.held_out,
            "split": self.split,
            "epochs": self.epochs,
            "steps": self.steps,
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 1),
        }


class Watch:
    """Counts seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._started


def hold_out(dataset: Dataset, seed: int) -> tuple[Part, Part]:
    """Divide rows into those to train on, and a tenth to measure on.

    Of each class, at least one row is trained on, if classes are not nearly as many as rows.

    Raises:
        DataError: there are too few rows.
    """
    rows = len(dataset)
    count = max(1, round(HELD_OUT_SHARE * rows))
    order = np.random.default_rng([seed, 0x4E1D]).permutation(rows).astype(np.int64)
    labels = dataset.labels
    free = order
    if labels is not None and labels.ndim == 1:
        first = np.unique(labels[order], return_index=True)[1]
        if len(first) + count <= rows:
            free = np.delete(order, first)
    held = np.sort(free[:count])
    trained = np.setdiff1d(order, held)
    if len(trained) < 2:  # noqa: PLR2004
        raise DataError(dataset.source, f"has {rows} rows, too few to learn from", "give more")
    return Part(dataset, trained), Part(dataset, held)


def whole(dataset: Dataset) -> Part:
    """Give all rows."""
    return Part(dataset, np.arange(len(dataset), dtype=np.int64))


def check_alone() -> None:
    """Refuse to run as one of several processes: these would each train on their own.

    Raises:
        ConfigError: there are several.
    """
    if processes() > 1:
        raise ConfigError(
            "torchrun",
            f"has started {processes()} processes, but only compressing is shared among them",
            "start the command once, without torchrun",
        )


def check_distinct(train: Dataset, data: Dataset) -> None:
    """Refuse to measure on the rows that were trained on.

    Raises:
        DataError: both hold the same.
    """
    if train.digest == data.digest:
        raise DataError(
            data.source,
            "holds the same rows for --train and for --data",
            "leave out --data: a tenth of the rows is held out then",
        )


def batch_size_for(rows: int) -> int:
    """Choose the size of batches.

    >>> batch_size_for(200), batch_size_for(2000), batch_size_for(50_000)
    (16, 32, 128)
    """
    fitting = [size for size in BATCH_SIZES if size * FEWEST_BATCHES <= rows]
    return fitting[-1] if fitting else BATCH_SIZES[0]


def epochs_for(rows: int, batch_size: int) -> float:
    """Choose how often rows are gone through: for about 5,000 steps.

    >>> epochs_for(50_000, 128), epochs_for(100, 16)
    (13.0, 300.0)
    """
    per_epoch = max(1, (rows + batch_size // 2) // batch_size)
    return float(min(MOST_EPOCHS, max(1, round(STEPS / per_epoch))))


def serialized(model: Model) -> bytes:
    """Give a model as the bytes of a file.

    Raises:
        UnsupportedError: its backend cannot export models.
    """
    if not isinstance(model.backend, Exports):
        raise UnsupportedError(model.backend.name, "models of this backend cannot be written")
    arrays = {name: weight.tensor.dense() for name, weight in model.weights().items()}
    return model.backend.template(model.native).fill(arrays)


def outputs_of(content: bytes, part: Part) -> dict[str, Array]:
    """Run the file on rows, in ONNX Runtime."""
    return run_all(RUNTIMES.load(RUNTIME)().load(content, frugal=True), part)


def check_measurable(part: Part) -> None:
    """Refuse, before any training, labels by which classes cannot be told apart.

    Raises:
        DataError: all rows to measure on are of one class.
    """
    labels, rows = part.labels, len(part)
    if labels is not None and (labels == labels.flat[0]).all():
        which = "the one row" if rows == 1 else f"all {rows} rows"
        raise DataError(
            part.dataset.labels_where,
            f"{which} to measure on {'is' if rows == 1 else 'are'} of one class, "
            f"{labels.flat[0].item()!r}: nothing measured there says how well the model tells "
            "classes apart",
            "give rows of at least two classes with --data, or more rows with --train, a tenth "
            "of which is held out where there are no others",
        )


def measured(
    outputs: Outputs, task: Task, wanted: Array, *, agreement: bool = False
) -> tuple[str, Measurement]:
    """Measure outputs against labels: accuracy of classes, rmse of values, each with bounds.

    Args:
        outputs: of the model.
        task: what it was trained for.
        wanted: classes (n,), or values (n, ...).
        agreement: whether these are what teachers said, not labels.
    """
    if task is Task.CLASSIFICATION:
        judge = METRICS.load("accuracy")()
        judge.check(outputs, wanted)
        scores = judge.scores(outputs, wanted, outputs)
        name = "agreement" if agreement else "accuracy"
        if not agreement:
            warn_of_chance("the trained model", float(scores.mean()), wanted)
        return name, Measurement.proportion(round(float(scores.sum())), len(scores), CONFIDENCE)
    found = values(outputs)
    assert found is not None
    apart = found[1].reshape(len(wanted), -1) - wanted.reshape(len(wanted), -1)
    squares = np.square(apart).mean(axis=1)

    def error(indices: Integers) -> Floats:
        root: Floats = np.sqrt(squares[indices].mean(axis=1))
        return root

    half = (1 + CONFIDENCE) / 2
    sampled = Bootstrap.of(error, len(squares))
    low, high = sampled.upper_bound(1 - half), sampled.upper_bound(half)
    return "rmse", Measurement(sampled.estimate, low, high, "", CONFIDENCE)
