"""Bounds written next to the field they bound; one source for checking and for search."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from penjing.core.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Range:
    """Closed interval a number must lie in, and the interval a search may draw from."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"in [{self.low}, {self.high}]"


@cache
def bounds(cls: type[DataclassInstance]) -> dict[str, tuple[type, Range]]:
    """Map each bounded field of a dataclass to its number type and its range."""
    hints = get_type_hints(cls, include_extras=True)
    found: dict[str, tuple[type, Range]] = {}
    for field in fields(cls):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        number, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, Range):
                found[field.name] = (number, note)
    return found


@cache
def choices(cls: type[DataclassInstance]) -> dict[str, tuple[Any, ...]]:
    """Map each field with a ``Literal`` hint to the values it lists."""
    hints = get_type_hints(cls)
    return {
        field.name: get_args(hints[field.name])
        for field in fields(cls)
        if get_origin(hints[field.name]) is Literal
    }


def check_bounds(instance: DataclassInstance) -> None:
    """Raise ConfigError for the first field outside its declared range or choices."""
    for name, listed in choices(type(instance)).items():
        choice = getattr(instance, name)
        if choice not in listed:
            known = " or ".join(map(str, listed))
            raise ConfigError(name, f"must be {known}, got {choice!r}")
    for name, (number, allowed) in bounds(type(instance)).items():
        value: Any = getattr(instance, name)
        right_type = (
            isinstance(value, (int, float)) if number is float else type(value) is number
        )
        if not right_type or isinstance(value, bool) or value not in allowed:
            raise ConfigError(name, f"must be {number.__name__} {allowed}, got {value!r}")
