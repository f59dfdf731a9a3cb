"""``penjing techniques``: everything shown is read from the techniques themselves."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

from penjing.cli.screen import printable, table
from penjing.core.errors import ConfigError
from penjing.core.fields import bounds, choices
from penjing.core.registry import TECHNIQUES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.table import Table

    from penjing.cli.screen import Screen
    from penjing.core.registry import Registry
    from penjing.core.technique import Technique


def show(screen: Screen, name: str | None) -> None:
    """List all techniques, or describe one.

    Raises:
        ConfigError: there is no technique of this name.
    """
    show_family(screen, TECHNIQUES, name, (describe, _list, _detail))


Describe = Callable[[str, Any], dict[str, Any]]
List = Callable[["Screen", list[dict[str, Any]]], None]
Detail = Callable[["Screen", dict[str, Any]], None]


def show_family(
    screen: Screen, family: Registry, name: str | None, ways: tuple[Describe, List, Detail]
) -> None:
    """List the plug-ins of a family, or describe one, in the family's own ways.

    Raises:
        ConfigError: there is no plug-in of this name.
    """
    describe_one, list_all, detail = ways
    plural = f"{family.noun}s"
    if name is None:
        found = [describe_one(known, family.load(known)) for known in family.names()]
    else:
        try:
            found = [describe_one(name, family.load(name))]
        except ConfigError as error:
            problem = f"no {family.noun} is called {name!r}"
            raise ConfigError(plural, problem, error.hint) from None
    screen.json({plural: found})
    if not screen.talks:
        return
    if name is None:
        list_all(screen, found)
    else:
        detail(screen, found[0])


def describe(name: str, technique: type[Technique]) -> dict[str, Any]:
    """Give what there is to know about a technique, as plain data."""
    return {
        **described(name, technique),
        "kinds": sorted(str(kind) for kind in technique.kinds),
        "needs": [need.__name__ for need in technique.needs],
    }


def described(name: str, technique: type[DataclassInstance]) -> dict[str, Any]:
    """Give what docstring and fields of a plug-in tell, as plain data.

    Its settings have ``name, type, default, low, high, choices, help``; what does not apply
    is None.
    """
    summary, _, rest = (inspect.getdoc(technique) or "").partition("\n")
    text, _, references = rest.partition("References:\n")
    helps = setting_helps(technique)
    ranges, listed = bounds(technique), choices(technique)
    return {
        "name": name,
        "summary": summary,
        "description": text.strip(),
        "references": textwrap.dedent(references).strip(),
        "settings": [
            {
                "name": field.name,
                "type": _type(field, technique),
                "default": None if field.default is MISSING else field.default,
                "low": ranges[field.name][1].low if field.name in ranges else None,
                "high": ranges[field.name][1].high if field.name in ranges else None,
                "choices": list(listed[field.name]) if field.name in listed else None,
                "help": helps.get(field.name, ""),
            }
            for field in fields(technique)
        ],
    }


def setting_helps(technique: type) -> dict[str, str]:
    """Read the string below each field, which Python itself does not keep."""
    found: dict[str, str] = {}
    for base in reversed(technique.__mro__[:-1]):
        found |= _own_helps(base)
    return found


def _own_helps(technique: type) -> dict[str, str]:
    """Read those of one class, without what it inherits."""
    try:
        source = textwrap.dedent(inspect.getsource(technique))
    except (OSError, TypeError):  # from a zip, or made at run time
        return {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = " ".join(below.value.value.split())
    return found


def _type(field: Field[Any], technique: type[DataclassInstance]) -> str:
    if field.name in bounds(technique):
        return bounds(technique)[field.name][0].__name__
    if field.name in choices(technique):
        return "choice"
    return field.type if isinstance(field.type, str) else field.type.__name__


def _list(screen: Screen, found: list[dict[str, Any]]) -> None:
    rows = table("technique", "what it does", "needs data")
    for each in found:
        # Plain text: a plug-in's brackets are no markup.
        needs = "yes" if each["needs"] else ""
        rows.add_row(printable(each["name"]), printable(_spoken(each["summary"])), needs)
    screen.out.print(rows)
    screen.out.print("\nSettings of one: penjing techniques NAME")


def _detail(screen: Screen, each: dict[str, Any]) -> None:
    screen.out.print(f"{each['name']}: {_spoken(each['summary'])}")
    if each["description"]:
        screen.out.print(f"\n{flowing(_spoken(each['description']))}")
    screen.out.print()
    screen.out.print(settings_table(each["settings"]))
    screen.out.print(f"\nWorks on: {', '.join(each['kinds'])}")
    if each["needs"]:
        screen.out.print("Needs calibration data; labels are not needed.")
    if each["references"]:
        screen.out.print(f"\nReferences:\n{flowing(each['references'], one_each=True)}")
    screen.out.print(f"\nIn a recipe:\n  steps:\n    - use: {each['name']}")


def _spoken(text: str) -> str:
    """Take marks of code off, which are for documents."""
    return text.replace("``", "")


def settings_table(settings: list[dict[str, Any]]) -> Table:
    """Put settings into a table."""
    rows = table("setting", "default", "allowed", "meaning")
    for setting in settings:
        rows.add_row(
            setting["name"], str(setting["default"]), allowed(setting), setting["help"]
        )
    return rows


def flowing(text: str, *, one_each: bool = False) -> str:
    """Join the lines of paragraphs, which a narrower or wider screen breaks elsewhere.

    Lists and what is indented stay as they are; with ``one_each``, a full stop at the end of
    a line ends the paragraph.
    """
    found: list[str] = []
    goes_on = False
    for line in text.splitlines():
        starts = not line.strip() or line.startswith((" ", "*", "-"))
        if goes_on and not starts:
            found[-1] += f" {line}"
        else:
            found.append(line)
        goes_on = not starts and not (one_each and line.endswith("."))
    return "\n".join(found)


def allowed(setting: dict[str, Any]) -> str:
    """Say which values a setting may have."""
    if setting["choices"] is not None:
        return " | ".join(map(str, setting["choices"]))
    if setting["low"] is not None:
        return f"{setting['type']}, {setting['low']} to {setting['high']}"
    return "true | false" if setting["type"] == "bool" else str(setting["type"])
