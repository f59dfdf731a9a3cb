"""What the benchmarks share: models, data, the fixed test halves, the judge, rows.

Needs NumPy, and ONNX Runtime for :class:`Judge`, so that it runs unchanged in the
environment of the project and in that of its peers: both are judged by the same code.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Row = dict[str, Any]

BATCH = 50
"""Images of one run: larger batches leave the cache and are slower."""


@dataclass(frozen=True)
class BenchModel:
    """Name one model of the size benchmark and the figures it is held to."""

    name: str
    dataset: str
    max_drop: float
    """Accuracy points the compressed model may lose."""
    ratio_at_least: float
    ratio_aim: float

    @property
    def path(self) -> Path:
        """Locate the ONNX file."""
        return data_folder() / "onnx" / f"{self.name}.onnx"


MODELS = {
    model.name: model
    for model in (
        BenchModel("lenet-300-100", "mnist", 0.2, 36.0, 50.0),
        BenchModel("lenet-5", "mnist", 0.2, 45.0, 70.0),
        BenchModel("resnet20", "cifar10", 0.5, 12.5, 18.0),
        BenchModel("resnet56", "cifar10", 0.5, 14.0, 22.0),
    )
}


@dataclass(frozen=True)
class Images:
    """Hold images (uint8, N x channels x height x width) and their labels (int64, N)."""

    x: NDArray[np.uint8]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.y)

    def take(self, index: NDArray[np.intp]) -> Images:
        """Copy the chosen images."""
        return Images(self.x[index], self.y[index])


def data_folder() -> Path:
    """Give the folder of the data sets, named by the variable PENJING_DATA.

    Raises:
        SystemExit: the variable is not set, or names no folder.
    """
    named = os.environ.get("PENJING_DATA")
    if not named:
        raise SystemExit(
            "PENJING_DATA is not set: name the folder with mnist/, cifar10/, onnx/"
        )
    folder = Path(named)
    if not folder.is_dir():
        raise SystemExit(f"PENJING_DATA names {folder}, which is no folder")
    return folder


def load_test(dataset: str) -> Images:
    """Load the test images: 10,000 of ``mnist``, 5,000 of ``cifar10`` (half "a")."""
    if dataset == "mnist":
        return _read_mnist("t10k")
    return _read_cifar10("cifar10_test_a.npz")


def load_train(dataset: str) -> Images:
    """Load the training images: 60,000 of ``mnist``, 10,000 of ``cifar10``."""
    if dataset == "mnist":
        return _read_mnist("train")
    return _read_cifar10("cifar10_train_10k.npz")


def calibration_images(dataset: str, seed: int, count: int = 1024) -> Images:
    """Draw ``count`` training images without replacement, in the order of the file."""
    train = load_train(dataset)
    chosen = np.random.default_rng(seed).choice(len(train), size=count, replace=False)
    return train.take(np.sort(chosen))


def even(count: int) -> NDArray[np.intp]:
    """Number the test images on which operating points are chosen."""
    return np.arange(0, count, 2)


def odd(count: int) -> NDArray[np.intp]:
    """Number the test images from which figures are reported."""
    return np.arange(1, count, 2)


class Judge:
    """Compare models with an original on the even and the odd test images."""

    def __init__(self, original: bytes, test: Images, threads: int = 1) -> None:
        self._test = test
        self._threads = threads
        self.original = self.predict(original)

    def predict(self, model: bytes) -> NDArray[np.int64]:
        """Give the class of each test image by ONNX Runtime on the CPU."""
        return predict(model, self._test.x, self._threads)

    def even_accuracy(self, model: bytes) -> float:
        """Give the percentage of even-numbered test images that a model gets right."""
        images = self._test.take(even(len(self._test)))
        return 100 * float(np.mean(predict(model, images.x, self._threads) == images.y))

    def score(self, predicted: NDArray[np.int64]) -> Row:
        """Give accuracy drops in points and disagreements, per half.

        A drop is the accuracy of the original less that of ``predicted``.
        """
        row: Row = {}
        for half, index in (("even", even), ("odd", odd)):
            at = index(len(self._test))
            labels, before, after = self._test.y[at], self.original[at], predicted[at]
            lost = int(np.sum(before == labels)) - int(np.sum(after == labels))
            row[f"n_{half}"] = len(at)
            row[f"accuracy_{half}"] = round(100 * float(np.mean(before == labels)), 4)
            row[f"drop_{half}"] = round(100 * lost / len(at), 4)
            row[f"disagreements_{half}"] = int(np.sum(before != after))
        return row


def predict(model: bytes, images: NDArray[np.uint8], threads: int = 1) -> NDArray[np.int64]:
    """Run a one-input, one-output classifier and take the largest logit of each row."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    labels = [
        np.argmax(session.run(None, {name: images[start : start + BATCH]})[0], axis=1)
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(labels).astype(np.int64)


def whole_bytes(row: Mapping[str, Any]) -> int:
    """Count what has to be kept: the coded weights and the graph."""
    return int(row["bytes"]) + int(row["bytes_graph"])


def best_within(rows: Iterable[Row], limit: float, half: str = "even") -> Row | None:
    """Give the smallest point whose drop on one half is at most ``limit`` points.

    With ``half="even"`` this is the rule by which every tool picks its point; with
    ``half="odd"`` and our own drop as the limit it is the peer's best point at an equal
    or smaller drop, which favours the peer: it picks on the images it is judged by.
    """
    inside = [row for row in rows if row[f"drop_{half}"] <= limit]
    return min(inside, key=lambda row: (whole_bytes(row), row["drop_odd"]), default=None)


def emit(row: Row) -> None:
    """Print one row as a line of JSON."""
    print(json.dumps(row), flush=True)


def _read_mnist(part: str) -> Images:
    folder = data_folder() / "mnist"
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return Images(images[:, None], labels.astype(np.int64))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the format of LeCun's MNIST files: 0 0 type rank, big-endian sizes, bytes."""
    with gzip.open(path, "rb") as file:
        content = file.read()
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _read_cifar10(name: str) -> Images:
    with np.load(data_folder() / "cifar10" / name) as arrays:
        channels_first = np.ascontiguousarray(arrays["x"].transpose(0, 3, 1, 2))
        return Images(channels_first, arrays["y"].astype(np.int64))
