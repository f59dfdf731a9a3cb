"""``penjing templates``: everything shown is read from the templates themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penjing.cli.screen import printable, table
from penjing.cli.techniques import described, flowing, settings_table, show_family
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from penjing.cli.screen import Screen
    from penjing.core.architecture import ModelTemplate


def show(screen: Screen, name: str | None) -> None:
    """List all templates, or describe one.

    Raises:
        ConfigError: there is no template of this name.
    """
    show_family(screen, TEMPLATES, name, (describe, _list, _detail))


def describe(name: str, template: type[ModelTemplate]) -> dict[str, Any]:
    """Give what there is to know about a template, as plain data."""
    return {
        **described(name, template),
        "takes": [str(kind) for kind in template.kinds],
        "tasks": [str(task) for task in template.tasks],
        "learning_rate": template.learning_rate,
    }


def _list(screen: Screen, found: list[dict[str, Any]]) -> None:
    rows = table("template", "what it does", "takes")
    for each in found:
        rows.add_row(
            printable(each["name"]), printable(each["summary"]), ", ".join(each["takes"])
        )
    screen.out.print(rows)
    screen.out.print("\nSettings of one: penjing templates NAME")


def _detail(screen: Screen, each: dict[str, Any]) -> None:
    screen.out.print(f"{each['name']}: {each['summary']}")
    if each["description"]:
        screen.out.print(f"\n{flowing(each['description'])}")
    screen.out.print()
    if each["settings"]:
        screen.out.print(settings_table(each["settings"]))
    else:
        screen.out.print("It has no settings.")
    screen.out.print(f"\nTakes: {', '.join(each['takes'])}")
    screen.out.print(f"For: {', '.join(each['tasks'])}")
    if each["references"]:
        screen.out.print(f"\nReferences:\n{flowing(each['references'], one_each=True)}")
    screen.out.print(f"\nExample: penjing train {each['name']} --train train.npz -o base.onnx")
