"""Small models for tests: one needs no framework, the rest are built where theirs is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.data import Part, open_data
from penjing.core.errors import ModelError
from penjing.core.model import LayerKind, Model, Observes, Port, Statistics, Weight
from penjing.core.registry import BACKENDS
from penjing.core.technique import Context, Observation
from penjing.core.template import Slot, Template
from penjing.core.tensors import Dense
from penjing.core.training import Trains

if TYPE_CHECKING:
    from penjing.core.tensors import Array
    from penjing.core.training import Plan, Trainer

Build = Callable[[], Model]
STEPS = 4
"""Of training, in tests: rows fit into one batch."""
VOCABULARY = 8
"""Whole-number inputs are drawn below this."""


@dataclass(frozen=True)
class Chain:
    """A model without a framework: matrices applied one after the other, ReLU in between."""

    weights: Mapping[str, Weight]

    def layers(self) -> Iterator[tuple[Weight, Array, Array]]:
        """Give each weight with its (groups, rows, columns) matrix and its bias."""
        for name, weight in self.weights.items():
            if weight.kind in (LayerKind.BIAS, LayerKind.OTHER):
                continue
            array = weight.tensor.dense()
            matrix = array.reshape(weight.groups, len(array) // weight.groups, -1)
            bias = self.weights.get(f"{name}.bias")
            yield weight, matrix, np.zeros(1) if bias is None else bias.tensor.dense()


class Arrays:
    """The backend of ``Chain``: everything a backend can do, in plain NumPy."""

    name = "arrays"

    def recognises(self, native: object) -> bool:
        """Know a chain by its class."""
        return isinstance(native, Chain)

    def open(self, native: Any) -> Model:
        """Open a chain, or the bytes of a filled template."""
        if isinstance(native, bytes):
            native = _parse(native)
        if not self.recognises(native):
            raise ModelError(type(native).__name__, "not a chain of arrays")
        return Model(native, self)

    def inputs(self, native: Chain) -> tuple[Port, ...]:
        """One input: rows for the first matrix."""
        weight, matrix, _ = next(native.layers())
        return (Port("x", "float32", (None, weight.groups * matrix.shape[2])),)

    def outputs(self, native: Chain) -> tuple[Port, ...]:
        """One output: what the last matrix gives."""
        *_, (_, matrix, _) = native.layers()
        return (Port("y", "float32", (None, matrix.shape[0] * matrix.shape[1])),)

    def read_weights(self, native: Chain) -> dict[str, Weight]:
        """Give the weights."""
        return dict(native.weights)

    def write_weights(self, native: Chain, weights: Mapping[str, Array]) -> Chain:
        """Give a chain with these weights, in the number types of the old ones."""
        new = dict(native.weights)
        for name, array in weights.items():
            old = new[name]
            new[name] = replace(old, tensor=Dense(array.astype(old.tensor.dtype)))
        return Chain(new)

    def predict(self, native: Chain, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Multiply out."""
        after = inputs["x"].astype(np.float64)
        for number, (_, matrix, bias) in enumerate(native.layers()):
            before = np.maximum(after, 0) if number else after
            after = _merged(_split(before, len(matrix)) @ _columns(matrix)) + bias
        return {"y": after.astype(np.float32)}

    def walker(self, native: Chain, batches: Iterable[Mapping[str, Array]]) -> ChainWalker:
        """Hold all batches in memory."""
        rows = np.concatenate([batch["x"] for batch in batches])
        return ChainWalker(native, rows.astype(np.float64))

    def template(self, native: Chain) -> Template:
        """Describe the weights on one line of JSON; the arrays follow."""
        head = [
            [w.name, w.kind, w.groups, w.layer, w.tensor.dtype.name, w.tensor.shape]
            for w in native.weights.values()
        ]
        line = json.dumps(head).encode() + b"\n"
        return Template(
            line,
            tuple(
                Slot(w.name, len(line), tuple(w.tensor.shape), w.tensor.dtype.name)
                for w in native.weights.values()
            ),
        )

    def original_bytes(self, native: Chain) -> int:
        """Size of the filled template."""
        return self.template(native).size_bytes


