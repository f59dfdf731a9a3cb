"""A recipe: techniques in the order they are applied, readable from YAML and back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, TypeVar

from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.model import Observes
from penjing.core.registry import TECHNIQUES
from penjing.core.technique import Context, Observation, Technique
from penjing.core.training import Distillation, Optimization, TrainingSettings, Trains

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    from penjing.core.model import Model
    from penjing.core.training import Trainer

T = TypeVar("T")

SECTIONS: dict[str, Any] = {"training": Optimization, "distillation": Distillation}
"""Sections about training, and what holds their settings."""
LARGEST_SEED = 2**32 - 1
EXAMPLE = "a recipe holds 'steps:' and below it lines such as '- use: round_to_nearest'"
WORDS = {dict: "a table of settings", list: "a list", str: "text", int: "a whole number"}


@dataclass(frozen=True, slots=True)
class Step:
    """One technique, and the weights it is applied to."""

    technique: Technique
    only: str = "*"
    """Pattern of weight names, with ``*``, ``?`` and ``[...]``."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order.

    >>> Recipe.from_dict({"steps": [{"use": "nm_sparsity", "keep": 1}]})
    Recipe(steps=(Step(technique=NMSparsity(keep=1, out_of=4), only='*'),), seed=0)
    """

    steps: tuple[Step, ...]
    seed: int = 0
    settings: TrainingSettings = field(default_factory=TrainingSettings, repr=False)
    """How steps that train go about it: the sections ``training`` and ``distillation``."""
    source: str = field(default="", compare=False, repr=False)
    """The file it was read from, for errors."""

    @property
    def trains(self) -> bool:
        """Whether a step needs training data."""
        return any(Trains in step.technique.needs for step in self.steps)

    def check_supports(
        self,
        model: Model,
        observation: Observation | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        """Raise UnsupportedError, before any work is done, if a step cannot run.

        Args:
            model: what the recipe is meant for.
            observation: what calibration showed; None if there were no calibration data.
            trainer: trains on the rows given for that; None if there are none.
        """
        observed = observation is not None and observation.statistics
        for number, step in enumerate(self.steps):
            with self._placing_errors(number):
                step.technique.check_supports(model)
            if Observes in step.technique.needs and not observed:
                raise UnsupportedError(
                    self._place(number),
                    f"{_name(step.technique)} needs calibration data",
                    "give some inputs of the model; labels are not needed",
                )
            if Trains in step.technique.needs and trainer is None:
                raise UnsupportedError(
                    self._place(number),
                    f"{_name(step.technique)} needs training data",
                    "give rows to train on, with --train or train=",
                )

    def apply(
        self,
        model: Model,
        observation: Observation | None = None,
        trainer: Trainer | None = None,
    ) -> Model:
        """Check that every step can run on this model, then apply them in order.

        Args:
            model: stays as it is.
            observation: what calibration showed; None if there were no calibration data.
            trainer: trains on the rows given for that; None if there are none.

        Raises:
            UnsupportedError: a step cannot run, or finds no weight to work on.
        """
        self.check_supports(model, observation, trainer)
        seen = observation or Observation({}, {})
        if trainer is not None:
            trainer = trainer.configured(self.settings, self.seed)
        for number, step in enumerate(self.steps):
            context = Context(self.seed, step.only, seen, trainer)
            with self._placing_errors(number):
                model = step.technique.apply(model, context)
        return model

    def _place(self, number: int) -> str:
        return f"{self.source}, steps[{number}]" if self.source else f"steps[{number}]"

    @contextmanager
    def _placing_errors(self, number: int) -> Iterator[None]:
        """Say which step an error of a technique as a whole is about."""
        technique = self.steps[number].technique
        try:
            yield
        except UnsupportedError as error:
            if error.where != type(technique).__name__:
                raise
            problem = f"{_name(technique)} {error.problem}"
            raise UnsupportedError(self._place(number), problem, error.hint) from error

    @classmethod
    def from_dict(cls, data: object, where: str = "") -> Recipe:
        """Build a recipe from plain data.

        Args:
            data: ``{"seed": 0, "steps": [{"use": name, "only": pattern, setting: value}]}``.
            where: name of the source; errors begin with it.

        Raises:
            ConfigError: ``where`` names the place, for example ``r.yaml, steps[1].sparsity``.
        """
        prefix = f"{where}, " if where else ""
        if data is None:
            raise ConfigError(where or "recipe", "is empty", EXAMPLE)
        hint = "write 'steps:' above the list" if isinstance(data, list) else EXAMPLE
        table = _expect(where or "recipe", data, dict, hint)
        _check_keys(prefix, table, ("seed", "steps", *SECTIONS))
        if "steps" not in table:
            raise ConfigError(
                where or "recipe", "has no steps", "add 'steps:' with a list of techniques"
            )
        steps = _expect(f"{prefix}steps", table["steps"], list, EXAMPLE)
        seed = _expect(f"{prefix}seed", table.get("seed", 0), int)
        if not 0 <= seed <= LARGEST_SEED:
            raise ConfigError(
                f"{prefix}seed",
                f"must be in [0, {LARGEST_SEED}], got {shortened(seed)}",
                "any whole number in that range will do, such as 0",
            )
        return cls(
            tuple(_read_step(f"{prefix}steps[{i}]", item) for i, item in enumerate(steps)),
            seed,
            TrainingSettings(
                **{name: _read_section(f"{prefix}{name}", name, table) for name in SECTIONS}
            ),
            where,
        )

    def to_dict(self) -> dict[str, Any]:
        """Turn the recipe into plain data; the inverse of ``from_dict``.

        Sections that say nothing but the defaults are left out where nothing is trained.
        """
        sections = {name: asdict(getattr(self.settings, name)) for name in SECTIONS}
        return {
            "seed": self.seed,
            **(sections if self.trains or self.settings != TrainingSettings() else {}),
            "steps": [
                {
                    "use": TECHNIQUES.name_of(type(step.technique)),
                    "only": step.only,
                    **asdict(step.technique),
                }
                for step in self.steps
            ],
        }

    @classmethod
    def from_yaml(cls, text: str, where: str = "recipe") -> Recipe:
        """Read a recipe from the text of a YAML file.

        Args:
            text: content of the file.
            where: its name, for errors.

        Raises:
            ConfigError: ``where`` names the file and the line or the setting.
        """
        return cls.from_dict(_read_yaml(text, where), where)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Recipe:
        """Read a recipe from a YAML file.

        Raises:
            ConfigError: it cannot be read; ``where`` names the file and the place in it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                str(path), f"cannot be read: {error.strerror}", "give a YAML file with steps"
            ) from error
        except UnicodeDecodeError:
            raise ConfigError(str(path), "is not a text file", "recipes are YAML") from None
        return cls.from_yaml(text, str(path))

    def to_yaml(self) -> str:
        """Write the recipe as YAML; the inverse of ``from_yaml``."""
        import yaml  # slow to import, and most runs read no recipe

        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text


