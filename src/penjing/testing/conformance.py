"""What every technique promises, one promise per function.

A check takes a technique class and a model builder and raises AssertionError when the promise
is broken.  ``technique_cases`` pairs every check with every technique and every model, so a
new file in ``penjing/techniques``, or a plug-in installed beside it, is tested the moment it
exists.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import pickle
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.fields import bounds
from penjing.core.model import MATRIX_KINDS, LayerKind, Model, Observes, Weight
from penjing.core.recipe import Recipe, Step
from penjing.core.registry import TECHNIQUES
from penjing.core.technique import Context, Technique
from penjing.core.tensors import Array, Dense, Tensor
from penjing.core.training import Trains
from penjing.testing import models
from penjing.testing.encodings import check_projects_onto_itself
from penjing.testing.models import Build, context

Check = Callable[[type[Technique], Build], None]

MOST_SETTINGS = 8
OVERHEAD = 16
"""Bytes that a step and a zero point may add to a weight of a few numbers."""


def digest(model: Model) -> str:
    """Fingerprint of everything a model's encodings store."""
    seen = hashlib.sha256()

    def add(part: Tensor | Array) -> None:
        if isinstance(part, Tensor):
            seen.update(repr((type(part).__name__, part.shape, part.dtype)).encode())
            for inner in part.parts().values():
                add(inner)
        else:
            seen.update(repr((part.shape, part.dtype)).encode() + part.tobytes())

    for name, weight in sorted(model.weights().items()):
        seen.update(name.encode())
        add(weight.tensor)
    return seen.hexdigest()


def locked(model: Model) -> Model:
    """Return the same model holding copies of its weights that cannot be written to."""
    copies = {}
    for name, weight in model.weights().items():
        array = weight.tensor.dense().copy()
        array.flags.writeable = False
        copies[name] = Dense(array)
    return model.with_weights(copies)


def reordered(model: Model) -> Model:
    """Return the same model with its weights listed the other way round."""
    kind = type(model.backend)

    def read_weights(self: Any, native: Any) -> dict[str, Weight]:
        return dict(reversed(kind.read_weights(self, native).items()))

    backend = copy.copy(model.backend)
    subclass = type(kind.__name__, (kind,), {"read_weights": read_weights, "__slots__": ()})
    object.__setattr__(backend, "__class__", subclass)  # frozen backends allow no other way
    return Model(model.native, backend, model.changed)


def apply(technique: type[Technique], model: Model, **settings: Any) -> Model:
    """Run a technique with its default settings and everything it could ask for."""
    return technique().apply(model, context(model.decoded(), **settings))


def check_is_documented(technique: type[Technique], build: Build) -> None:
    """Has a docstring of its own with a reference; works without settings."""
    del build
    assert technique.__doc__, "no docstring"
    assert not technique.__doc__.startswith(f"{technique.__name__}("), "no docstring"
    assert "References:" in technique.__doc__, "docstring names no paper or standard"
    technique()


def check_settings_are_explained(technique: type[Technique], build: Build) -> None:
    """Has at most eight settings, each with a string below it that says what it is."""
    del build
    assert len(fields(technique)) <= MOST_SETTINGS, f"more than {MOST_SETTINGS} settings"
    explained: set[str] = set()
    for cls in technique.__mro__[:-1]:
        if not issubclass(cls, Technique):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(node, ast.ClassDef)
        for field, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    explained.add(field.target.id)
    silent = {field.name for field in fields(technique)} - explained
    assert not silent, f"no help string below: {', '.join(sorted(silent))}"


def check_settings_are_frozen(technique: type[Technique], build: Build) -> None:
    """Settings cannot change, compare by value and can be hashed."""
    del build
    one, two = technique(), technique()
    assert one == two
    assert hash(one) == hash(two)
    for name in [field.name for field in fields(technique)] or ["anything"]:
        try:
            setattr(one, name, None)
        except FrozenInstanceError:
            continue
        raise AssertionError(f"{name} can be reassigned")