@dataclass(frozen=True, eq=False)
class ChainWalker:
    """Runs rows through a chain and, beside it, through what becomes of it."""

    native: Chain
    rows: Array

    def run(self, encode: Callable[[str, Statistics], Mapping[str, Array]]) -> None:
        """Call ``encode`` for each matrix, in order; see ``penjing.core.model.Walker``."""
        weights = dict(self.native.weights)
        wanted = given = self.rows
        for number, (weight, matrix, bias) in enumerate(self.native.layers()):
            if number:
                same = given is wanted
                wanted = np.maximum(wanted, 0)
                given = wanted if same else np.maximum(given, 0)
            wanted_next = _merged(_split(wanted, len(matrix)) @ _columns(matrix)) + bias
            target = _split(wanted_next, len(matrix))
            seen = _split(given, len(matrix))
            statistics = _statistics(weight, seen, None if given is wanted else target)
            encoded = encode(weight.name, statistics)
            for name, array in encoded.items():
                weights[name] = replace(weights[name], tensor=Dense(array))
            wanted = wanted_next
            if not encoded and statistics.cross is None:
                given = wanted
                continue
            _, matrix_now, bias_now = list(Chain(weights).layers())[number]
            given = _merged(seen @ _columns(matrix_now)) + bias_now

    def jacobian(self, name: str, samples: int, seed: int) -> None:
        """Leave rows as they are: none knows of another."""
        del name, samples, seed


def _statistics(weight: Weight, seen: Array, target: Array | None) -> Statistics:
    """Sum up (groups, n, columns) of inputs and, where they differ, the wanted outputs."""
    samples = seen.shape[1]
    if weight.kind is LayerKind.EMBEDDING:
        return Statistics(row_importance=np.ones(weight.tensor.shape[0]), samples=samples)
    return Statistics(
        gram=seen.swapaxes(1, 2) @ seen / samples,
        mean=seen.mean(axis=1),
        cross=None if target is None else target.swapaxes(1, 2) @ seen / samples,
        target=None if target is None else target.mean(axis=1),
        samples=samples,
    )


def _split(rows: Array, groups: int) -> Array:
    """Turn (n, groups * columns) into (groups, n, columns)."""
    return rows.reshape(len(rows), groups, -1).swapaxes(0, 1)


def _merged(parts: Array) -> Array:
    """Turn (groups, n, rows) into (n, groups * rows)."""
    return parts.swapaxes(0, 1).reshape(parts.shape[1], -1)


def _columns(matrix: Array) -> Array:
    """Turn (groups, rows, columns) so that inputs can be multiplied by it."""
    turned: Array = matrix.astype(np.float64).swapaxes(1, 2)
    return turned


def _parse(data: bytes) -> Chain:
    line, _, body = data.partition(b"\n")
    weights, at = {}, 0
    for name, kind, groups, layer, dtype, shape in json.loads(line):
        array = np.frombuffer(body, dtype, prod(shape), at).reshape(shape)
        at += array.nbytes
        weights[name] = Weight(name, LayerKind(kind), Dense(array), groups, layer)
    return Chain(weights)


def _values(rng: np.random.Generator, *shape: int) -> Array:
    """Draw weights as training leaves them: heavy-tailed, some directions far stronger."""
    columns = prod(shape[1:])
    strength = np.exp(-np.arange(columns) / columns)
    matrix = rng.laplace(size=(shape[0], columns)) * rng.permutation(strength)
    scaled: Array = matrix.reshape(shape) / np.sqrt(columns)
    return scaled.astype(np.float32)


def chain() -> Model:
    """One weight of every kind: linear, grouped convolution, recurrent, embedding."""
    rng = np.random.default_rng(0)
    weights = [
        Weight("first", LayerKind.LINEAR, Dense(_values(rng, 36, 12))),
        Weight("first.bias", LayerKind.BIAS, Dense(_values(rng, 36)), layer="first"),
        Weight("conv", LayerKind.CONV, Dense(_values(rng, 16, 2, 3, 3)), groups=2),
        Weight("recurrent", LayerKind.RECURRENT, Dense(_values(rng, 24, 16))),
        Weight("table", LayerKind.EMBEDDING, Dense(_values(rng, 10, 24))),
        Weight("last", LayerKind.LINEAR, Dense(_values(rng, 3, 10))),
        Weight("last.bias", LayerKind.BIAS, Dense(_values(rng, 3)), layer="last"),
        Weight("epsilon", LayerKind.OTHER, Dense(np.array(1e-12, np.float32))),
        Weight("steps", LayerKind.OTHER, Dense(np.arange(5))),
    ]
    return Arrays().open(Chain({weight.name: weight for weight in weights}))


