"""Arguments and options that several commands share, with their help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penjing.core.errors import ConfigError
from penjing.core.registry import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMPARING = {"agreement", "deviation"}
"""Metrics that compare with an original.  Named here: help must not load every plug-in."""
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Write one JSON object to standard output, all else to standard error."
    ),
]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A .penjing file; a plain .onnx works too.")
]
Packed = Annotated[Path, typer.Argument(metavar="FILE", help="A .penjing file.")]
Metric = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"One of {', '.join(METRICS.names())}. Agreement with the original and deviation "
        "from it need no labels; auto chooses by outputs and labels.",
    ),
]
LabelMetric = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"One of {', '.join(sorted({*METRICS.names()} - COMPARING))}; auto chooses by "
        "outputs and labels.",
    ),
]
Target = Annotated[
    str | None, typer.Option(help="Name of the label column of a table.", metavar="COLUMN")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Accept missing values in float inputs.")
]
Data = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Rows as .npz, .npy, .csv or .parquet: arrays or columns named as the model's "
        "inputs (or x where there is one), labels y or --target.",
    ),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SIZES",
        help="Shape of an input, such as image=1x3x224x224; may be given for several.",
    ),
]

Form = Annotated[
    str,
    typer.Option(
        metavar="FORM",
        help="float for plain numbers, or qdq for the file's own 8-bit integers.",
    ),
]


def read_form(form: str) -> Literal["float", "qdq"]:
    """Give the form of an unpacked model.

    Raises:
        ConfigError: there is no such form.
    """
    if form == "float":
        return "float"
    if form == "qdq":
        return "qdq"
    raise ConfigError("--form", f"there is no form {form!r}", "known: float, qdq")


SIZES = re.compile(r"[0-9]{1,9}(x[0-9]{1,9})*")


def read_shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read shapes as ``--shape`` takes them.

    >>> read_shapes(["image=1x3x224x224"])
    {'image': (1, 3, 224, 224)}

    Raises:
        ConfigError: one is written otherwise.
    """
    shapes = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        if not name or not SIZES.fullmatch(sizes):
            raise ConfigError(
                "--shape", f"{text!r} is no NAME=SIZES", "such as image=1x3x224x224"
            )
        shapes[name] = tuple(map(int, sizes.split("x")))
    return shapes


def shapes_line(shapes: Mapping[str, Sequence[int]]) -> str:
    """Write shapes down; inputs that are one number are left out.

    >>> shapes_line({"image": (1, 3, 224, 224), "scale": ()})
    'image 1x3x224x224'
    """
    written = {name: "x".join(map(str, shape)) for name, shape in shapes.items() if shape}
    return ", ".join(f"{name} {sizes}" for name, sizes in written.items())


def check_metric(name: str) -> None:
    """Refuse a metric nobody knows.

    Raises:
        ConfigError: there is no metric of this name.
    """
    if name == "auto":
        return
    try:
        METRICS.load(name)
    except ConfigError as error:
        raise ConfigError("--metric", error.problem, error.hint) from None
