"""The commands, but for ``compress``; each only calls what Python users call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli import paths, techniques, templates
from penjing.cli.compress import OTHERS, compress
from penjing.cli.options import (
    AllowMissing,
    Data,
    File,
    Form,
    Json,
    LabelMetric,
    Packed,
    Shape,
    Target,
    check_metric,
    read_form,
    read_shapes,
    shapes_line,
)
from penjing.cli.running import BAD_INPUT, MET
from penjing.cli.screen import Screen, printable, size, table
from penjing.cli.train import train
from penjing.cli.transfer import transfer

if TYPE_CHECKING:
    from penjing.engine.serving import Unpacked

NO_MODELS = (".penjing", ".txt", *OTHERS[1:])
"""Endings of files that are no plain model."""
SHOWN_NAMES = 6
"""Weights whose names fit a line."""

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode="markdown",
)
app.command()(compress)
app.command()(train)
app.command()(transfer)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # as typer calls it
    if wanted:
        from importlib.metadata import version

        typer.echo(f"penjing {version('penjing')}")
        raise typer.Exit


@app.callback()
def penjing(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """State the budget, get the smallest model that provably keeps it.

    One .penjing file comes out, with the evidence inside. Begin with
    penjing compress model.onnx --data val.npz -o small.penjing
    """


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


@app.command()
def evaluate(  # noqa: PLR0913  # one parameter for each option
    file: File,
    *,
    data: Data,
    metric: LabelMetric = "auto",
    target: Target = None,
    allow_missing: AllowMissing = False,
    as_json: Json = False,
) -> int:
    """Measure a model on labelled data.

    Example: penjing evaluate small.penjing --data test.npz
    """
    from penjing import api

    paths.check_model(file)
    paths.check_data(data, "--data")
    check_metric(metric)
    found = api.evaluate(
        str(file), str(data), metric=metric, target=target, allow_missing=allow_missing
    )
    value = found.value
    screen = Screen(as_json)
    screen.json({"file": str(file), **found.to_dict()})
    if screen.talks:
        known = value.low < value.high
        interval = (
            f" ({100 * value.confidence:g}% interval {value.low:.4f} to {value.high:.4f})"
        )
        shown = f"{found.metric} {value.value:.4f}{interval if known else ''}"
        screen.out.print(f"{shown} on {_rows(found.rows)}", soft_wrap=True)
    return MET


@app.command()
def bench(  # noqa: PLR0913  # one parameter for each option
    file: File,
    *,
    seconds: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="About how long to measure.")
    ] = 2.0,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads to run on.")] = 1,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65536,
            help="Samples per run; one, unless the model is fixed to another number.",
        ),
    ] = None,
    shape: Shape = None,
    as_json: Json = False,
) -> int:
    """Time loading and running a model, on random inputs of its own shapes.

    Sizes that the model leaves open are chosen, and shown, unless --shape gives them.

    Example: penjing bench small.penjing
    """
    from penjing import api

    paths.check_model(file)
    shapes = read_shapes(shape or [])
    found = api.bench(str(file), seconds=seconds, threads=threads, batch=batch, shapes=shapes)
    screen = Screen(as_json)
    screen.json({"file": str(file), **found.to_dict()})
    if screen.talks:
        run = found.latency_ms
        rows = table("", "")
        rows.show_header = False
        rows.add_row("size", size(found.size_bytes))
        rows.add_row("load", f"{found.load_ms:.1f} ms")
        rows.add_row("run", f"{run.value:.4g} ms (median; {run.low:.4g} to {run.high:.4g})")
        rows.add_row("", f"batch of {found.batch}, {found.threads} thread(s)")
        if shapes or found.free_size is not None:
            rows.add_row("", printable(shapes_line(found.shapes)))
        if found.free_size is not None:
            rows.add_row("", f"free sizes set to {found.free_size}; give others with --shape")
        screen.out.print(rows)
    return MET


@app.command()
def inspect(file: Packed, *, as_json: Json = False) -> int:
    """Show what is inside a file: recipe, evidence, and what every byte is for.

    Example: penjing inspect small.penjing
    """
    from penjing.cli import inspecting

    paths.check_model(file)
    inspecting.show(Screen(as_json), file)
    return MET


@app.command()
def verify(file: Packed, *, as_json: Json = False) -> int:
    """Check that a file is whole and sound; exit code 2 if it is not.

    Example: penjing verify small.penjing
    """
    from penjing.artifact import inspection

    paths.check_model(file)
    found = inspection.verify(str(file))
    checks = [{"name": check.name, "detail": check.detail} for check in found.checks]
    screen = Screen(as_json)
    if screen.talks:
        for check in found.checks:
            screen.out.print(printable(f"ok  {check.name}: {check.detail}"), soft_wrap=True)
    if found.fault is not None:
        fault = found.fault
        screen.error(
            f"{file}: {fault.where}", fault.problem, fault.hint, BAD_INPUT, checks=checks
        )
        return BAD_INPUT
    screen.json({"file": str(file), "ok": True, "checks": checks})
    return MET


@app.command()
def predict(  # noqa: PLR0913  # one parameter for each option
    file: File,
    *,
    data: Data,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write, by its ending: .csv, .parquet or .npz.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Name of a label column, which is ignored: a labelled table can be used.",
        ),
    ] = None,
    allow_missing: AllowMissing = False,
    as_json: Json = False,
) -> int:
    """Run a model on new rows and write its outputs, one row for each.

    Columns are named as the outputs; of several values per row, name_0, name_1 and so on. To
    scores of classes a column with the predicted class is added.

    Example: penjing predict small.penjing --data new.csv -o out.parquet
    """
    from penjing import api
    from penjing.cli import predictions

    paths.check_model(file)
    paths.check_data(data, "--data")
    predictions.check_format(output)
    paths.check_output(output, "--output", (file, data))
    columns = predictions.write(
        api.predict(str(file), str(data), target=target, allow_missing=allow_missing),
        output,
    )
    screen = Screen(as_json)
    rows = len(next(iter(columns.values())))
    screen.json(
        {"file": str(file), "output": str(output), "rows": rows, "columns": list(columns)}
    )
    if screen.talks:
        names = ", ".join(columns) if len(columns) <= 12 else f"{len(columns)} columns"  # noqa: PLR2004  # fits a line
        screen.out.print(printable(f"{_rows(rows)} in {output}: {names}"), soft_wrap=True)
    return MET


def _integers(done: Unpacked) -> str:
    """Say which weights are integers, and what they are good for."""
    names = done.integers
    if not names:
        return "No weight is stored as 8-bit integers: all are floats"
    count = "1 weight is" if len(names) == 1 else f"{len(names):,} weights are"
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    shown = f"{count} 8-bit integers: {', '.join(names[:SHOWN_NAMES])}{more}"
    if done.quantized_activations:
        return shown
    return f"{shown}\nActivations are floats: this form is smaller, but no faster"


@app.command()
def unpack(
    file: Packed,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The .onnx file to write.")
    ],
    form: Form = "float",
    as_json: Json = False,
) -> int:
    """Write the plain ONNX model, which runs anywhere.

    Both forms give the same outputs. Where activations are quantized too, runtimes compute
    the qdq form in integers, which is faster.

    Example: penjing unpack small.penjing -o plain.onnx
    """
    from penjing import api

    wanted = read_form(form)
    paths.check_model(file)
    paths.check_output(output, "--output", (file,))
    paths.check_ending(output, "--output", NO_MODELS, "an .onnx file")
    done = api.unpack(str(file), str(output), form=wanted)
    screen = Screen(as_json)
    screen.json(
        {
            "file": str(file),
            "output": str(output),
            "form": form,
            "bytes": done.size_bytes,
            "integers": list(done.integers),
            "quantized_activations": done.quantized_activations,
        }
    )
    if screen.talks:
        screen.out.print(f"Wrote {output} ({size(done.size_bytes)})", soft_wrap=True)
        if form != "float":
            screen.out.print(printable(_integers(done)), soft_wrap=True)
    return MET


@app.command("techniques")
def list_techniques(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the settings of this technique.")
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List the techniques that recipes can use, or the settings of one.

    Example: penjing techniques gptq
    """
    techniques.show(Screen(as_json), name)
    return MET


@app.command("templates")
def list_templates(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the settings of this template.")
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List the templates that train can begin with, or the settings of one.

    Example: penjing templates mlp
    """
    templates.show(Screen(as_json), name)
    return MET
