"""Moving a model to new classes: the new head, the stages, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import penjing
from penjing.core.errors import ConfigError, DataError, UnsupportedError
from penjing.core.model import HEAD_BIAS, HEAD_WEIGHT
from penjing.core.technique import Context
from penjing.techniques.transfer_learning import TransferLearning

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.core.tensors import Array
    from penjing.core.training import Plan, TrainingSettings
    from penjing.engine.learned import Learned

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + 2 * (X[:, 1] > 0)
LAYERS = ("w0", "w1", "w2")


def chain(*after: str, gemm: bool = True, bias: bool = True, outputs: int = 3) -> Any:
    """Build three linear layers, and operators behind the last of them."""
    sizes = (6, 10, 10, outputs)
    arrays, nodes, name = {}, [], "x"
    rng = np.random.default_rng(1)
    for place, (into, out) in enumerate(pairwise(sizes)):
        last = place == len(sizes) - 2
        weight = (rng.normal(size=(into, out)) / np.sqrt(into)).astype(np.float32)
        arrays[f"w{place}"] = weight.T.copy() if last and gemm else weight
        read = [name, f"w{place}"]
        if bias or not last:
            arrays[f"b{place}"] = np.full(out, 0.1, np.float32)
        if last and gemm:
            extra = [f"b{place}"] if bias else []
            nodes.append(helper.make_node("Gemm", read + extra, ["z2"], transB=1, alpha=2.0))
        else:
            nodes.append(helper.make_node("MatMul", read, [f"p{place}"]))
            name = f"p{place}"
            if f"b{place}" in arrays:
                nodes.append(helper.make_node("Add", [name, f"b{place}"], [f"z{place}"]))
                name = f"z{place}"
            if not last:
                nodes.append(helper.make_node("Relu", [name], [f"h{place}"]))
                name = f"h{place}"
    name = "z2" if gemm else name
    for operator in after:
        read = [name, "shape"] if operator == "Reshape" else [name]
        nodes.append(helper.make_node(operator, read, [f"{operator}_out"]))
        name = f"{operator}_out"
    if "Reshape" in after:
        arrays["shape"] = np.array([-1, outputs], np.int64)
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(array, key) for key, array in arrays.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


def headed(model: Model, outputs: int = 5, seed: int = 0) -> Model:
    backend: Any = model.backend
    made: Model = backend.open(backend.with_head(model.to_native(), outputs, seed))
    return made


def only(outputs: dict[str, Array]) -> Array:
    (found,) = outputs.values()
    return found


@pytest.mark.parametrize(
    "proto",
    [
        chain(),
        chain(bias=False),
        chain(gemm=False),
        chain(gemm=False, bias=False),
        chain("Softmax"),
        chain("Identity", "Reshape", "LogSoftmax", gemm=False),
        chain("Sigmoid", outputs=1),
    ],
    ids=["gemm", "no bias", "matmul", "alone", "softmax", "passed", "sigmoid"],
)
def test_the_head_is_new_and_the_rest_is_not(proto: Any) -> None:
    model = penjing.wrap(proto)
    for classes in (2, 5):
        made = headed(model, classes)
        weights = made.weights()
        assert weights[HEAD_WEIGHT].tensor.shape == (classes, 10)
        assert weights[HEAD_BIAS].tensor.shape == (classes,)
        assert weights[HEAD_BIAS].layer == HEAD_WEIGHT
        assert "w2" not in weights
        for name in ("w0", "w1"):
            np.testing.assert_array_equal(
                weights[name].tensor.dense(), model.weights()[name].tensor.dense()
            )
        (port,) = made.backend.outputs(made.native)
        assert port.shape == (None, classes)
        assert only(made.predict({"x": X})).shape == (160, classes)
        onnx.checker.check_model(_proto(made), full_check=True)
    assert HEAD_WEIGHT not in model.weights()  # which stays as it was


def _proto(model: Model) -> Any:
    from penjing.engine.learned import serialized

    return onnx.load_model_from_string(serialized(model))


def test_probability_of_one_class_becomes_one_for_each() -> None:
    shares = only(headed(penjing.wrap(chain("Sigmoid", outputs=1))).predict({"x": X}))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


def test_new_weights_are_small_and_seeded() -> None:
    model = penjing.wrap(chain())
    first, again, other = (
        headed(model, seed=seed).weights()[HEAD_WEIGHT].tensor.dense() for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert 0 < np.abs(first).max() < 0.1


def test_a_head_may_be_replaced_again() -> None:
    made = headed(headed(penjing.wrap(chain())), 7)
    assert only(made.predict({"x": X})).shape == (160, 7)
    assert [name for name in made.weights() if name.startswith("penjing")] == [
        HEAD_WEIGHT,
        HEAD_BIAS,
    ]


def test_other_ends_are_refused_by_name() -> None:
    said = r"made by node Tanh \('Tanh_out'\), not by a linear layer"
    with pytest.raises(UnsupportedError, match=said):
        headed(penjing.wrap(chain("Tanh")))


def test_other_outputs_stay_as_they_are() -> None:
    proto = chain()
    proto.graph.output.append(helper.make_tensor_value_info("h1", TensorProto.FLOAT, ["n", 10]))
    outputs = headed(penjing.wrap(proto)).predict({"x": X})
    assert {name: array.shape[1] for name, array in outputs.items()} == {"z2": 5, "h1": 10}
    made = headed(penjing.wrap(proto))
    assert [port.shape for port in made.backend.outputs(made.native)] == [(None, 5), (None, 10)]


def test_layers_come_in_the_order_of_computation() -> None:
    proto = chain()
    held = list(proto.graph.initializer)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(reversed(held))
    model = penjing.wrap(proto)
    backend: Any = model.backend
    assert tuple(layer[0] for layer in backend.layers(model.native)) == LAYERS


@dataclass
class Recorder:
    """A trainer that changes nothing and remembers what it was told."""

    plans: list[Plan] = field(default_factory=list)
    has_labels: bool = True

    def inputs(self, rows: int) -> list[dict[str, Array]]:
        return [{"x": X[:rows]}]

    def clear(self) -> None:
        """Nothing is kept."""

    def configured(self, settings: TrainingSettings, seed: int) -> Recorder:
        del settings, seed
        return self

    def fit(self, model: Model, plan: Plan) -> dict[str, dict[str, Array]]:
        del model
        self.plans.append(plan)
        return {name: dict(p.parameters()) for name, p in plan.parametrizations.items()}


def planned(**settings: Any) -> list[Plan]:
    model, recorder = headed(penjing.wrap(chain())), Recorder()
    TransferLearning(**settings).apply(model, Context(trainer=recorder))
    return recorder.plans


def test_layers_are_freed_from_the_head_down() -> None:
    names = [{n for n in plan.parametrizations if "b" not in n[:2]} for plan in planned()]
    head = {HEAD_WEIGHT, HEAD_BIAS}
    assert names == [head, head | {"w1"}, head | {"w1", "w0"}]
    assert [{*plan.parametrizations} for plan in planned(stages=1)] == [head]


def test_rates_fall_from_group_to_group() -> None:
    last = planned(decay=2.0, epochs=6.0, learning_rate=0.5)[-1]
    rates = {name: p.rates()["values"] for name, p in last.parametrizations.items()}
    assert rates[HEAD_WEIGHT] == rates[HEAD_BIAS] == 1.0
    assert (rates["w1"], rates["w0"]) == (0.5, 0.25)
    assert (last.learning_rate, last.epochs) == (0.5, 2.0)
    assert all(not p.undecayed() for p in last.parametrizations.values())
    assert last.distillation is not None
    assert last.distillation.weight == 0
    assert len({plan.key for plan in planned()}) == 3


def moved(rows: object = (X, Y), **more: Any) -> Learned:
    return penjing.transfer(chain(), rows, **{"epochs": 3.0, **more})


def test_a_new_task_is_learned() -> None:
    made = moved(epochs=60.0, learning_rate=1e-2)
    assert made.metric == "accuracy"
    assert made.value.value > 0.7
    assert (made.rows, made.held_out, made.split) == (144, 16, True)
    assert only(made.model.predict({"x": X})).shape == (160, 4)


def test_the_head_alone_leaves_all_else_as_it_was() -> None:
    old = penjing.wrap(chain()).weights()
    new = moved(stages=1).model.weights()
    for name in ("w0", "w1"):
        np.testing.assert_array_equal(new[name].tensor.dense(), old[name].tensor.dense())
    assert np.abs(new[HEAD_BIAS].tensor.dense()).max() > 0


def test_training_is_set_as_usual() -> None:
    plain = moved().content
    for how in ({"l1": 0.1}, {"clip_norm": 1e-3}, {"precision": "bfloat16"}):
        assert moved(**how).content != plain, how


def test_the_same_seed_gives_the_same_file() -> None:
    assert moved().content == moved().content
    assert moved().content != moved(seed=1).content


@pytest.mark.parametrize(
    ("rows", "more", "error", "said"),
    [
        (X, {}, DataError, "has no labels of the new task"),
        ((X, Y * 1.5), {}, DataError, "holds no class numbers"),
        ((X, Y - 1), {}, DataError, "outside the head's range"),
        ((X[:, :4], Y), {}, DataError, "takes"),
        ((X, Y), {"stages": 0}, ConfigError, "stages: must be int"),
        ((X, Y), {"decay": 0.5}, ConfigError, "decay: must be float"),
        ((X, Y), {"epochs": 0.0}, ConfigError, "epochs: must be above 0"),
        ((X, Y), {"data": (X[:9], Y[:9] + 5)}, DataError, "classes from 0 to 3"),
    ],
)
def test_what_cannot_be_is_refused(
    rows: object, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        moved(rows, **more)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="has started 2 processes") as info:
        moved()
    assert "without torchrun" in info.value.hint


@pytest.mark.filterwarnings("ignore:the trained model is right:penjing.PenjingWarning")
def test_rows_to_learn_and_to_measure_on_should_be_others() -> None:
    with pytest.warns(penjing.PenjingWarning, match="20 of 60 rows that measure .* trained on"):
        moved((X[:120], Y[:120]), data=(X[100:], Y[100:]))
