"""Models are trained as plans say, to the same bits in any process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.data import Part, open_data
from penjing.core.errors import DataError
from penjing.core.parametrizations import Encoded
from penjing.core.technique import Context
from penjing.core.training import Distillation, Optimization, Plan, TrainingSettings
from penjing.engine.learned import serialized
from penjing.engine.training import unlabelled
from penjing.techniques.fine_tuning import FineTuning
from penjing.techniques.gradual_pruning import GradualPruning
from penjing.techniques.rate_penalized_training import RatePenalizedTraining

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.training.trainer import TorchTrainer


def plan(model: Model, **changes: Any) -> Plan:
    """Train everything as it is."""
    made = {name: Encoded(w.tensor) for name, w in model.weights().items() if w.is_float}
    return replace(Plan(made, 3, 0.01), **changes)


def digest(found: Any) -> str:
    """Digest what a trainer gives."""
    seen = hashlib.sha256()
    for name in sorted(found):
        for key in sorted(found[name]):
            seen.update(f"{name} {key}".encode() + found[name][key].tobytes())
    return seen.hexdigest()


SCRIPT = """
import numpy as np, sys
from penjing.core.data import Part, open_data
from penjing.testing.models import onnx_model
from penjing.training.trainer import TorchTrainer
sys.path.insert(0, {folder!r})
from test_trainer import digest, plan
model = onnx_model("mlp")
x = np.random.default_rng(3).normal(size=(96, 12)).astype(np.float32)
y = x[:, :3].argmax(axis=1)
data = open_data({{"x": x, "y": y}}, model.backend.inputs(model.native))
print(digest(TorchTrainer(Part(data, np.arange(96)), (model,)).fit(model, plan(model))))
"""


def test_the_same_bits_in_this_process_and_in_a_fresh_one(
    network: Model, trainer: TorchTrainer
) -> None:
    """Twice here, once elsewhere."""
    one, two = (digest(trainer.fit(network, plan(network))) for _ in range(2))
    source = str(Path(penjing.__file__).parents[1])
    done = subprocess.run(  # ourselves
        [sys.executable, "-c", SCRIPT.format(folder=str(Path(__file__).parent))],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [one, two] == [done.stdout.strip()] * 2


def test_training_from_labels_helps(network: Model, trainer: TorchTrainer) -> None:
    """The network learns the labels, which it was not made for."""
    context = Context(trainer=trainer)
    batch = trainer.part.dataset.take(trainer.part.rows)
    assert batch.labels is not None

    def accuracy(model: Model) -> float:
        outputs = model.backend.predict(model.to_native(), batch.inputs)
        return float(np.mean(outputs["y"].argmax(axis=1) == batch.labels))

    trained = FineTuning(epochs=60, learning_rate=0.01).apply(network, context)
    assert accuracy(trained) > accuracy(network) + 0.1


@pytest.mark.parametrize(
    "technique",
    [
        GradualPruning(sparsity=0.7, epochs=40, learning_rate=0.0, ends_at=0.5),
        RatePenalizedTraining(epochs=15, learning_rate=0.03, trade_off=1e-3),
    ],
)
def test_early_stopping_keeps_the_promise_of_the_technique(
    network: Model, trainer: TorchTrainer, technique: Any
) -> None:
    """What was pruned, or made short, is so in the state that is gone back to."""
    settings = TrainingSettings(Optimization(patience=1, batch_size=32))
    patient = trainer.configured(settings, 0)
    model = technique.apply(network, Context(trainer=patient))
    zeros = {
        name: float(np.mean(weight.tensor.dense() == 0))
        for name, weight in model.weights().items()
        if weight.tensor.dense().ndim > 1
    }
    assert min(zeros.values()) > 0.3, zeros
    if isinstance(technique, GradualPruning):
        assert all(share == pytest.approx(0.7, abs=0.05) for share in zeros.values())


def test_every_setting_makes_a_run_of_its_own(network: Model, trainer: TorchTrainer) -> None:
    """The key that checkpoints are found by changes with whatever changes the result."""
    usual = plan(network)
    other = replace(trainer, part=Part(trainer.part.dataset, trainer.part.rows[:50]))
    settings = TrainingSettings(Optimization(patience=1))
    keys = [
        trainer._key(network, usual),  # noqa: SLF001  # nothing else shows it
        trainer._key(network, replace(usual, epochs=4)),  # noqa: SLF001
        trainer._key(network, replace(usual, learning_rate=0.0)),  # noqa: SLF001
        trainer._key(network, replace(usual, key="of a technique")),  # noqa: SLF001
        other._key(network, usual),  # noqa: SLF001
        trainer.configured(settings, 0)._key(network, usual),  # noqa: SLF001
        trainer.configured(trainer.settings, 1)._key(network, usual),  # noqa: SLF001
        unlabelled(trainer)._key(network, usual),  # noqa: SLF001
    ]
    assert len(set(keys)) == len(keys)
    assert trainer._key(network, plan(network)) == keys[0]  # noqa: SLF001


def test_the_graph_is_part_of_the_key(network: Model, trainer: TorchTrainer) -> None:
    """The same weights in another graph are another model."""
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model_from_string(serialized(network))
    turned = {"Relu": "Tanh"}
    for node in proto.graph.node:
        node.op_type = turned.get(node.op_type, node.op_type)
    other = penjing.wrap(proto)
    assert {*other.weights()} == {*network.weights()}
    usual = plan(network)
    assert trainer._key(network, usual) != trainer._key(other, usual)  # noqa: SLF001
    taught = replace(trainer, teachers=(other,))
    assert trainer._key(network, usual) != taught._key(network, usual)  # noqa: SLF001


def test_a_finished_run_is_not_run_again(
    network: Model, trainer: TorchTrainer, tmp_path: Path
) -> None:
    """Its result is read, until it is cleared away."""
    from penjing.training.checkpoints import Checkpoints

    told: list[str] = []
    kept = replace(
        trainer,
        checkpoints=Checkpoints(tmp_path / "kept"),
        progress=lambda *_: told.append(str(_[2])),
    )
    first = kept.fit(network, plan(network))
    assert "done before" not in told
    again = kept.fit(network, plan(network))
    assert told[-1] == "done before"
    assert digest(first) == digest(again)
    kept.clear()
    assert not (tmp_path / "kept").exists()


def test_l1_makes_matrices_smaller(network: Model, trainer: TorchTrainer) -> None:
    """The more it counts, the smaller their magnitudes."""

    def magnitude(l1: float) -> float:
        settings = TrainingSettings(Optimization(l1=l1), Distillation(weight=0.0))
        found = trainer.configured(settings, 0).fit(network, plan(network, epochs=30))
        return sum(
            float(np.abs(array).sum())
            for held in found.values()
            for array in held.values()
            if array.ndim > 1
        )

    sizes = [magnitude(l1) for l1 in (0.0, 1e-3, 1e-2)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.9 * sizes[0]


def test_wrong_labels_are_refused_by_file(network: Model, trainer: TorchTrainer) -> None:
    """Classes that the model does not have, wherever they are among the rows."""
    x = np.zeros((400, 12), np.float32)
    y = np.arange(400) // 100
    data = open_data({"x": x, "y": y}, network.backend.inputs(network.native))
    wrong = replace(trainer, part=Part(data, np.arange(400)))
    with pytest.raises(
        DataError, match="has labels from 0 to 3, but the model tells 3"
    ) as info:
        wrong.fit(network, plan(network))
    assert info.value.where == data.labels_where


def test_time_of_a_step_is_measured(network: Model, trainer: TorchTrainer) -> None:
    """It is some time, and nothing else changes."""
    before = torch.get_rng_state()
    assert 0 < trainer.seconds_per_step(network) < 60
    assert torch.equal(before, torch.get_rng_state())
