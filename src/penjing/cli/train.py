"""``penjing train``: a model from data alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.cli import learning, paths
from penjing.cli.options import Json
from penjing.cli.progress import SearchProgress, kept_training
from penjing.cli.running import MET
from penjing.cli.screen import Screen
from penjing.core.architecture import Task
from penjing.core.errors import ConfigError
from penjing.core.fields import bounds
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Sequence

TEACHERS = "Teachers"
TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def train(  # noqa: PLR0913  # one parameter for each option
    template: Annotated[
        str,
        typer.Argument(metavar="TEMPLATE", help=f"One of {', '.join(TEMPLATES.names())}."),
    ],
    *,
    train: learning.Train,
    output: learning.Output,
    data: learning.HeldOut = None,
    target: learning.Labels = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the template, such as width=64; may be given for several. "
            "'penjing templates NAME' lists them.",
        ),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            help="What to learn; whole numbers as labels are classes and floats are values "
            "unless given.",
            rich_help_panel=learning.DATA,
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="A model to learn from, too: its outputs beside the labels, or in place of "
            "them. Several, each with --teacher, speak as one.",
            rich_help_panel=TEACHERS,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=100.0,
            help="Divides the logits of teachers and student.",
            rich_help_panel=TEACHERS,
        ),
    ] = 2.0,
    teacher_weight: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the teachers' word in the loss; the labels have the rest. With "
            "--blend all of it is the teachers'.",
            rich_help_panel=TEACHERS,
        ),
    ] = 0.5,
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=10000.0,
            help="Passes over the rows; about 5,000 steps unless given.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=10.0,
            help="Largest of the schedule; the template's own, 0.001 or 0.01, unless given. "
            "0 looks for one.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = None,
    batch_size: learning.BatchSize = None,
    optimizer: learning.How = "adam",
    schedule: learning.Course = "cosine",
    weight_decay: learning.WeightDecay = 0.0,
    l1: learning.L1 = 0.0,
    clip_norm: learning.ClipNorm = 0.0,
    precision: learning.Number = "float32",
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            max=10000,
            metavar="EPOCHS",
            help="End, with the best state, after so many epochs without a better loss on a "
            "tenth of the rows, held out for that; 0 trains on all rows to the end.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = 0,
    shift: learning.Shift = 0,
    mirror: learning.Mirror = False,
    distort: learning.Distort = False,
    blend: Annotated[
        bool,
        typer.Option(
            "--blend",
            help="Blend images in pairs, of which the teachers alone then say what they are; "
            "for long training.",
            rich_help_panel=TEACHERS,
        ),
    ] = False,
    seed: learning.Seed = 0,
    checkpoints: learning.Folder = None,
    quiet: learning.Quiet = False,
    as_json: Json = False,
) -> int:
    """Train a model from data alone, and write it as ONNX.

    The model takes raw rows and scales them itself. It is measured, in ONNX Runtime, on rows
    that it was not trained on.

    With --teacher it learns to answer as other models do: from one, or from several to one
    student. Rows need no labels then.

    Example: penjing train resnet_8 --train train.npz -o base.onnx
    """
    from penjing import learning as api

    teachers = teacher or []
    for each in teachers:
        paths.check_model(each)
    settings = read_settings(template, setting or [])
    rows = learning.RowFiles(train, data, target)
    folder = paths.checkpoints_of(output, checkpoints)
    learning.check_files(rows, output, folder, teachers)
    screen = Screen(as_json, quiet)
    with (
        kept_training(screen, folder),
        SearchProgress(screen, seed, learning.SHARES) as progress,
    ):
        made = api.train(
            template,
            str(train),
            data=None if data is None else str(data),
            settings=settings,
            target=target,
            task=task,
            teachers=[str(each) for each in teachers],
            temperature=temperature,
            teacher_weight=teacher_weight,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            weight_decay=weight_decay,
            l1=l1,
            clip_norm=clip_norm,
            precision=precision,
            patience=patience,
            shift=shift,
            mirror=mirror,
            distort=distort,
            blend=blend,
            seed=seed,
            checkpoints=folder,
            progress=progress,
        )
    learning.save(made, output)
    learning.tell(
        screen,
        made,
        output,
        rows,
        {
            "template": template,
            "settings": settings,
            "teachers": [str(each) for each in teachers],
            "seed": seed,
        },
    )
    return MET


def read_settings(template: str, given: Sequence[str]) -> dict[str, Any]:
    """Read settings of a template as ``--set`` takes them.

    >>> read_settings("mlp", ["width=64", "batch_norm=true", "activation=tanh"])
    {'width': 64, 'batch_norm': True, 'activation': 'tanh'}

    Raises:
        ConfigError: there is no such template, or one is written otherwise.
    """
    ranges = bounds(TEMPLATES.load(template))
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError("--set", f"{text!r} is no NAME=VALUE", "such as width=64")
        if name in found:
            raise ConfigError("--set", f"{name} is given twice")
        found[name] = TRUTHS.get(value, value)
        if name in ranges:
            number, allowed = ranges[name]
            try:
                found[name] = number(value)
            except ValueError:
                raise ConfigError(
                    f"{template}.{name}",
                    f"must be {number.__name__} {allowed}, got {value!r}",
                ) from None
    return found
