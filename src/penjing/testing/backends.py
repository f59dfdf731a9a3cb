"""What every backend promises, one promise per function.

A check takes a model builder and raises AssertionError when the promise is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.model import MATRIX_KINDS, Exports, LayerKind, Model, Observes, Statistics
from penjing.core.training import Trains, to_numpy
from penjing.testing import models
from penjing.testing.models import Build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array

BackendCheck = Callable[[Build], None]


def outputs(model: Model) -> dict[str, Array]:
    """Predict on the drawn inputs."""
    return model.predict(models.inputs(model))


def assert_equal(one: Mapping[str, Array], other: Mapping[str, Array], what: str) -> None:
    """Assert that two dictionaries of arrays are the same to the last bit."""
    assert list(one) == list(other), what
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, f"{what}: {name}")


def arrays(model: Model) -> dict[str, Array]:
    """Copy every weight."""
    return {name: weight.tensor.dense().copy() for name, weight in model.weights().items()}


def check_knows_its_own(build: Build) -> None:
    """Recognises what it opened and nothing else; opens it again to the same model."""
    model = build()
    assert model.backend.recognises(model.native)
    for stranger in (None, 3, object(), {"w": np.zeros(3)}, "model.xyz"):
        assert not model.backend.recognises(stranger), f"recognises {stranger!r}"
    assert_equal(arrays(model.backend.open(model.native)), arrays(model), "opened again")


def check_weights_are_consistent(build: Build) -> None:
    """Lists each weight under its own name, in groups that divide it, with known layers."""
    model = build()
    weights = model.weights()
    assert weights, "has no weights"
    for name, weight in weights.items():
        assert weight.name == name, f"{weight.name} is listed as {name}"
        shape = weight.tensor.shape
        assert isinstance(weight.kind, LayerKind), name
        assert weight.groups >= 1, name
        assert weight.groups == 1 or shape[0] % weight.groups == 0, f"{name}: groups"
        assert not weight.layer or weight.layer in weights, f"{name}: layer {weight.layer}"
        if weight.kind in MATRIX_KINDS:
            assert len(shape) > 1, f"{name}: a matrix has at least two axes"


def check_reads_what_it_wrote(build: Build) -> None:
    """Writing the weights that were read gives the same model."""
    model = build()
    before = arrays(model)
    written = Model(model.backend.write_weights(model.native, before), model.backend)
    assert_equal(arrays(written), before, "weights")
    assert_equal(outputs(written), outputs(model), "outputs")


def check_writes_what_it_is_given(build: Build) -> None:
    """Every float weight can be replaced, on its own, and only it changes."""
    model = build()
    before = arrays(model)
    for name, weight in model.weights().items():
        if not weight.is_float:
            continue
        half = {name: before[name] * before[name].dtype.type(0.5)}
        written = Model(model.backend.write_weights(model.native, half), model.backend)
        assert_equal(arrays(written), before | half, f"after writing {name}")


def check_weights_matter(build: Build) -> None:
    """Matrices set to zero change the outputs: they are the model's own, not copies."""
    model = build()
    first = next(w for w in model.weights().values() if w.kind in MATRIX_KINDS)
    zero = {first.name: np.zeros_like(first.tensor.dense())}
    written = Model(model.backend.write_weights(model.native, zero), model.backend)
    before, after = outputs(model), outputs(written)
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def check_writing_leaves_the_original(build: Build) -> None:
    """Writing gives a copy; the native model and its weights stay as they were."""
    model = build()
    before, given = arrays(model), outputs(model)
    half = {n: a * 0 for n, a in before.items() if model.weights()[n].is_float}
    model.backend.write_weights(model.native, half)
    assert_equal(arrays(model), before, "weights of the original")
    assert_equal(outputs(model), given, "outputs of the original")


def check_ports_tell_the_truth(build: Build) -> None:
    """Inputs and outputs have the names, types and sizes that the ports state."""
    model = build()
    ports = {port.name: port for port in model.backend.outputs(model.native)}
    for rows in (1, 8):
        given = model.predict(models.inputs(model, rows))
        assert list(given) == list(ports)
        for name, array in given.items():
            port = ports[name]
            assert array.dtype == port.dtype, name
            assert array.ndim == len(port.shape), name
            for axis, size in enumerate(port.shape):
                assert size in (None, array.shape[axis]), f"{name}: axis {axis}"
            if port.batch_axis is not None:
                assert array.shape[port.batch_axis] == rows, f"{name}: {rows} samples"


