"""The technique checks are tests too, so they are tested: each must catch its own fault."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from penjing.core.errors import ConfigError
from penjing.core.fields import Range
from penjing.core.model import LayerKind, Model, Observes, Weight
from penjing.core.registry import TECHNIQUES, Registry
from penjing.core.structures import Bitmask
from penjing.core.technique import Context, Technique, WeightTechnique
from penjing.core.tensors import Affine, Array, Codebook, Dense, Tensor
from penjing.testing import models, technique_cases
from penjing.testing.conformance import ALONE, ON_MODELS


@dataclass(frozen=True)
class Good(WeightTechnique):
    """Zero the first weights.

    References:
        None needed.
    """

    share: Annotated[float, Range(0, 1)] = 0.6
    """Share of zeros."""
    side: Literal["first"] = "first"
    """Which weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side != "first":
            raise ConfigError("side", f"must be first, got {self.side!r}")

    def encode(self, weight: Weight, context: Context) -> Tensor:
        del context
        array = weight.tensor.dense().copy()
        array.flat[: int(self.share * array.size)] = 0
        return Bitmask.encode(array)


@dataclass(frozen=True)
class Undocumented(Good):
    pass


@dataclass(frozen=True)
class NamesNoSource(Good):
    """Zero the first weights."""


@dataclass(frozen=True)
class Unexplained(Good):
    """References: x."""

    colour: str = "red"


TooManySettings = make_dataclass(
    "TooManySettings",
    [(letter, str, "") for letter in "abcdefg"],
    bases=(Good,),
    namespace={"__doc__": "References: x."},
    frozen=True,
)


class Thawed(Good):
    """References: x."""

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class ForgetsBounds(Good):
    """References: x."""

    strength: float = 1.0
    """How much."""


@dataclass(frozen=True)
class IgnoresBounds(Good):
    """References: x."""

    def __post_init__(self) -> None:
        if self.side != "first":
            raise ConfigError("side", "must be first")


@dataclass(frozen=True)
class IgnoresChoices(Good):
    """References: x."""

    def __post_init__(self) -> None:
        """Check nothing but the number."""
        if not isinstance(self.share, float) or not 0 <= self.share <= 1:
            raise ConfigError("share", f"must be in [0, 1], got {self.share!r}")


@dataclass(frozen=True)
class ChangesWhenRead(Good):
    """References: x."""

    share: Annotated[float, Range(0, 1)] = 0.6
    """Share of zeros."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "share", 0.6 if self.share == 0.3 else self.share / 2)


@dataclass(frozen=True)
class GrowsTinyWeights(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        array = weight.tensor.dense()
        if array.size != 1:
            return super().encode(weight, context)
        table = np.zeros(100, array.dtype)
        table[0] = array.item()
        return Codebook(np.zeros(array.shape, np.uint8), Dense(table))


@dataclass(frozen=True)
class FlattensColumns(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        if weight.tensor.shape[1:] == (1,):
            return Dense(weight.tensor.dense().ravel())
        return super().encode(weight, context)


@dataclass(frozen=True)
class WritesIntoArrays(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        del context
        array = weight.tensor.dense()
        array.flat[: int(self.share * array.size)] = 0
        return Bitmask.encode(array)


@dataclass(frozen=True)
class ChangesTheNative(Good):
    """References: x."""

    def apply(self, model: Model, context: Context) -> Model:
        after = super().apply(model, context)
        if "last.bias" in model.native.weights:
            model.native.weights["last.bias"].tensor.array[:] *= 0.5
        return after


@dataclass(frozen=True)
class UsesGlobalRandom(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        np.random.rand()  # noqa: NPY002
        return super().encode(weight, context)


COUNTER = iter(range(10**9))


@dataclass(frozen=True)
class NeverTheSame(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        del context
        array = weight.tensor.dense().copy()
        array.flat[: array.size // 2] = 0
        array.flat[-1:] = 1 + next(COUNTER) % 1000
        return Bitmask.encode(array)


@dataclass(frozen=True)
class OneStreamForAll(Good):
    """References: x."""

    def apply(self, model: Model, context: Context) -> Model:
        rng = context.rng("all weights")
        chosen = self.chosen(model, context).values()
        arrays = {weight.name: weight.tensor.dense() for weight in chosen}
        return model.with_weights(
            {n: Bitmask.encode(a * (rng.random(a.shape) < 0.3)) for n, a in arrays.items()}
        )


@dataclass(frozen=True)
class Widens(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        thinned = super().encode(weight, context).dense()
        thinned = thinned if weight.name == "odd" else thinned.astype(np.float64)
        array = thinned.copy()
        array.flat[: int(0.9 * array.size)] = 0
        return Bitmask.encode(array)


@dataclass(frozen=True)
class MakesNotANumber(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        array = super().encode(weight, context).dense()
        if weight.name == "last":
            array.flat[-1] = np.nan
        return Bitmask.encode(array)


@dataclass(frozen=True)
class DoesNothing(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        del context
        return weight.tensor


@dataclass(frozen=True)
class GrowsAsAllowed(Good):
    """References: x."""

    shrinks = False

    def encode(self, weight: Weight, context: Context) -> Tensor:
        del context
        keep = np.ones(weight.tensor.shape, bool)
        return Bitmask.encode(weight.tensor.dense(), keep)


@dataclass(frozen=True)
class IgnoresOnly(Good):
    """References: x."""

    def apply(self, model: Model, context: Context) -> Model:
        return super().apply(model, replace(context, only="*"))


@dataclass(frozen=True, slots=True, eq=False)
class Drifting(Dense):
    """Forgets what it is when it is trained."""

    offset: Array = field(default_factory=lambda: np.zeros(1, np.float32))

    def project(self, array: Array) -> Dense:
        return Dense(array + 1)


@dataclass(frozen=True)
class CannotBeTrained(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        pruned = super().encode(weight, context)
        assert isinstance(pruned, Bitmask)
        if weight.name != "first" or not isinstance(weight.tensor, Dense):
            return pruned
        return replace(pruned, values=Drifting(pruned.values.dense()))


@dataclass(frozen=True)
class StumblesOverCodes(Good):
    """References: x."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        if isinstance(weight.tensor, Affine):
            return Dense(weight.tensor.dense()[:1])
        return super().encode(weight, context)


