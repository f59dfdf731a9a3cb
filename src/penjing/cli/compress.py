"""``penjing compress``: the main job."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli import paths
from penjing.cli.options import AllowMissing, Data, Json, Metric, Target, check_metric
from penjing.cli.progress import SHARES, SHARES_WITH_TRAINING, SearchProgress, kept_training
from penjing.cli.running import LIMIT_MISSED, MET
from penjing.cli.saving import save_or_rescue
from penjing.cli.screen import Screen, size
from penjing.core.budget import (
    Budget,
    parse_confidence,
    parse_duration,
    parse_share,
    parse_size,
)
from penjing.core.errors import ConfigError, OutputError
from penjing.core.model import ACTIVATION_SCALES
from penjing.core.processes import is_main
from penjing.core.recipe import LARGEST_SEED, Recipe
from penjing.engine.job import Effort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penjing.engine.job import Result

LARGE_DROP = 10.0
"""In points: a limit as loose is seldom meant."""
OTHERS = (".onnx", ".npz", ".npy", ".csv", ".tsv", ".parquet", ".html", ".yaml", ".json")
"""Endings of other kinds of files: a .penjing file under such a name deceives."""
LIMITS, DATA, SEARCH, OUTPUT = "Limits", "Data", "Search", "Output"


@dataclass(frozen=True, slots=True)
class Files:
    """Every path the command was given."""

    model: Path
    data: Path
    calibration: Path | None
    test: Path | None
    train: Path | None
    teachers: Sequence[Path]
    recipe: Path | None
    output: Path
    report: Path | None

    def check(self) -> None:
        """Refuse what cannot be read or written, before any work is done."""
        paths.check_model(self.model, to_compress=True)
        paths.check_data(self.data, "--data")
        paths.check_data(self.calibration, "--calibration")
        paths.check_data(self.test, "--test")
        paths.check_data(self.train, "--train")
        for teacher in self.teachers:
            paths.check_model(teacher, to_compress=True)
        inputs = (
            self.model,
            self.data,
            self.calibration,
            self.test,
            self.train,
            *self.teachers,
            self.recipe,
        )
        paths.check_output(self.output, "--output", inputs)
        paths.check_ending(self.output, "--output", OTHERS, "a .penjing file")
        paths.check_report(self.report, inputs, self.output)


def compress(  # noqa: PLR0913  # one parameter for each option
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The model: an .onnx, .keras or .pt2 file.")
    ],
    *,
    data: Data,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Unlabelled rows for calibration, instead of a part of --data.",
            rich_help_panel=DATA,
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rows for the certificate, instead of a part of --data; nothing else sees "
            "them.",
            rich_help_panel=DATA,
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rows to train on, with labels or without; nothing else sees them.",
            rich_help_panel=DATA,
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="A model with the same inputs and outputs to learn from as well. Several, "
            "each with --teacher, speak as one with the original.",
            rich_help_panel=DATA,
        ),
    ] = None,
    target: Target = None,
    allow_missing: AllowMissing = False,
    metric: Metric = "auto",
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="How much worse the metric may get. 0.5% means 0.5 points for metrics in "
            "[0, 1], such as accuracy, and is relative to the original's value for the others, "
            "such as rmse. 0.5% unless a limit is given.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Largest file allowed, for example 100kB or 1.5MB.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    confidence: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Confidence of the certificate; none judges point estimates.",
            rich_help_panel=LIMITS,
        ),
    ] = "95%",
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Apply the steps of this YAML file instead of searching.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    effort: Annotated[
        Effort,
        typer.Option(
            help="How far to go: quantize what is there (post-training), train towards the "
            "original's outputs (reconstruct) or the labels of --train (train); auto takes "
            "the cheapest that meets the budget.",
            rich_help_panel=SEARCH,
        ),
    ] = "auto",
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            metavar="NUMBER",
            help="Of every random choice; the same seed gives the same file. 0, or the "
            "recipe's own, unless given.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End the search after 90s, 1m30s or 1h with the best so far; proof and timing "
            "come after it. A recipe that is not done by then is an error.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where unfinished training is kept, for the same command to go on from; the "
            "output's name with .checkpoints unless given. Removed at the end, unless the "
            "search was cut short.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse a result in which something large was left uncompressed.",
            rich_help_panel=SEARCH,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write; the model's name with .penjing, here, unless given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the evidence as one HTML page, too.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Say nothing but errors.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: Json = False,
) -> int:
    """Find the smallest file that provably keeps the model's quality.

    The result is certified on rows the search never saw. Ctrl-C ends the search and keeps
    the best result so far.

    Exit codes: 0 every limit is met; 3 the best result is saved, but a limit is missed or
    undecided; 2 bad input or usage, or Ctrl-C before there was a result: nothing is written;
    1 a fault of penjing.

    Example: penjing compress model.onnx --data val.npz --max-drop 0.5% -o small.penjing
    """
    from penjing import api

    target_file = output or Path(f"{model.stem}.penjing")
    teachers = teacher or []
    files = Files(model, data, calibration, test, train, teachers, recipe, target_file, report)
    files.check()
    folder = paths.checkpoints_of(target_file, checkpoints)
    paths.check_folder(folder, "--checkpoints")
    steps = None if recipe is None else Recipe.load(recipe)
    chosen_seed = api.seed_of(seed, steps)
    budget = _budget(max_drop, max_size, confidence)
    limit_s = None if time_limit is None else parse_duration(time_limit, "--time-limit")
    check_metric(metric)
    screen = Screen(as_json, quiet)
    _warn_of_large(screen, max_drop)
    shares = shares_of(effort, steps, budget)
    with (
        kept_training(screen, folder),
        SearchProgress(screen, chosen_seed, shares, limit_s) as progress,
    ):
        result = api.compress(
            str(model),
            str(data),
            budget=budget,
            metric=metric,
            calibration=None if calibration is None else str(calibration),
            test=None if test is None else str(test),
            target=target,
            train=None if train is None else str(train),
            teachers=[str(each) for each in teachers],
            effort=effort,
            checkpoints=folder,
            recipe=steps,
            seed=chosen_seed,
            time_limit_s=limit_s,
            strict=strict,
            allow_missing=allow_missing,
            progress=progress,
        )
    if is_main():
        _save(result, files)
    code = MET if result.met else LIMIT_MISSED
    _tell(screen, result, files, code, interrupted=progress.interrupted)
    return code


def shares_of(
    effort: Effort, recipe: Recipe | None, budget: Budget
) -> dict[str, tuple[float, float]]:
    """Tell how long each phase takes, by whether something will, or may, be trained."""
    from penjing.engine.training import is_installed

    if recipe is not None:
        trains = recipe.trains
    elif effort == "auto":  # trains where a limit on size asks for it
        trains = budget.max_size_bytes is not None and is_installed()
    else:
        trains = effort != "post-training"
    return SHARES_WITH_TRAINING if trains else SHARES


def _budget(max_drop: str | None, max_size: str | None, confidence: str) -> Budget:
    if max_drop is not None and max_drop.strip().startswith("-"):
        parse_share(max_drop.strip()[1:], "--max-drop")
        raise ConfigError(
            "--max-drop",
            f"must not be negative, got {max_drop.strip()!r}",
            "write 0.5% for half a point",
        )
    given = {"max_drop": max_drop, "max_size": max_size, "confidence": confidence}
    try:
        return Budget(
            None if max_drop is None else parse_share(max_drop, "--max-drop"),
            None if max_size is None else parse_size(max_size, "--max-size"),
            parse_confidence(confidence, "--confidence"),
        )
    except ConfigError as error:
        if error.where not in given:
            raise
        # As it was typed, not as it was read.
        rule, _, _ = error.problem.rpartition(", got ")
        raise ConfigError(
            f"--{error.where.replace('_', '-')}",
            f"{rule}, got {given[error.where]!r}",
            error.hint,
        ) from None


def _warn_of_large(screen: Screen, max_drop: str | None) -> None:
    """Say what a large number without % means: it may have been meant as one with it."""
    if max_drop is None or max_drop.strip().endswith("%"):
        return
    points = 100 * parse_share(max_drop, "--max-drop")
    if points >= LARGE_DROP:
        meant = "half a point" if points == 50 else f"{points / 100:g} points"  # noqa: PLR2004  # 0.5
        screen.note(
            f"Warning: --max-drop {max_drop.strip()} allows a drop of {points:g} points; "
            f"write {points / 100:g}% for {meant}"
        )


def _save(result: Result, files: Files) -> None:
    """Write the file, then the report; neither is lost with the other."""
    name = f"penjing-{result.report.sha256[:12]}.penjing"
    save_or_rescue(result.artifact.save, files.output, name)
    if files.report is None:
        return
    try:
        result.report.save(files.report)
    except OutputError as error:
        hint = f"the model itself is saved in {files.output}"
        raise OutputError(error.where, error.problem, hint) from error


def _tell(
    screen: Screen, result: Result, files: Files, code: int, *, interrupted: bool
) -> None:
    screen.json(
        {
            **result.summary(),
            "output": str(files.output),
            "report": None if files.report is None else str(files.report),
            "interrupted": interrupted,
            "exit_code": code,
        }
    )
    if not screen.talks:
        return
    result.report.show()
    written = shlex.quote(str(files.output))
    screen.out.print()
    screen.out.print(
        f"Saved {written} ({size(result.report.after.size_bytes)})", soft_wrap=True
    )
    if files.report is not None:
        screen.out.print(f"Report {shlex.quote(str(files.report))}", soft_wrap=True)
    screen.out.print(f"  check it:   penjing verify {written}", soft_wrap=True)
    screen.out.print(f"  plain ONNX: penjing unpack {written} -o plain.onnx", soft_wrap=True)
    if ACTIVATION_SCALES in result.artifact.tensors:
        fast = f"penjing unpack {written} --form qdq -o integers.onnx"
        screen.out.print(f"  in integers, faster: {fast}", soft_wrap=True)