def check_predicts_alike(build: Build) -> None:
    """The same inputs give the same outputs, and stay as they were."""
    model = build()
    given = models.inputs(model)
    kept = {name: array.copy() for name, array in given.items()}
    first = model.predict(given)
    assert_equal(given, kept, "inputs")
    assert_equal(model.predict(given), first, "outputs")


def check_observes_each_input(build: Build) -> None:
    """Statistics have the right shapes, are moments, and come in order of computation."""
    model = build()
    if not isinstance(model.backend, Observes):
        return
    weights, seen = model.weights(), []

    def note(name: str, found: Statistics) -> Mapping[str, Array]:
        seen.append(name)
        shape, groups = weights[name].tensor.shape, weights[name].groups
        columns = int(np.prod(shape[1:]))
        assert found.samples > 0, name
        if found.gram is not None:
            assert found.gram.shape == (groups, columns, columns), name
            assert found.gram.dtype == np.float64, name
            np.testing.assert_allclose(found.gram, found.gram.swapaxes(1, 2), atol=1e-9)
            lowest = np.linalg.eigvalsh(found.gram).min()
            assert lowest >= -1e-6 * max(1.0, float(np.trace(found.gram[0]))), name
        if found.mean is not None:
            assert found.mean.shape == (groups, columns), name
        if found.row_importance is not None:
            assert found.row_importance.shape == shape[:1], name
        return {}

    batches = [models.inputs(model, 16, seed) for seed in (2, 3)]
    model.backend.walker(model.native, batches).run(note)
    assert seen, "observed nothing"
    assert len(seen) == len(set(seen)), "calls twice for a weight"


def check_template_fills(build: Build) -> None:
    """The template filled with the weights is a model that predicts the same."""
    model = build()
    if not isinstance(model.backend, Exports):
        return
    template = model.backend.template(model.native)
    filled = template.fill(arrays(model))
    assert len(filled) == template.size_bytes
    assert {slot.name for slot in template.slots} == set(model.weights())
    assert_equal(outputs(model.backend.open(filled)), outputs(model), "outputs")
    assert model.backend.original_bytes(model.native) > 0


def check_trains(build: Build) -> None:
    """The differentiable form computes what the model does, from weights that are given.

    Gradients reach each matrix.  Where PyTorch is missing there is nothing to check.
    """
    model = build()
    if not isinstance(model.backend, Trains) or find_spec("torch") is None:
        return
    import torch

    function = model.backend.function(model.native)
    given = {name: torch.from_numpy(array) for name, array in models.inputs(model).items()}
    whole = {
        name: weight.tensor.dense()
        for name, weight in model.weights().items()
        if weight.kind in MATRIX_KINDS and weight.is_float
    }
    half = {name: array * array.dtype.type(0.5) for name, array in whole.items()}
    written = Model(model.backend.write_weights(model.native, half), model.backend)
    trained = {
        name: torch.from_numpy(array.copy()).requires_grad_() for name, array in half.items()
    }
    found = function(trained, given, watch=function.milestones)
    for expected, values in (
        (outputs(model), function({}, given)),
        (outputs(written), {name: value.detach() for name, value in found.items()}),
    ):
        for name, value in values.items():
            if name in expected:
                np.testing.assert_allclose(
                    to_numpy(value), expected[name], rtol=1e-3, atol=1e-4, err_msg=name
                )
    assert set(function.milestones) <= set(found), "milestones cannot be watched"
    floats = [value for value in found.values() if value.is_floating_point()]
    sum(value.square().sum() for value in floats).backward()
    for name, weight in trained.items():
        assert weight.grad is not None, f"no gradient reaches {name}"
        assert bool(torch.isfinite(weight.grad).all()), f"{name}: gradient is not finite"
        assert bool(weight.grad.any()), f"gradient of {name} is zero"


CHECKS: tuple[BackendCheck, ...] = (
    check_knows_its_own,
    check_weights_are_consistent,
    check_reads_what_it_wrote,
    check_writes_what_it_is_given,
    check_weights_matter,
    check_writing_leaves_the_original,
    check_ports_tell_the_truth,
    check_predicts_alike,
    check_observes_each_input,
    check_template_fills,
    check_trains,
)


def backend_cases(
    builders: dict[str, Build] | None = None,
) -> Iterator[tuple[str, tuple[BackendCheck, Build]]]:
    """Yield ``(id, (check, build))`` for every check and model; of all backends if None."""
    for name, build in (models.builders() if builders is None else builders).items():
        for check in CHECKS:
            yield f"{name}-{check.__name__}", (check, build)
