"""Rows of ``training.py`` in which a model is made anew: students, transfer, integers."""

from __future__ import annotations

import gzip
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Images, data_folder, even

import penjing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penjing.engine.job import Result
    from penjing.engine.learned import Learned

Row = dict[str, Any]
TEACHERS = 5
TEACHER_EPOCHS, STUDENT_EPOCHS = 30.0, 60.0
NEW_TASK_ROWS = 200
TRANSFER_EPOCHS = 30.0
SCRATCH_EPOCHS = (30.0, 100.0)
"""From scratch, rows are seen as often as in transfer, and more often: the better counts."""


def fashion(part: str) -> Images:
    """Load Fashion-MNIST: 60,000 training (``train``) or 10,000 test images (``t10k``)."""
    folder = data_folder() / "fashion-mnist"

    def read(path: Path) -> NDArray[np.uint8]:
        content = gzip.decompress(path.read_bytes())
        rank = content[3]
        shape = np.frombuffer(content, ">u4", count=rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)

    images = read(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read(folder / f"{part}-labels-idx1-ubyte.gz")
    return Images(images[:, None], labels.astype(np.int64))


def odd_half(images: Images) -> dict[str, Any]:
    """Give the odd-numbered images, from which figures are reported."""
    return {"x": images.x[1::2], "y": images.y[1::2]}


def ensemble(case: object, seed: int) -> Row:
    """Train five teachers, a student of their size by them, and the same student alone.

    By teachers it learns long, from blends of images.  Alone it has no use for either, so it
    is trained as long, and as long as teachers are: what is better on the even-numbered images
    counts.
    """
    del case
    rows, test = fashion("train"), fashion("t10k")
    train = {"x": rows.x, "y": rows.y}
    odd, choice = odd_half(test), test.take(even(len(test)))
    started = time.monotonic()

    def trained(number: int, epochs: float, **more: Any) -> Learned:
        return penjing.train(
            "lenet_300_100", train, data=odd, epochs=epochs, seed=number, **more
        )

    def by_choice(made: Learned) -> float:
        (port,) = made.model.backend.inputs(made.model.native)
        outputs = made.model.predict({port.name: choice.x})
        return float((next(iter(outputs.values())).argmax(axis=1) == choice.y).mean())

    with tempfile.TemporaryDirectory() as folder:
        teachers = []
        for number in range(TEACHERS):
            path = Path(folder) / f"teacher-{number}.onnx"
            trained(100 * (seed + 1) + number, TEACHER_EPOCHS).save(path)
            teachers.append(str(path))
        alone = max(
            (trained(seed, epochs) for epochs in (TEACHER_EPOCHS, STUDENT_EPOCHS)),
            key=by_choice,
        ).value.value
        taught = trained(
            seed, STUDENT_EPOCHS, teachers=teachers, blend=True, temperature=1.0
        ).value.value
    return {
        "alone": 100 * alone,
        "taught": 100 * taught,
        "gain": 100 * (taught - alone),
        "seconds": time.monotonic() - started,
    }


def transfer(case: object, seed: int) -> Row:
    """Move ResNet-20 from CIFAR-10 to 200 images of clothes; beside it, train from scratch."""
    del case
    rows = fashion("train")
    chosen = np.random.default_rng(seed).permutation(len(rows))
    each = [chosen[rows.y[chosen] == label][: NEW_TASK_ROWS // 10] for label in range(10)]
    few = rows.take(np.sort(np.concatenate(each)))
    train = {"x": as_photos(few.x), "y": few.y}
    half = odd_half(fashion("t10k"))
    test = {"x": as_photos(half["x"]), "y": half["y"]}
    started = time.monotonic()
    moved = penjing.transfer(
        str(data_folder() / "onnx" / "resnet20.onnx"),
        train,
        data=test,
        epochs=TRANSFER_EPOCHS,
        seed=seed,
    )
    scratch = max(
        penjing.train("resnet_20", train, data=test, epochs=epochs, seed=seed).value.value
        for epochs in SCRATCH_EPOCHS
    )
    return {
        "transferred": 100 * moved.value.value,
        "from_scratch": 100 * scratch,
        "gain": 100 * (moved.value.value - scratch),
        "seconds": time.monotonic() - started,
    }


def as_photos(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay grey images of 28 x 28 out as colour ones of 32 x 32."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return np.repeat(padded, 3, axis=1)


def integer_form(result: Result) -> tuple[bytes, int]:
    """Unpack a result as integers; give the model and how many integer kernels run it."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        packed, plain = Path(folder) / "small.penjing", Path(folder) / "integers.onnx"
        result.artifact.save(packed)
        penjing.unpack(packed, plain, form="qdq")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
        optimized = onnx.load(options.optimized_model_filepath)
        kernels = sum(
            node.op_type.startswith(("QLinear", "QGemm")) for node in optimized.graph.node
        )
        return plain.read_bytes(), kernels