def odd_arrays() -> dict[str, Array]:
    """Weights at the edge of what models have, by what is odd about them."""
    rng = np.random.default_rng(3)
    odd = {
        "single": np.array([[0.3]], np.float32),
        "row": _values(rng, 1, 30),
        "column": _values(rng, 30, 1),
        "vector": _values(rng, 40),
        "volume": _values(rng, 4, 3, 2, 3, 2),
        "signal": _values(rng, 6, 4, 5),
        "constant": np.full((6, 7), -0.25, np.float32),
        "zero": np.zeros((8, 9), np.float32),
        "zero rows": _values(rng, 12, 9) * (np.arange(12) % 3 == 0)[:, None],
        "faint": _values(rng, 8, 8) * np.float32(1e-30),
        "wide range": _values(rng, 8, 8) * np.logspace(-6, 4, 8, dtype=np.float32),
        "half": _values(rng, 8, 16).astype(np.float16),
        "double": _values(rng, 8, 16).astype(np.float64),
        "turned": np.asfortranarray(_values(rng, 9, 14)),
        "empty": np.zeros((0, 4), np.float32),
    }
    return {name: np.asarray(array, array.dtype) for name, array in odd.items()}


def onnx_model(name: str) -> Model:
    """Open one of the ONNX toys."""
    from penjing.testing.onnx_models import TOYS

    model: Model = BACKENDS.load("onnx")().open(TOYS[name]())
    return model


def scikit_learn_mlp() -> Model:
    """Open a scikit-learn classifier with one hidden layer, fitted for a few steps."""
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 12)).astype(np.float32)
    labels = features[:, :3].argmax(axis=1)
    mlp = MLPClassifier((32,), solver="lbfgs", max_iter=200, tol=1e-1, random_state=0)
    model: Model = BACKENDS.load("scikit_learn")().open(mlp.fit(features, labels))
    return model


def pytorch_model(name: str) -> Model:
    """Open one of the PyTorch toys."""
    from penjing.testing.torch_models import toy

    return toy(name)


def builders() -> dict[str, Build]:
    """Builders of all models whose backend and framework are there."""
    found: dict[str, Build] = {"arrays": chain}
    known = BACKENDS.names()
    if "onnx" in known and find_spec("onnx"):
        for name in ("mlp", "conv", "gru", "embedding"):
            found[f"onnx_{name}"] = partial(onnx_model, name)
    if "scikit_learn" in known and find_spec("sklearn") and find_spec("skl2onnx"):
        found["scikit_learn_mlp"] = scikit_learn_mlp
    if "pytorch" in known and find_spec("torch") and find_spec("onnxscript"):
        for name in ("conv", "tagger"):
            found[f"pytorch_{name}"] = partial(pytorch_model, name)
    return found


def inputs(model: Model, rows: int = 8, seed: int = 1) -> dict[str, Array]:
    """Draw inputs of a model: normal numbers, or whole numbers below ``VOCABULARY``."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for port in model.backend.inputs(model.native):
        shape = [
            rows if axis == port.batch_axis else size or 1
            for axis, size in enumerate(port.shape)
        ]
        if np.issubdtype(np.dtype(port.dtype), np.floating):
            drawn[port.name] = rng.normal(size=shape).astype(port.dtype)
        else:
            drawn[port.name] = rng.integers(0, VOCABULARY, shape).astype(port.dtype)
    return drawn


def context(model: Model, seed: int = 0, only: str = "*") -> Context:
    """Everything a technique could ask for: statistics, and a trainer, where there can be."""
    trainer = brief_trainer(model, seed)
    if not isinstance(model.backend, Observes):
        return Context(seed, only, trainer=trainer)
    seen: dict[str, Statistics] = {}

    def note(name: str, statistics: Statistics) -> Mapping[str, Array]:
        seen[name] = statistics
        return {}

    batches = [inputs(model, 32, seed) for seed in (2, 3)]
    model.backend.walker(model.native, batches).run(note)
    return Context(seed, only, Observation(seen, {}), trainer)


def brief_trainer(model: Model, seed: int = 0) -> Trainer | None:
    """Give a trainer for a few steps towards a model's own outputs; None without PyTorch."""
    if not isinstance(model.backend, Trains) or find_spec("accelerate") is None:
        return None
    from penjing.training.trainer import TorchTrainer

    class Brief(TorchTrainer):
        def fit(self, model: Model, plan: Plan) -> dict[str, dict[str, Array]]:
            return super().fit(model, replace(plan, epochs=min(plan.epochs, STEPS)))

    rows = inputs(model, 24, 2)
    dataset = open_data(rows, model.backend.inputs(model.native))
    return Brief(Part(dataset, np.arange(24)), (model,), seed=seed)
