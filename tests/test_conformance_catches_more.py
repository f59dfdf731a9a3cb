"""Checks of encodings and backends: each must catch its own fault."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.model import LayerKind, Model, Port, Statistics, Weight
from penjing.core.tensors import Affine, Array, Dense, Tensor
from penjing.core.training import to_numpy
from penjing.testing import backend_cases, encoding_cases, models
from penjing.testing.backends import CHECKS as BACKEND_CHECKS
from penjing.testing.encodings import CHECKS as ENCODING_CHECKS
from penjing.testing.models import Arrays, Chain, ChainWalker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from penjing.core.template import Template

NUMBERS = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)


class WrongShape(Dense):
    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(reversed(self.array.shape))


class WrongSize(Dense):
    __slots__ = ()

    @property
    def nbytes(self) -> int:
        return self.array.nbytes + 1


class Thawed(Dense):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


class WritesIntoItsTarget(Dense):
    __slots__ = ()

    def project(self, array: Array) -> Dense:
        kept = array.copy()
        array[array > 0.999] = 0
        return type(self)(kept)


class Drifts(Dense):
    __slots__ = ()

    def project(self, array: Array) -> Dense:
        return type(self)(array * type(array.flat[0])(0.999))


class LosesItself(Dense):
    __slots__ = ()

    def project(self, array: Array) -> Dense:
        return Dense(array)


class StaysFar(Dense):
    __slots__ = ()

    def project(self, array: Array) -> Dense:
        return type(self)(2 * self.array - array if np.any(array != self.array) else array)


class ForgetsToMap(Dense):
    __slots__ = ()

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        del encode
        return self


class HalfPruned(Affine):
    __slots__ = ()

    def dense(self) -> Array:
        shifted: Array = super().dense() + self.scale / 2
        return shifted


class NumPyOnly(Dense):
    __slots__ = ()

    def project(self, array: Array) -> Dense:
        return type(self)(np.asarray(array))


ENCODING_FAULTS: list[tuple[Tensor, set[str]]] = [
    (Dense(NUMBERS), set()),
    (WrongShape(NUMBERS), {"describes_itself", "maps_its_values"}),
    (WrongSize(NUMBERS), {"describes_itself"}),
    (Thawed(NUMBERS), {"cannot_change"}),
    (WritesIntoItsTarget(NUMBERS), {"cannot_change"}),
    (Drifts(NUMBERS), {"projects_onto_itself"}),
    (LosesItself(NUMBERS), {"projects_onto_itself"}),
    (StaysFar(NUMBERS), {"projects_closer"}),
    (ForgetsToMap(NUMBERS), {"maps_its_values"}),
    (HalfPruned.encode(np.rint(NUMBERS * 9), 0.1), {"can_be_pruned"}),
    (NumPyOnly(NUMBERS), {"projects_any_array"}),
]


@pytest.mark.parametrize(
    ("tensor", "expected"), ENCODING_FAULTS, ids=[type(t).__name__ for t, _ in ENCODING_FAULTS]
)
def test_each_fault_of_an_encoding_is_caught(tensor: Tensor, expected: set[str]) -> None:
    found = set()
    for _, (check, subject) in encoding_cases({"it": tensor}):
        try:
            check(subject)
        except AssertionError:
            found.add(check.__name__.removeprefix("check_"))
    assert expected <= found if expected else not found


class TakesAll(Arrays):
    def recognises(self, native: object) -> bool:
        return native is not None


class WrongName(Arrays):
    def read_weights(self, native: Chain) -> dict[str, Weight]:
        weights = super().read_weights(native)
        return {**weights, "last": replace(weights["last"], name="first")}


class OddGroups(Arrays):
    def read_weights(self, native: Chain) -> dict[str, Weight]:
        weights = super().read_weights(native)
        return {**weights, "last.bias": replace(weights["last.bias"], groups=2)}


class WritesTurned(Arrays):
    def write_weights(self, native: Chain, weights: Mapping[str, Array]) -> Chain:
        return super().write_weights(native, {n: a[::-1] for n, a in weights.items() if a.ndim})


class ForgetsBiases(Arrays):
    def write_weights(self, native: Chain, weights: Mapping[str, Array]) -> Chain:
        return super().write_weights(
            native, {n: a for n, a in weights.items() if not n.endswith("bias")}
        )


class ReadsCopies(Arrays):
    def predict(self, native: Chain, inputs: Mapping[str, Array]) -> dict[str, Array]:
        del native
        return super().predict(models.chain().native, inputs)


class WritesInPlace(Arrays):
    def write_weights(self, native: Chain, weights: Mapping[str, Array]) -> Chain:
        for name, array in weights.items():
            native.weights[name].tensor.dense()[...] = array
        return native


class WrongPort(Arrays):
    def outputs(self, native: Chain) -> tuple[Port, ...]:
        return tuple(replace(port, dtype="float64") for port in super().outputs(native))


class Moody(Arrays):
    def __init__(self) -> None:
        self.calls = 0

    def predict(self, native: Chain, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.calls += 1
        given = super().predict(native, inputs)
        return {name: array + np.float32(self.calls % 2) for name, array in given.items()}


class ObservesTurned(Arrays):
    def walker(self, native: Chain, batches: Iterable[Mapping[str, Array]]) -> ChainWalker:
        walker = super().walker(native, batches)

        class Turned(ChainWalker):
            def run(self, encode: Callable[[str, Statistics], Mapping[str, Array]]) -> None:
                walker.run(
                    lambda name, seen: encode(
                        name, replace(seen, gram=None if seen.gram is None else -seen.gram)
                    )
                )

        return Turned(walker.native, walker.rows)


class FillsHalf(Arrays):
    def template(self, native: Chain) -> Template:
        template = super().template(native)
        return replace(template, slots=template.slots[:-1])


class TrainsOnCopies(Arrays):
    def function(self, native: Chain) -> Any:
        import torch

        class Copied:
            milestones = ()

            def __call__(self, weights: Any, inputs: Any, **_: Any) -> dict[str, Any]:
                arrays = {name: to_numpy(weight) for name, weight in weights.items()}
                written = backend.write_weights(native, arrays)
                found = backend.predict(written, {n: to_numpy(x) for n, x in inputs.items()})
                return {n: torch.from_numpy(y).requires_grad_() for n, y in found.items()}

        backend = self
        return Copied()


@dataclass(frozen=True)
class Fault:
    backend: type[Arrays]
    caught: str

    def build(self) -> Model:
        backend = self.backend()
        return Model(models.chain().native, backend)


BACKEND_FAULTS = [
    Fault(TakesAll, "knows_its_own"),
    Fault(WrongName, "weights_are_consistent"),
    Fault(OddGroups, "weights_are_consistent"),
    Fault(WritesTurned, "reads_what_it_wrote"),
    Fault(ForgetsBiases, "writes_what_it_is_given"),
    Fault(ReadsCopies, "weights_matter"),
    Fault(WritesInPlace, "writing_leaves_the_original"),
    Fault(WrongPort, "ports_tell_the_truth"),
    Fault(Moody, "predicts_alike"),
    Fault(ObservesTurned, "observes_each_input"),
    Fault(FillsHalf, "template_fills"),
    Fault(TrainsOnCopies, "trains"),
]


@pytest.mark.parametrize("fault", BACKEND_FAULTS, ids=lambda fault: fault.backend.__name__)
def test_each_fault_of_a_backend_is_caught(fault: Fault) -> None:
    if fault.caught == "trains":
        pytest.importorskip("torch", reason="training needs PyTorch")
    found: dict[str, Any] = {}
    for _, (check, build) in backend_cases({"it": fault.build}):
        try:
            check(build)
        except (AssertionError, ValueError) as error:
            found[check.__name__.removeprefix("check_")] = error
    assert isinstance(found[fault.caught], AssertionError)


def test_every_check_has_a_fault() -> None:
    caught = set().union(*(expected for _, expected in ENCODING_FAULTS))
    assert caught == {check.__name__.removeprefix("check_") for check in ENCODING_CHECKS}
    assert {fault.caught for fault in BACKEND_FAULTS} == {
        check.__name__.removeprefix("check_") for check in BACKEND_CHECKS
    }


def test_the_model_without_a_framework_has_every_kind() -> None:
    kinds = {weight.kind for weight in models.chain().weights().values()}
    assert kinds == set(LayerKind)
