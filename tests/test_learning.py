"""What the techniques that train promise, on a small model that has something to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.data import Part, open_data
from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.model import ACTIVATION_SCALES, MATRIX_KINDS
from penjing.core.structures import Bitmask, LowRank, NMSparse
from penjing.core.technique import Context
from penjing.core.tensors import Affine, Codebook
from penjing.engine.evaluate import divergence
from penjing.testing.onnx_models import mlp

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from penjing.training.trainer import TorchTrainer  # noqa: E402  # needs PyTorch

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.core.tensors import Array

ROWS, HELD_OUT = 1024, 1000


@dataclass(frozen=True)
class Lesson:
    """A model, rows that it is right about, and some that it does not see."""

    model: Model
    x: Array
    y: Array

    def trainer(self, *, labelled: bool = True) -> TorchTrainer:
        rows: dict[str, Array] = {"x": self.x[:ROWS]}
        if labelled:
            rows["y"] = self.y[:ROWS]
        dataset = open_data(rows, self.model.backend.inputs(self.model.native))
        return TorchTrainer(Part(dataset, np.arange(ROWS)), (self.model,))

    def learn(self, *steps: dict[str, Any], labelled: bool = True, **sections: Any) -> Model:
        recipe = penjing.Recipe.from_dict({"steps": list(steps), **sections})
        return recipe.apply(self.model, None, self.trainer(labelled=labelled))

    def accuracy(self, model: Model) -> float:
        scores = model.decoded().predict({"x": self.x[ROWS:]})["y"]
        return float((scores.argmax(axis=1) == self.y[ROWS:]).mean())

    def distance(self, model: Model) -> float:
        """Mean Kullback-Leibler divergence from the original, on rows not seen."""
        rows = {"x": self.x[ROWS:]}
        moved = divergence(self.model.predict(rows), model.decoded().predict(rows))
        return float(moved.mean())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    model = penjing.wrap(mlp())
    x = np.random.default_rng(0).normal(size=(ROWS + HELD_OUT, 12)).astype(np.float32)
    return Lesson(model, x, model.predict({"x": x})["y"].argmax(axis=1))


def matrices(model: Model) -> dict[str, Any]:
    return {n: w.tensor for n, w in model.weights().items() if w.kind in MATRIX_KINDS}


PRUNED = {"use": "magnitude_pruning", "sparsity": 0.7}
CLUSTERED = {"use": "weight_clustering", "bits": 3}
TUNED = {"use": "fine_tuning", "epochs": 20, "learning_rate": 3e-3}


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([PRUNED], Bitmask),
        ([CLUSTERED], Codebook),
        ([{"use": "round_to_nearest", "bits": 3}], Affine),
        ([{"use": "low_rank", "rank": 3}], LowRank),
        ([{"use": "nm_sparsity", "keep": 1}], NMSparse),
        ([PRUNED, CLUSTERED], Bitmask),
    ],
    ids=["pruned", "shared", "rounded", "low rank", "N:M", "pruned and shared"],
)
def test_fine_tuning_wins_back_accuracy_in_the_same_encoding(
    lesson: Lesson, steps: list[dict[str, Any]], kind: type
) -> None:
    before, after = lesson.learn(*steps), lesson.learn(*steps, TUNED)
    assert lesson.accuracy(after) > lesson.accuracy(before)
    assert any(isinstance(tensor, kind) for tensor in matrices(after).values())
    for name, tensor in matrices(before).items():
        assert type(matrices(after)[name]) is type(tensor), name
        assert matrices(after)[name].nbytes <= tensor.nbytes, name


def test_fine_tuning_keeps_zeros_and_trains_shared_values(lesson: Lesson) -> None:
    before, after = lesson.learn(PRUNED, CLUSTERED), lesson.learn(PRUNED, CLUSTERED, TUNED)
    for name, tensor in matrices(before).items():
        first, second = tensor.dense(), matrices(after)[name].dense()
        np.testing.assert_array_equal(first == 0, second == 0)
        assert not np.allclose(first, second), f"{name} has not been trained"
        for value in np.unique(first):  # what was shared is shared still
            assert len(np.unique(second[first == value])) == 1


@pytest.mark.parametrize("use", ["gradual_pruning", "movement_pruning"])
@pytest.mark.parametrize("scope", ["layer", "model"])
def test_pruning_reaches_its_sparsity_and_stays_accurate(
    lesson: Lesson, use: str, scope: str
) -> None:
    step = {"use": use, "sparsity": 0.6, "scope": scope, "epochs": 30, "learning_rate": 3e-3}
    learned = lesson.learn(step)
    zeros = {name: float((t.dense() == 0).mean()) for name, t in matrices(learned).items()}
    sizes = {name: t.dense().size for name, t in matrices(learned).items()}
    total = sum(zeros[name] * sizes[name] for name in zeros) / sum(sizes.values())
    assert total == pytest.approx(0.6, abs=0.01)
    if scope == "layer":
        assert all(share == pytest.approx(0.6, abs=0.02) for share in zeros.values())
    blunt = lesson.learn({"use": "magnitude_pruning", "sparsity": 0.6, "scope": scope})
    assert lesson.accuracy(learned) > lesson.accuracy(blunt)


def test_movement_pruning_is_not_about_size(lesson: Lesson) -> None:
    step = {"use": "movement_pruning", "sparsity": 0.5, "epochs": 20, "learning_rate": 3e-3}
    learned = lesson.learn(step)
    size = {name: np.abs(w.tensor.dense()) for name, w in lesson.model.weights().items()}
    gone = np.concatenate([size[n][t.dense() == 0] for n, t in matrices(learned).items()])
    kept = np.concatenate([size[n][t.dense() != 0] for n, t in matrices(learned).items()])
    assert gone.max() > np.median(kept), "only the smallest are gone"


def test_nm_training_keeps_the_pattern_and_beats_pruning_alone(lesson: Lesson) -> None:
    learned = lesson.learn(
        {"use": "nm_training", "keep": 1, "epochs": 20, "learning_rate": 3e-3}
    )
    for name, tensor in matrices(learned).items():
        rows = tensor.dense().reshape(len(tensor.dense()), -1)
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).reshape(-1, 4)
        assert ((padded != 0).sum(axis=1) <= 1).all(), name
    assert lesson.accuracy(learned) > lesson.accuracy(
        lesson.learn({"use": "nm_sparsity", "keep": 1})
    )


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_quantization_aware_training_stays_on_its_grid(
    lesson: Lesson, bits: int, granularity: str
) -> None:
    step = {"use": "quantization_aware_training", "bits": bits, "granularity": granularity}
    learned = lesson.learn({**step, "epochs": 10, "learning_rate": 3e-3})
    for name, tensor in matrices(learned).items():
        assert isinstance(tensor, Affine), name
        assert np.abs(tensor.codes).max() <= 2 ** (bits - 1) - 1
        wanted = len(tensor.codes) if granularity == "per_channel" else 1
        assert tensor.scale.size == wanted
    blunt = lesson.learn({"use": "round_to_nearest", "bits": bits, "granularity": granularity})
    assert lesson.accuracy(learned) >= lesson.accuracy(blunt) - 0.02 * (bits == 8)


def test_quantization_aware_training_keeps_what_was_pruned(lesson: Lesson) -> None:
    step = {"use": "quantization_aware_training", "bits": 4, "epochs": 2}
    before, after = lesson.learn(PRUNED), lesson.learn(PRUNED, step)
    for name, tensor in matrices(before).items():
        assert not matrices(after)[name].dense()[tensor.dense() == 0].any(), name


def test_quantized_activations_are_trained_and_stored(lesson: Lesson) -> None:
    step = {"use": "quantization_aware_training", "bits": 4, "activation_bits": 4}
    first = lesson.learn({**step, "epochs": 0.01, "learning_rate": 1e-7})
    learned = lesson.learn({**step, "epochs": 20, "learning_rate": 3e-3})
    start, end = (m.weights()[ACTIVATION_SCALES].tensor.dense() for m in (first, learned))
    assert not np.allclose(start, end, rtol=1e-3)
    assert lesson.accuracy(learned) > lesson.accuracy(first)


def test_few_bits_of_activations_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be 0 or in"):
        penjing.Recipe.from_dict(
            {"steps": [{"use": "quantization_aware_training", "activation_bits": 2}]}
        )


def coded_bytes(model: Model) -> int:
    from penjing.engine.packing import pack

    return pack(model, {}).size_bytes


def test_a_higher_price_gives_a_smaller_file(lesson: Lesson) -> None:
    step = {"use": "rate_penalized_training", "epochs": 40}
    sizes = [
        coded_bytes(lesson.learn({**step, "trade_off": trade_off}))
        for trade_off in (1e-6, 1e-4, 1e-3)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_rate_penalised_training_is_smaller_than_rounding_at_no_less_accuracy(
    lesson: Lesson,
) -> None:
    learned = lesson.learn(
        {"use": "rate_penalized_training", "epochs": 60, "trade_off": 5e-5}, training={}
    )
    rounded = lesson.learn({"use": "round_to_nearest", "bits": 3})
    assert coded_bytes(learned) < coded_bytes(rounded)
    assert lesson.accuracy(learned) >= lesson.accuracy(rounded)


def test_reconstruction_needs_no_labels_and_comes_nearer_to_the_original(
    lesson: Lesson,
) -> None:
    rounded = {"use": "round_to_nearest", "bits": 3}
    before = lesson.distance(lesson.learn(rounded))
    for local, rate in ((False, 1e-3), (True, 3e-4)):
        step = {"use": "reconstruction", "epochs": 20, "local": local, "learning_rate": rate}
        learned = lesson.learn(rounded, step, labelled=False)
        assert lesson.distance(learned) < before, local


def test_reconstruction_does_not_look_at_labels(lesson: Lesson) -> None:
    steps = ({"use": "round_to_nearest", "bits": 3}, {"use": "reconstruction", "epochs": 2})
    with_labels, without = (lesson.learn(*steps, labelled=flag) for flag in (True, False))
    for name, tensor in matrices(with_labels).items():
        np.testing.assert_array_equal(tensor.dense(), matrices(without)[name].dense())


def test_a_recipe_that_trains_asks_for_rows(lesson: Lesson) -> None:
    recipe = penjing.Recipe.from_dict({"steps": [TUNED]})
    with pytest.raises(UnsupportedError, match="needs training data"):
        recipe.apply(lesson.model)


def test_settings_of_the_loop_travel_with_the_recipe() -> None:
    data: dict[str, Any] = {
        "steps": [TUNED],
        "training": {"optimizer": "sgd", "batch_size": 32},
        "distillation": {"temperature": 4.0},
    }
    recipe = penjing.Recipe.from_dict(data)
    assert penjing.Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert recipe.to_dict()["training"]["optimizer"] == "sgd"
    with pytest.raises(ConfigError, match=r"training\.optimizer"):
        penjing.Recipe.from_dict({**data, "training": {"optimizer": "none"}})
    with pytest.raises(ConfigError, match=r"distillation\.warmth"):
        penjing.Recipe.from_dict({**data, "distillation": {"warmth": 1}})


def test_blended_images_have_no_labels_of_their_own() -> None:
    """A teacher that knows nothing leaves the model where labels would have moved it."""
    from penjing.testing.onnx_models import conv

    model = penjing.wrap(conv())
    x = np.random.default_rng(0).normal(size=(64, 4, 8, 8)).astype(np.float32)
    y = np.zeros(64, np.int64)
    dataset = open_data({"x": x, "y": y}, model.backend.inputs(model.native))
    moved = []
    for blend in (False, True):
        recipe = penjing.Recipe.from_dict(
            {
                "training": {"blend": blend, "optimizer": "sgd"},
                "distillation": {"weight": 0.0},
                "steps": [{"use": "fine_tuning", "epochs": 5, "learning_rate": 0.1}],
            }
        )
        trainer = TorchTrainer(Part(dataset, np.arange(64)), (model,))
        after = recipe.apply(model, None, trainer).weights()
        before = model.weights()
        changes = [
            np.abs(after[name].tensor.dense() - weight.tensor.dense()).max()
            for name, weight in before.items()
            if weight.is_float
        ]
        moved.append(max(changes))
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize(
    "step",
    [
        {"use": "quantization_aware_training", "bits": 4},
        {"use": "rate_penalized_training", "trade_off": 1e-6},
        {"use": "movement_pruning", "sparsity": 0.8},
    ],
    ids=lambda step: str(step["use"]),
)
@pytest.mark.parametrize("pruning", [PRUNED, {"use": "nm_training", "keep": 1, "epochs": 1}])
def test_what_was_pruned_stays_zero(
    lesson: Lesson, step: dict[str, Any], pruning: dict[str, Any]
) -> None:
    before, after = lesson.learn(pruning), lesson.learn(pruning, {**step, "epochs": 3})
    for name, tensor in matrices(before).items():
        left = matrices(after)[name].dense()
        assert not left[tensor.dense() == 0].any(), name
        if step["use"] == "movement_pruning":
            assert float((left == 0).mean()) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("use", ["quantization_aware_training", "gradual_pruning"])
def test_factors_stay_factors(lesson: Lesson, use: str) -> None:
    low_rank = {"use": "low_rank", "rank": 3}
    before, after = lesson.learn(low_rank), lesson.learn(low_rank, {"use": use, "epochs": 2})
    for name, tensor in matrices(before).items():
        assert isinstance(matrices(after)[name], LowRank) == isinstance(tensor, LowRank)


def test_outputs_that_nothing_judges_are_kept_by_the_teacher() -> None:
    """Training by labels must not ruin a second output that the labels say nothing of."""
    from onnx import TensorProto, helper

    proto = mlp()
    proto.graph.output.append(helper.make_tensor_value_info("Relu1", TensorProto.FLOAT, None))
    model = penjing.wrap(proto)
    x = np.random.default_rng(0).normal(size=(512, 12)).astype(np.float32)
    wanted = model.predict({"x": x})
    y = np.random.default_rng(1).integers(0, 3, 512)
    dataset = open_data({"x": x, "y": y}, model.backend.inputs(model.native))
    trainer = TorchTrainer(Part(dataset, np.arange(512)), (model,))
    recipe = penjing.Recipe.from_dict(
        {
            "distillation": {"weight": 0.0},
            "steps": [{"use": "fine_tuning", "epochs": 20, "learning_rate": 3e-3}],
        }
    )
    found = recipe.apply(model, None, trainer).decoded().predict({"x": x})
    error = ((found["Relu1"] - wanted["Relu1"]) ** 2).mean() / (wanted["Relu1"] ** 2).mean()
    assert error < 0.25


def test_numbers_that_are_none_reach_the_loop_which_goes_back() -> None:
    from penjing.core.training import Moment
    from penjing.techniques.rate_penalized_training import RatePenalizedTraining

    model = penjing.wrap(mlp())
    weight = next(w for w in model.weights().values() if w.kind in MATRIX_KINDS)
    made = RatePenalizedTraining().parametrize(weight, Context(seed=0))
    held = {k: torch.tensor(v) for k, v in {**made.parameters(), **made.buffers()}.items()}
    held["latent"] = torch.full_like(held["latent"], torch.nan)
    found = made.slopes(held, Moment(5, 10, 0.1))["latent"]
    assert found.shape == held["latent"].shape