def _read_section(where: str, name: str, table: dict[str, Any]) -> Any:
    """Read one of the sections about training; its settings may be left out, or it all."""
    kind = SECTIONS[name]
    given = _expect(where, table.get(name, {}), dict, "write its settings below it, indented")
    _check_keys(f"{where}.", given, [field.name for field in fields(kind)])
    try:
        return kind(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error.where}", error.problem, error.hint) from None


def _read_step(where: str, item: object) -> Step:
    table = dict(_expect(where, item, dict, EXAMPLE))
    if "use" not in table:
        raise ConfigError(where, "names no technique", "add a line such as 'use: low_rank'")
    use = _expect(f"{where}.use", table.pop("use"), str)
    only = _expect(f"{where}.only", table.pop("only", "*"), str)
    try:
        technique = TECHNIQUES.load(use)
    except ConfigError as error:
        raise ConfigError(
            f"{where}.use", f"no technique is called {use!r}", error.hint
        ) from None
    _check_keys(f"{where}.", table, [field.name for field in fields(technique)])
    for key, value in table.items():
        if isinstance(value, (dict, list)):
            problem = f"must be one value, got {shortened(value)}"
            raise ConfigError(f"{where}.{key}", problem, _settings_of(use))
    try:
        return Step(technique(**table), only)
    except ConfigError as error:
        hint = error.hint or _settings_of(use)
        raise ConfigError(f"{where}.{error.where}", error.problem, hint) from None


def _settings_of(name: str) -> str:
    return f"'penjing techniques {name}' tells what each setting may be"


def _name(technique: Technique) -> str:
    """Give the name of a technique in recipes; that of its class where it has none."""
    try:
        return TECHNIQUES.name_of(type(technique))
    except ConfigError:
        return type(technique).__name__


def _expect(where: str, value: object, kind: type[T], hint: str = "") -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(where, f"must be {WORDS[kind]}, got {shortened(value)}", hint)
    return value


def _check_keys(prefix: str, table: Iterable[object], known: Iterable[str]) -> None:
    names = sorted(known)
    for key in table:
        if key not in names:
            close = get_close_matches(str(key), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
            raise ConfigError(f"{prefix}{key}", "no such setting", hint)


def _read_yaml(text: str, where: str) -> object:
    import yaml  # slow to import, and most runs read no recipe

    try:
        return yaml.load(text, _loader())  # noqa: S506  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{where}{place}", f"not valid YAML: {error.problem}", EXAMPLE
        ) from None
    except RecursionError:
        raise ConfigError(where, "not a recipe: it nests too deeply", EXAMPLE) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date or number
        raise ConfigError(where, f"not valid YAML: {error}", EXAMPLE) from None


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses tags, and a setting given twice: YAML would quietly take the last."""

        def fetch_tag(self) -> None:
            raise yaml.MarkedYAMLError(
                problem="recipes use no tags", problem_mark=self.get_mark()
            )

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # as the base class
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key.value, str):
                    continue
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader
