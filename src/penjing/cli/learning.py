"""What ``penjing train`` and ``penjing transfer`` share: options, checks, last words."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli import paths
from penjing.cli.compress import OTHERS
from penjing.cli.saving import save_or_rescue
from penjing.cli.screen import size
from penjing.core.errors import OutputError
from penjing.core.recipe import LARGEST_SEED
from penjing.core.training import Optimizer, Precision, Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.cli.screen import Screen
    from penjing.engine.learned import Learned

DATA, TRAINING, OUTPUT = "Data", "Training", "Output"
ENDING = ".onnx"
EXPORTING = {"exporting": (0.95, 0.98), "measuring": (0.98, 1.0)}
"""Where these phases begin and end, as usual shares of the whole time."""
SHARES = {"training": (0.0, 0.95), **EXPORTING}

Train = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Rows to learn from, as .npz, .npy, .csv or .parquet: inputs x, labels y or "
        "--target.",
        rich_help_panel=DATA,
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Rows to measure on; a tenth of --train is held out for that unless given.",
        rich_help_panel=DATA,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Name of the label column of a table, or of the array.",
        rich_help_panel=DATA,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65536,
        metavar="ROWS",
        help="Rows of one step; 16 to 128, by the number of rows, unless given.",
        rich_help_panel=TRAINING,
    ),
]
How = Annotated[
    Optimizer,
    typer.Option(
        help="adam, adamw (decoupled weight decay), or sgd with momentum 0.9.",
        rich_help_panel=TRAINING,
    ),
]
Course = Annotated[
    Schedule,
    typer.Option(
        help="Course of the learning rate: down (cosine), up and down (one_cycle), or level.",
        rich_help_panel=TRAINING,
    ),
]
WeightDecay = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Of weights, not of biases.", rich_help_panel=TRAINING),
]
L1 = Annotated[
    float,
    typer.Option(
        "--l1",
        min=0.0,
        max=1.0,
        help="Factor of the sum of magnitudes of weights in the loss.",
        rich_help_panel=TRAINING,
    ),
]
ClipNorm = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1e6,
        help="Norm that gradients are cut to; 0 leaves them as they are.",
        rich_help_panel=TRAINING,
    ),
]
Number = Annotated[
    Precision,
    typer.Option(
        help="Number type of the forward pass; the 16-bit ones are fast on some processors.",
        rich_help_panel=TRAINING,
    ),
]
Shift = Annotated[
    int,
    typer.Option(
        min=0,
        max=64,
        metavar="PIXELS",
        help="Shift images at random by up to so many pixels.",
        rich_help_panel=TRAINING,
    ),
]
Mirror = Annotated[
    bool,
    typer.Option(
        "--mirror",
        help="Mirror every other image, left to right.",
        rich_help_panel=TRAINING,
    ),
]
Distort = Annotated[
    bool,
    typer.Option(
        "--distort",
        help="Turn and zoom images, and change contrast and brightness.",
        rich_help_panel=TRAINING,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=LARGEST_SEED,
        metavar="NUMBER",
        help="Of every random choice; the same seed gives the same file.",
        rich_help_panel=TRAINING,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        metavar="FOLDER",
        help="Keep unfinished training here, for the same command to go on from: the output's "
        "name with .checkpoints unless given. Removed at the end.",
        rich_help_panel=TRAINING,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The .onnx file to write.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Say nothing but errors.", rich_help_panel=OUTPUT)
]


@dataclass(frozen=True, slots=True)
class RowFiles:
    """The files of rows that were given."""

    train: Path
    data: Path | None
    target: str | None

    @property
    def next(self) -> str:
        """What is to follow ``--data`` in a command that goes on with the model."""
        rows = self.data or Path(f"val{self.train.suffix or '.npz'}")
        target = "" if self.target is None else f" --target {shlex.quote(self.target)}"
        return shlex.quote(str(rows)) + target


def check_files(
    rows: RowFiles, output: Path, checkpoints: Path | None, others: Sequence[Path] = ()
) -> None:
    """Refuse what cannot be read or written, before any work is done.

    Raises:
        DataError: rows are not there.
        OutputError: the output cannot be written, or is to end in something else than .onnx;
            the folder for checkpoints is a file.
    """
    paths.check_data(rows.train, "--train")
    paths.check_data(rows.data, "--data")
    paths.check_folder(checkpoints, "--checkpoints")
    if output.suffix.lower() != ENDING:
        hint = f"give --output a name such as {output.stem or 'base'}.onnx"
        if output.suffix.lower() == ".penjing":
            made = shlex.quote(str(output.with_suffix(ENDING)))
            hint += f", then compress it: penjing compress {made} --data {rows.next}"
        elif output.suffix.lower() in {*OTHERS, ".pt", ".pth", ".keras", ".tflite"}:
            hint += "; other formats are made from it"
        raise OutputError(str(output), "does not end in .onnx, which is what is written", hint)
    paths.check_output(output, "--output", (rows.train, rows.data, *others))


def save(made: Learned, output: Path) -> None:
    """Write the model, then remove what was kept of its training.

    Raises:
        OutputError: it cannot be written there; the hint says where it is instead.
    """
    digest = hashlib.sha256(made.content).hexdigest()[:12]
    save_or_rescue(made.save, output, f"penjing-{digest}{ENDING}")
    made.clear()


def tell(
    screen: Screen, made: Learned, output: Path, rows: RowFiles, more: Mapping[str, Any]
) -> None:
    """Say what came out."""
    found = {**more, **made.to_dict(), "output": str(output), "exit_code": 0}
    screen.json(found)
    if not screen.talks:
        return
    value = made.value
    where = "a tenth of --train, held out" if made.split else "the rows of --data"
    interval = f"{100 * value.confidence:g}% interval {value.low:.4g} to {value.high:.4g}"
    screen.out.print(
        f"{made.metric} {value.value:.4g} ({interval}) on {made.held_out:,} rows: {where}",
        soft_wrap=True,
    )
    screen.out.print(
        f"trained on {made.rows:,} rows: {made.epochs:g} epochs, {made.steps:,} steps, "
        f"{made.seconds:.1f} s",
        soft_wrap=True,
    )
    written = shlex.quote(str(output))
    screen.out.print(f"Saved {written} ({size(made.size_bytes)})", soft_wrap=True)
    screen.out.print(
        f"  compress it: penjing compress {written} --data {rows.next}", soft_wrap=True
    )
