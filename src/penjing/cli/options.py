"""Arguments and options that several commands share, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penjing.core.errors import ConfigError
from penjing.core.registry import METRICS

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
        begun = [known for known in METRICS.names() if known.startswith(name.lower())]
        hint = f"did you mean {' or '.join(map(repr, begun))}?" if begun and name else ""
        raise ConfigError(
            "--metric", f"no metric is called {name!r}", hint or error.hint
        ) from None
