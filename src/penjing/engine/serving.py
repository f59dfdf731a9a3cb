"""Using a file that is there: load, evaluate, predict, unpack."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from penjing.artifact.artifact import Artifact
from penjing.core.data import Part
from penjing.core.errors import ConfigError, DataError, ModelError
from penjing.core.files import read_file, write_file
from penjing.core.measure import Measurement
from penjing.core.metric import choose_metric
from penjing.core.registry import BACKENDS, METRICS, RUNTIMES
from penjing.engine.evaluate import run_all
from penjing.engine.packing import RUNTIME

if TYPE_CHECKING:
    from penjing.core.data import Dataset
    from penjing.core.model import ExportsIntegers
    from penjing.core.runtime import Session
    from penjing.core.tensors import Array

BACKEND = "onnx"
"""Whose models the files hold."""
LARGEST_FILE_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A metric of one model on one data set."""

    metric: str
    value: Measurement
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return asdict(self)


def load(path: str | Path, *, threads: int = 1) -> Session:
    """Load a ``.penjing`` or ``.onnx`` file into the runtime."""
    if Path(path).suffix.lower() == ".onnx":
        model = read_file(path, LARGEST_FILE_BYTES)
    else:
        model = Artifact.load(path).onnx_bytes()
    try:
        loaded: Session = RUNTIMES.load(RUNTIME)().load(model, threads=threads)
    except ModelError as error:
        raise ModelError(str(path), error.problem, error.hint) from error
    return loaded


Form = Literal["float", "qdq"]
"""What weights are in an unpacked model: plain floats, or the integers of the file."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was written."""

    size_bytes: int
    """Size of the written model."""
    integers: tuple[str, ...] = ()
    """Weights that are integers in it."""
    quantized_activations: int = 0
    """Of a model with integers: values between layers that are quantized.  Without any, its
    layers compute in floats, and it is smaller but not faster."""


def unpack(path: str | Path, output: str | Path, form: Form = "float") -> Unpacked:
    """Write the plain ONNX model of a ``.penjing`` file, its weights in this form.

    Raises:
        ConfigError: there is no such form.
    """
    if form not in get_args(Form):
        raise ConfigError("form", f"must be one of {', '.join(get_args(Form))}, got {form!r}")
    artifact = Artifact.load(path)
    plain = artifact.onnx_bytes()
    if form == "float":
        write_file(output, plain)
        return Unpacked(len(plain))
    backend: ExportsIntegers = BACKENDS.load(BACKEND)()
    made = backend.with_integers(plain, artifact.template, artifact.tensors)
    write_file(output, made.serialized)
    return Unpacked(len(made.serialized), made.weights, made.activations)


def by_labels() -> tuple[str, ...]:
    """Give the names of the metrics that judge one model by labels.

    The others compare a model with its original, and a file does not hold that.
    """
    return tuple(name for name in METRICS.names() if METRICS.load(name).needs_labels)


def evaluate(session: Session, dataset: Dataset, metric: str) -> Evaluation:
    """Measure a model on all rows.

    Raises:
        ConfigError: the metric compares a model with its original.
        DataError: there are no labels, or data, outputs and metric do not fit.
    """
    if metric != "auto" and not METRICS.load(metric).needs_labels:
        raise ConfigError(
            "metric",
            f"{metric} compares a model with its original, which is not at hand here",
            f"choose one of {', '.join(by_labels())}; compress measures {metric}",
        )
    if dataset.labels is None:
        raise DataError(
            dataset.source,
            "has no labels to measure by",
            "name the column with --target, or call the array y",
        )
    part = _all_rows(dataset)
    outputs = run_all(session, part)
    name = choose_metric(outputs, part.labels) if metric == "auto" else metric
    judge = METRICS.load(name)()
    judge.check(outputs, part.labels)
    value = judge.value(outputs, part.labels, outputs)
    measured = Measurement(value, value, value, "")
    if judge.decomposes and judge.bounded:
        each = judge.scores(outputs, part.labels, outputs)
        if np.isin(each, (0.0, 1.0)).all():
            measured = Measurement.proportion(round(float(each.sum())), len(each))
    return Evaluation(name, measured, len(part))


def predict(session: Session, dataset: Dataset) -> dict[str, Array]:
    """Run a model on all rows."""
    return run_all(session, _all_rows(dataset))


def _all_rows(dataset: Dataset) -> Part:
    return Part(dataset, np.arange(len(dataset), dtype=np.int64))
