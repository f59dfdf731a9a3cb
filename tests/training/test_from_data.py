"""Training a template: what is promised of the loop, of teachers, and of the file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

import penjing
from penjing.core.architecture import InputKind, Problem, Task
from penjing.core.errors import ConfigError, DataError, MissingExtraError, TrainingError
from penjing.core.registry import TEMPLATES
from penjing.core.training import Distillation, Moment, Optimization, TrainingSettings
from penjing.engine import from_data, learned
from penjing.engine.templating import make_template, open_for, pose
from penjing.training.checkpoints import Checkpoints
from penjing.training.module_trainer import ModuleTrainee, Teacher, fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penjing.engine.learned import Learned

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
X = RNG.normal(3, 5, (200, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 6).astype(np.int64) + (X[:, 2] > 8)
SMALL: dict[str, dict[str, Any]] = {
    "autoencoder": {"width": 6, "layers": 1},
    "ds_cnn": {"width": 6, "blocks": 2},
    "gru_classifier": {"hidden": 5},
    "lstm_autoencoder": {"hidden": 5},
    "lstm_classifier": {"hidden": 5, "dropout": 0.1},
    "mlp": {"width": 6, "batch_norm": True, "dropout": 0.1},
    "resnet_8": {"width": 4},
    "resnet_20": {"width": 4},
    "resnet_56": {"width": 2},
    "transformer_classifier": {"width": 8, "heads": 2, "layers": 1},
}
ROWS = {
    InputKind.FEATURES: X[:24],
    InputKind.IMAGES: RNG.integers(0, 255, (24, 3, 16, 16), np.uint8),
    InputKind.SEQUENCES: RNG.normal(size=(24, 5, 3)).astype(np.float32),
    InputKind.TOKENS: RNG.integers(0, 9, (24, 5)),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def taught(rows: object = (X, Y), template: str = "mlp", **more: Any) -> Learned:
    more.setdefault("settings", {"width": 8} if template == "mlp" else {})
    return penjing.train(template, rows, **{"epochs": 1, **more})


def session(made: Learned) -> Any:
    return onnxruntime.InferenceSession(made.content)


@pytest.fixture(scope="module")
def base() -> Learned:
    return taught(epochs=8, learning_rate=3e-2)


@pytest.fixture(scope="module")
def once() -> Learned:
    return taught()


def test_a_model_comes_from_data_alone(base: Learned, tmp_path: Path) -> None:
    assert base.value.value > 0.7
    assert base.value.low < base.value.value < base.value.high
    assert (base.metric, base.rows, base.held_out, base.split) == ("accuracy", 180, 20, True)
    assert base.steps == 8 * 11  # batches of 16; the last of 4 is left out
    base.save(tmp_path / "base.onnx")
    assert (tmp_path / "base.onnx").stat().st_size == base.size_bytes
    found = penjing.evaluate(tmp_path / "base.onnx", (X, Y))
    assert found.metric == "accuracy"
    assert found.value.value > 0.8


def test_the_same_seed_gives_the_same_file(once: Learned) -> None:
    assert taught().content == once.content
    assert taught(seed=1).content != once.content


@pytest.mark.parametrize("name", ["relu", "output", "a b"])
def test_the_input_is_called_as_the_rows_are(name: str) -> None:
    made = taught({name: X, "y": Y})
    assert [port.name for port in session(made).get_inputs()] == [name]
    wanted = "output_1" if name == "output" else "output"
    assert list(made.model.predict({name: X[:3]})) == [wanted]


@pytest.mark.parametrize("name", TEMPLATES.names())
def test_every_template_learns(name: str) -> None:
    template = make_template(name, SMALL.get(name, {}))
    rows = ROWS[template.kinds[0]]
    task = template.tasks[0]
    labels = np.arange(24) % 3 if task is Task.CLASSIFICATION else X[:24, :2] * 100.0
    part = learned.whole(open_for(template, (rows, labels)))
    problem = pose(template, part)
    settings = TrainingSettings(Optimization(batch_size=8))
    net: Any = template.build(problem, 0)
    trainee = ModuleTrainee(net, problem, settings, [])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fitted = fit(
        trainee,
        part,
        epochs=1 / 3,
        learning_rate=1e-3,
        seed=0,
        key=name,
        checkpoints=Checkpoints(),
        progress=lambda *_: None,
    )
    assert fitted == (24, 1 / 3, 1)
    after = net.state_dict()
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert any(after[key].ndim > 1 for key in moved)
    assert not {key for key in moved if key.endswith(("_mean", "_std")) and "put" in key}
    assert not net.training


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_values_are_learned_whatever_their_unit(scale: float) -> None:
    y = X[:, :2].astype(np.float64) @ [[1.0], [2.0]] * scale + 50 * scale
    made = taught((X, y), "linear_regression", epochs=10, learning_rate=0.1)
    assert made.metric == "rmse"
    assert made.value.value < 0.1 * scale * np.std(y / scale)
    assert made.value.low <= made.value.value <= made.value.high


def test_reconstruction_needs_no_labels() -> None:
    made = taught(X, "autoencoder", settings={"width": 8, "layers": 1})
    assert made.metric == "rmse"
    assert made.model.predict({"x": X[:3]})["output"].shape == (3, 6)


def test_held_out_rows_leave_each_class_something_to_learn_from() -> None:
    rare = np.zeros(200, np.int64)
    rare[7] = 1
    for seed in range(20):
        template = make_template("mlp")
        part, held = learned.hold_out(open_for(template, (X, rare)), seed)
        assert 7 in part.rows
        assert len(held) == 20
        assert not set(part.rows) & set(held.rows)


@pytest.mark.filterwarnings("ignore:the trained model is right:penjing.PenjingWarning")
def test_rows_to_measure_on_may_be_given() -> None:
    made = taught((X[:150], Y[:150]), data=(X[150:], Y[150:]))
    assert (made.rows, made.held_out, made.split) == (150, 50, False)
    with pytest.raises(DataError, match="the same rows"):
        taught(data=(X, Y))
    with pytest.raises(DataError, match="has no labels to measure by"):
        taught(data=X[:9])
    with pytest.raises(DataError, match="classes from 0 to 2"):
        taught(data=(X[:9], np.full(9, 7)))


@pytest.mark.filterwarnings("ignore:the trained model is right:penjing.PenjingWarning")
def test_rows_to_learn_and_to_measure_on_should_be_others() -> None:
    with pytest.warns(penjing.PenjingWarning, match="20 of 50 rows that measure .* trained on"):
        taught((X[:150], Y[:150]), data=(X[130:180], Y[130:180]))


def test_defaults_follow_the_number_of_rows() -> None:
    for rows, size, steps in ((100, 16, 1800), (2000, 32, 5000), (50_000, 128, 5000)):
        assert learned.batch_size_for(rows) == size
        per_epoch = (rows + size // 2) // size
        assert learned.epochs_for(rows, size) * per_epoch == pytest.approx(steps, rel=0.05)


def test_two_teachers_make_one_student(base: Learned, once: Learned) -> None:
    teachers = [base.model, once.content]
    first, again = taught(teachers=teachers), taught(teachers=teachers)
    assert first.content == again.content
    assert first.content not in {once.content, taught(teachers=teachers[:1]).content}
    assert first.metric == "accuracy"


def test_blends_are_what_the_teachers_say() -> None:
    x = RNG.integers(0, 255, (120, 1, 6, 6), np.uint8)
    y = (x.reshape(120, -1).astype(int).sum(axis=1) > 36 * 127).astype(np.int64)
    few: dict[str, Any] = {"epochs": 2, "settings": {"width": 4}}
    teacher = taught((x, y), **few)
    blended = taught((x, y), teachers=[teacher.model], blend=True, **few)
    assert blended.content != taught((x, y), teachers=[teacher.model], **few).content
    wrong = taught((x, 1 - y), teachers=[teacher.model], blend=True, **few)
    assert wrong.content == blended.content, "labels have no part"
    with pytest.raises(ConfigError, match="needs a teacher"):
        taught((x, y), blend=True, **few)


def test_teachers_need_no_labels(base: Learned) -> None:
    made = taught(X, "logistic_regression", teachers=[base.model], epochs=8)
    assert made.metric == "agreement"
    assert made.value.value > 0.7
    right = (made.model.predict({"x": X})["output"].argmax(axis=1) == Y).mean()
    assert right > 0.7


def test_the_word_of_the_teachers_has_its_weight(base: Learned, once: Learned) -> None:
    assert taught(teachers=[base.model], teacher_weight=0.0).content == once.content
    wrong = (X, np.roll(Y, 1))
    listened = taught(
        wrong, teachers=[base.model], teacher_weight=1.0, epochs=8, learning_rate=3e-2
    )
    agreed = listened.model.predict({"x": X})["output"].argmax(axis=1)
    said = base.model.predict({"x": X})["output"].argmax(axis=1)
    assert (agreed == said).mean() > 0.7


def test_a_teacher_may_give_probabilities(base: Learned) -> None:
    proto = onnx.load_model_from_string(base.content)
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["output"], ["shares"], axis=-1))
    proto.graph.output[0].name = "shares"
    softmax = penjing.wrap(proto)
    rows = X[:16]
    teacher = Teacher.of(softmax, Task.CLASSIFICATION, rows)
    logits = teacher.scores(torch.from_numpy(rows))
    wanted = softmax.predict({"x": rows})["shares"]
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), wanted, atol=1e-5)


def test_teachers_that_do_not_fit_are_refused(base: Learned) -> None:
    with pytest.raises(DataError, match="wants 7 outputs, but a teacher gives 3"):
        taught((X, np.arange(200) % 7), teachers=[base.model])
    with pytest.raises(DataError, match=r"has shape|takes"):
        taught((X[:, :4], Y), teachers=[base.model])


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"template": "mpl"}, ConfigError, "did you mean 'mlp'"),
        ({"settings": {"with": 3}}, ConfigError, "did you mean 'width'"),
        ({"template": "resnet_8"}, ConfigError, "takes images, got rows of 6 features"),
        ({"rows": (X, -Y)}, DataError, "outside the head's range"),
        ({"rows": X}, DataError, "has no labels"),
        ({"task": "regress"}, ConfigError, "must be one of classification"),
        ({"epochs": 0}, ConfigError, "epochs: must be above 0"),
        ({"learning_rate": -1.0}, ConfigError, r"learning_rate: must be in \[0, 10\]"),
        ({"batch_size": 0}, ConfigError, "batch_size: must be int"),
        ({"shift": 2}, DataError, "changes images with channels, got rows of 6 features"),
        ({"blend": True}, ConfigError, "blend: needs a teacher"),
        ({"settings": {"batch_norm": True}, "batch_size": 1}, ConfigError, "of one row"),
        ({"data": (X + 1, 0 * Y)}, DataError, "all 200 rows to measure on are of one class, 0"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        taught(**more)


@pytest.mark.filterwarnings("ignore:the loss is no number:penjing.PenjingWarning")
def test_a_loss_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.training.loop.BRAKE", 1.0)
    rows, how = (X, X[:, :1]), {"learning_rate": 10.0, "optimizer": "sgd", "epochs": 20}
    with pytest.raises(TrainingError, match="with --learning-rate"):
        taught(rows, "linear_regression", **how)


def test_torch_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_data, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"penjing\[torch\]"):
        taught()


def test_finished_training_is_taken_up_again(tmp_path: Path) -> None:
    told: list[str] = []

    def progress(phase: str, share: float, note: str = "") -> None:
        del phase, share
        told.append(note)

    first = taught(checkpoints=tmp_path)
    again = taught(checkpoints=tmp_path, progress=progress)
    assert "done before" in told
    assert again.content == first.content
    assert (again.steps, again.epochs) == (first.steps, 1)


def test_patience_ends_training_early(tmp_path: Path) -> None:
    """Labels of chance alone: what is learned by heart is of no use to rows held out."""
    labels = np.random.default_rng(1).integers(0, 3, len(X))
    how: dict[str, Any] = {"epochs": 40, "learning_rate": 0.03, "patience": 2}
    made = taught((X, labels), **how, checkpoints=tmp_path)
    assert made.rows == 162  # a tenth is held out to measure, and a tenth of the others
    assert made.steps == made.epochs * 10 < 400
    again = taught((X, labels), **how, checkpoints=tmp_path)
    assert (again.content, again.epochs) == (made.content, made.epochs)


def test_l1_makes_weights_smaller_and_clipping_slows_them(base: Learned) -> None:
    def size(made: Learned) -> float:
        return float(sum(np.abs(w.tensor.dense()).sum() for w in made.model.weights().values()))

    how: dict[str, Any] = {"epochs": 8, "learning_rate": 3e-2}
    assert size(taught(**how, l1=0.01)) < 0.9 * size(base)
    cut = taught(**how, optimizer="sgd", clip_norm=1e-4)
    assert size(cut) < 0.9 * size(taught(**how, optimizer="sgd"))


def test_the_forward_pass_may_be_in_bfloat16(once: Learned) -> None:
    made = taught(precision="bfloat16")
    assert made.content != once.content
    assert abs(made.value.value - once.value.value) < 0.3


def test_errors_of_values_are_divided_by_their_scale() -> None:
    problem = Problem(
        (6,), "float32", Task.REGRESSION, 2,
        target_mean=np.array([5.0, 0.0]), target_std=np.array([100.0, 0.1]),
    )  # fmt: skip

    class Zero(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return torch.zeros(len(x), 2)

    trainee = ModuleTrainee(Zero(), problem, TrainingSettings(), [])
    labels = torch.tensor([[100.0, 0.1]], dtype=torch.float64)
    sample = ({"x": torch.zeros(1, 6)}, labels)
    loss, _ = trainee.loss(trainee.module, sample, Moment(0, 1, 0.1))
    assert float(loss) == pytest.approx(1.0)
    settings = replace(trainee.settings, distillation=Distillation(weight=0.3))
    trainee.settings = settings
    assert float(trainee.loss(trainee.module, sample, Moment(0, 1, 0.1))[0]) == float(loss)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="has started 2 processes") as info:
        taught()
    assert "without torchrun" in info.value.hint


def test_the_scale_of_inputs_is_not_trained_for_size() -> None:
    """Learned inputs are divided by it: past zero, all outputs would be none."""
    from penjing.core.technique import Context
    from penjing.techniques.rate_penalized_training import RatePenalizedTraining

    wide = np.random.default_rng(1).normal(size=(len(Y), 20)).astype(np.float32)
    model = taught((wide, Y)).model
    chosen = RatePenalizedTraining().chosen(model, Context())
    assert set(model.weights()) - set(chosen) == {"input_std"}


def test_a_model_that_tells_nothing_apart_is_warned_of() -> None:
    rng = np.random.default_rng(2)
    data = (X + 1, rng.permutation(Y))
    with pytest.warns(
        penjing.PenjingWarning, match="the trained model is right for .* every time"
    ):
        taught(data=data)


def test_gaps_between_classes_are_warned_of() -> None:
    with pytest.warns(penjing.PenjingWarning, match="3 classes occur, but the largest is 200"):
        taught((X, 100 * Y))