@dataclass(frozen=True)
class GoesOnWithoutData(Good):
    """References: x."""

    needs = (Observes,)


@dataclass(frozen=True)
class ForConvolutions(Good):
    """References: x."""

    kinds = frozenset({LayerKind.CONV})


@dataclass(frozen=True)
class AcceptsAnything(ForConvolutions):
    """References: x."""

    def apply(self, model: Model, context: Context) -> Model:
        del context
        return model


def matrices_only() -> Model:
    """A model without convolutions."""
    weights = models.chain().native.weights
    return models.Arrays().open(models.Chain({n: weights[n] for n in ("first", "first.bias")}))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Technique]]:
    """Let recipes find the fakes by name."""
    fakes: dict[str, type[Technique]] = {}
    load, name_of = Registry.load, Registry.name_of

    def load_any(self: Registry, name: str) -> Any:
        return fakes.get(name) or load(self, name)

    def name_any(self: Registry, plugin: type) -> str:
        return "fake" if plugin in fakes.values() else name_of(self, plugin)

    monkeypatch.setattr(Registry, "load", load_any)
    monkeypatch.setattr(Registry, "name_of", name_any)
    return fakes


def broken(technique: type[Technique], builder: models.Build = models.chain) -> set[str]:
    """Names of the checks that this technique breaks."""
    found = set()
    for _, (check, cls, build) in technique_cases({"fake": technique}, {"it": builder}):
        try:
            check(cls, build)
        except AssertionError:
            found.add(check.__name__.removeprefix("check_"))
    return found


FAULTS: list[tuple[type[Technique], set[str]]] = [
    (Good, set()),
    (Undocumented, {"is_documented"}),
    (NamesNoSource, {"is_documented"}),
    (Unexplained, {"settings_are_explained"}),
    (TooManySettings, {"settings_are_explained"}),
    (Thawed, {"settings_are_frozen"}),
    (ForgetsBounds, {"numbers_are_bounded"}),
    (IgnoresBounds, {"numbers_are_bounded"}),
    (IgnoresChoices, {"choices_are_checked"}),
    (ChangesWhenRead, {"recipe_round_trip"}),
    (GrowsTinyWeights, {"odd_weights_are_fine"}),
    (FlattensColumns, {"odd_weights_are_fine"}),
    (
        ChangesTheNative,
        {"input_is_left_alone", "same_seed_same_bytes", "order_does_not_matter"},
    ),
    (WritesIntoArrays, {"input_is_left_alone"}),
    (UsesGlobalRandom, {"same_seed_same_bytes"}),
    (NeverTheSame, {"same_seed_same_bytes", "order_does_not_matter"}),
    (OneStreamForAll, {"order_does_not_matter"}),
    (Widens, {"shapes_and_types_are_kept"}),
    (MakesNotANumber, {"still_predicts", "takes_encoded_weights", "result_can_be_trained"}),
    (DoesNothing, {"default_makes_it_smaller"}),
    (GrowsAsAllowed, {"default_makes_it_smaller", "odd_weights_are_fine"}),
    (IgnoresOnly, {"only_is_respected"}),
    (CannotBeTrained, {"result_can_be_trained", "takes_encoded_weights"}),
    (StumblesOverCodes, {"takes_encoded_weights"}),
    (GoesOnWithoutData, {"asks_for_data"}),
    (ForConvolutions, set()),
]


@pytest.mark.parametrize(
    ("technique", "expected"), FAULTS, ids=[technique.__name__ for technique, _ in FAULTS]
)
def test_each_fault_is_caught(
    technique: type[Technique], expected: set[str], registered: dict[str, type[Technique]]
) -> None:
    registered["fake"] = technique
    assert broken(technique) == expected


def test_a_misfit_must_be_refused(registered: dict[str, type[Technique]]) -> None:
    registered["fake"] = ForConvolutions
    assert broken(ForConvolutions, matrices_only) == set()
    registered["fake"] = AcceptsAnything
    assert broken(AcceptsAnything, matrices_only) == {"misfit_is_refused"}


def test_every_check_has_a_fault() -> None:
    caught = set().union(*(expected for _, expected in FAULTS))
    known = {check.__name__.removeprefix("check_") for check in (*ALONE, *ON_MODELS)}
    assert caught == known


def test_installed_techniques_are_all_checked() -> None:
    named = {name.partition("-")[0] for name, _ in technique_cases()}
    assert named == set(TECHNIQUES.names())