def check_numbers_are_bounded(technique: type[Technique], build: Build) -> None:
    """Every number states its range, and values outside raise an error naming the field."""
    del build
    known = bounds(technique)
    for field in fields(technique):
        value = getattr(technique(), field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        assert field.name in known, f"{field.name}: add Annotated[..., Range(low, high)]"
        number, allowed = known[field.name]
        for wrong in (number(allowed.high + 1), number(allowed.low - 1), "text", None):
            refuses(technique, field.name, wrong)


def check_choices_are_checked(technique: type[Technique], build: Build) -> None:
    """A setting with a list of choices refuses anything else, naming the field."""
    del build
    for name, hint in get_type_hints(technique).items():
        if get_origin(hint) is Literal and name in {f.name for f in fields(technique)}:
            assert getattr(technique(), name) in get_args(hint), f"{name}: default not listed"
            refuses(technique, name, "none of these")


def refuses(technique: type[Technique], name: str, wrong: object) -> None:
    """Assert that a value of a setting is refused with a ConfigError that names it."""
    try:
        technique(**{name: wrong})
    except ConfigError as error:
        assert error.where == name, f"the error names {error.where}, not {name}"
    else:
        raise AssertionError(f"{name}={wrong!r} was accepted")


def check_recipe_round_trip(technique: type[Technique], build: Build) -> None:
    """Survives being written to a recipe in YAML and read back."""
    del build
    recipe = Recipe((Step(technique(), only="layer*"),), seed=7)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def check_odd_weights_are_fine(technique: type[Technique], build: Build) -> None:
    """Takes weights that are tiny, constant, empty, of many axes, grouped or not float32."""
    del build
    kinds = [kind for kind in LayerKind if kind in technique.kinds]
    for name, array in models.odd_arrays().items():
        for groups in (1, 2):
            if groups > 1 and (len(array) % groups or not array.size):
                continue
            for kind in kinds if array.shape else ():
                weight = Weight("odd", kind, Dense(array), groups)
                _check_odd(technique, weight, f"{name}, {kind}, {groups} groups")


def _check_odd(technique: type[Technique], weight: Weight, what: str) -> None:
    array = weight.tensor.dense()
    model = Model(models.Chain({"odd": weight}), models.Arrays())
    if array.size and weight.kind in MATRIX_KINDS:
        seen = context(model.decoded())
    else:
        matrices = models.chain()
        seen = Context(observation=context(matrices).observation)
    try:
        after = technique().apply(model, seen).weights()["odd"].tensor
    except UnsupportedError:  # refuses such weights altogether, which may be right
        return
    dense = after.dense()
    assert dense.shape == after.shape == array.shape, what
    assert dense.dtype in (array.dtype, np.float32), what
    assert np.isfinite(dense).all(), what
    more = after.nbytes - weight.tensor.nbytes
    assert more <= OVERHEAD, f"{what}: {more} bytes more than before"


def check_input_is_left_alone(technique: type[Technique], build: Build) -> None:
    """Does not change the model it is given, nor the arrays in it."""
    model = build()
    before, native_before = digest(model), digest(model.decoded())
    held = locked(model)
    try:
        apply(technique, held)
    except ValueError as error:
        assert "read-only" not in str(error), "writes into the arrays it is given"
        raise
    apply(technique, model)
    assert digest(model) == before, "the input model was modified"
    assert digest(model.decoded()) == native_before, "the native model was modified"


def check_same_seed_same_bytes(technique: type[Technique], build: Build) -> None:
    """Gives the same bytes for the same seed, and leaves the global generator alone."""
    model, state = build(), pickle.dumps(np.random.get_state())
    first = digest(apply(technique, model, seed=7))
    assert digest(apply(technique, model, seed=7)) == first, "not reproducible"
    assert pickle.dumps(np.random.get_state()) == state, "global random state used"


def check_order_does_not_matter(technique: type[Technique], build: Build) -> None:
    """Gives the same bytes when the model lists its weights in another order."""
    model = build()
    seen = context(model, seed=7)
    first = digest(technique().apply(model, seen))
    assert digest(technique().apply(reordered(model), seen)) == first


def check_shapes_and_types_are_kept(technique: type[Technique], build: Build) -> None:
    """Keeps names, shapes and number types of the decoded weights."""
    model = build()
    after = apply(technique, model).weights()
    assert list(after) == list(model.weights())
    for name, weight in model.weights().items():
        old, new = weight.tensor.dense(), after[name].tensor.dense()
        assert (new.shape, new.dtype) == (old.shape, old.dtype), name
        assert (after[name].tensor.shape, after[name].tensor.dtype) == (new.shape, new.dtype)


def check_still_predicts(technique: type[Technique], build: Build) -> None:
    """Weights and outputs stay finite, and outputs keep their names and shapes."""
    model = build()
    before = model.predict(models.inputs(model))
    changed = apply(technique, model)
    for name, weight in changed.weights().items():
        assert np.isfinite(weight.tensor.dense()).all(), name
    after = changed.predict(models.inputs(model))
    assert {n: a.shape for n, a in after.items()} == {n: a.shape for n, a in before.items()}
    assert all(np.isfinite(output).all() for output in after.values())


def check_default_makes_it_smaller(technique: type[Technique], build: Build) -> None:
    """With default settings the model stores fewer bytes; never more."""
    model = build()
    after = apply(technique, model).nbytes
    assert after < model.nbytes if technique.shrinks else after <= model.nbytes


def check_only_is_respected(technique: type[Technique], build: Build) -> None:
    """Touches no weight outside the ``only`` pattern, and says so when none is left."""
    model = build()
    for name in technique().chosen(model, Context()):
        assert set(apply(technique, model, only=name).changed) <= {name}
    try:
        apply(technique, model, only="no such weight")
    except UnsupportedError as error:
        assert "no such weight" in str(error)
    else:
        raise AssertionError("silently did nothing")


def check_result_can_be_trained(technique: type[Technique], build: Build) -> None:
    """What it makes of a weight can be projected onto, and projecting again changes nothing."""
    for tensor in apply(technique, build()).changed.values():
        check_projects_onto_itself(tensor)


def check_takes_encoded_weights(technique: type[Technique], build: Build) -> None:
    """Works on weights that each other technique has encoded before."""
    for other, encoded in _encoded_by_all(build):
        after = technique().apply(encoded, _seen(build))
        for name, weight in after.weights().items():
            tensor, before = weight.tensor, encoded.weights()[name].tensor
            what = f"{name} after {other}"
            assert tensor.shape == before.shape == tensor.dense().shape, what
            assert np.isfinite(tensor.dense()).all(), what
            check_projects_onto_itself(tensor)


@cache
def _encoded_by_all(build: Build) -> tuple[tuple[str, Model], ...]:
    """Give a model as each technique that fits makes it; once for all who ask."""
    model = build()
    known = {name: TECHNIQUES.load(name) for name in TECHNIQUES.names()}
    return tuple(
        (name, other().apply(model, _seen(build)))
        for name, other in known.items()
        if fits(other, model)
    )


@cache
def _seen(build: Build) -> Context:
    """Give everything a technique could ask for about a model as it is built."""
    return context(build())


def check_asks_for_data(technique: type[Technique], build: Build) -> None:
    """A technique that needs data, to calibrate or to train on, says so if there are none."""
    if not {Observes, Trains} & set(technique.needs):
        return
    try:
        technique().apply(build(), Context())
    except UnsupportedError as error:
        assert "data" in str(error), "does not say that data are missing"
    else:
        raise AssertionError("went on without the data it needs")


def check_misfit_is_refused(technique: type[Technique], build: Build) -> None:
    """A model it cannot work on is refused at once, with the reason."""
    model = build()
    try:
        technique.check_supports(model)
        technique().apply(model, Context())
    except UnsupportedError as error:
        assert error.problem
    else:
        raise AssertionError("should have been refused")


def fits(technique: type[Technique], model: Model) -> bool:
    """Tell whether a model has what a technique needs, and a weight that it takes."""
    if not all(isinstance(model.backend, need) for need in technique.needs):
        return False
    try:
        return bool(technique().chosen(model, Context()))
    except UnsupportedError:
        return False


ALONE: tuple[Check, ...] = (
    check_is_documented,
    check_settings_are_explained,
    check_settings_are_frozen,
    check_numbers_are_bounded,
    check_choices_are_checked,
    check_recipe_round_trip,
    check_odd_weights_are_fine,
)
"""Checks that bring their own weights or need none."""
ON_MODELS: tuple[Check, ...] = (
    check_input_is_left_alone,
    check_same_seed_same_bytes,
    check_order_does_not_matter,
    check_shapes_and_types_are_kept,
    check_still_predicts,
    check_default_makes_it_smaller,
    check_only_is_respected,
    check_result_can_be_trained,
    check_takes_encoded_weights,
    check_asks_for_data,
)


def technique_cases(
    techniques: dict[str, type[Technique]] | None = None,
    builders: dict[str, Build] | None = None,
) -> Iterator[tuple[str, tuple[Check, type[Technique], Build]]]:
    """Yield ``(id, (check, technique, build))`` for every combination.

    Args:
        techniques: by name; all that are installed, if None.
        builders: of the models to try them on; all whose framework is there, if None.
    """
    if techniques is None:
        techniques = {name: TECHNIQUES.load(name) for name in TECHNIQUES.names()}
    known = models.builders() if builders is None else builders
    opened = {kind: build() for kind, build in known.items()}
    for name, technique in techniques.items():
        for check in ALONE:
            yield f"{name}-{check.__name__}", (check, technique, models.chain)
        for kind, build in known.items():
            checks = ON_MODELS if fits(technique, opened[kind]) else (check_misfit_is_refused,)
            for check in checks:
                yield f"{name}-{kind}-{check.__name__}", (check, technique, build)
