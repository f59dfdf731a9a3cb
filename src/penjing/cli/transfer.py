"""``penjing transfer``: a trained model for a new task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penjing.cli import learning, paths
from penjing.cli.options import Json
from penjing.cli.progress import SearchProgress, kept_training
from penjing.cli.running import MET
from penjing.cli.screen import Screen
from penjing.core.training import stage_label


def transfer(  # noqa: PLR0913  # one parameter for each option
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The model: an .onnx, .keras or .pt2 file.")
    ],
    *,
    train: learning.Train,
    output: learning.Output,
    data: learning.HeldOut = None,
    target: learning.Labels = None,
    epochs: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=10000.0,
            help="Passes over the rows, shared out among the stages.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = 30.0,
    learning_rate: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=10.0,
            help="Of the new last layer; 0 looks for one in each stage.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = 1e-3,
    stages: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="Stages of training, each with more layers than the one before; 1 trains the "
            "last layer alone.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = 3,
    decay: Annotated[
        float,
        typer.Option(
            min=1.0,
            max=1000.0,
            help="Factor between the learning rates of a group of layers and the one below.",
            rich_help_panel=learning.TRAINING,
        ),
    ] = 2.6,
    batch_size: learning.BatchSize = None,
    optimizer: learning.How = "adam",
    schedule: learning.Course = "cosine",
    weight_decay: learning.WeightDecay = 0.0,
    l1: learning.L1 = 0.0,
    clip_norm: learning.ClipNorm = 0.0,
    precision: learning.Number = "float32",
    shift: learning.Shift = 0,
    mirror: learning.Mirror = False,
    distort: learning.Distort = False,
    seed: learning.Seed = 0,
    checkpoints: learning.Folder = None,
    quiet: learning.Quiet = False,
    as_json: Json = False,
) -> int:
    """Move a trained classifier to new classes, with few rows of them.

    Its last layer is replaced by one for the classes of --train and trained alone; then more
    and more layers are trained, those further down more slowly.

    Example: penjing transfer model.onnx --train new.npz -o new.onnx
    """
    from penjing import learning as api

    paths.check_model(model, to_compress=True)
    rows = learning.RowFiles(train, data, target)
    folder = paths.checkpoints_of(output, checkpoints)
    learning.check_files(rows, output, folder, (model,))
    screen = Screen(as_json, quiet)
    shares = {
        stage_label(stage, stages): (0.95 * stage / stages, 0.95 * (stage + 1) / stages)
        for stage in range(stages)
    }
    with (
        kept_training(screen, folder),
        SearchProgress(screen, seed, {**shares, **learning.EXPORTING}) as progress,
    ):
        made = api.transfer(
            str(model),
            str(train),
            data=None if data is None else str(data),
            target=target,
            epochs=epochs,
            learning_rate=learning_rate,
            stages=stages,
            decay=decay,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            weight_decay=weight_decay,
            l1=l1,
            clip_norm=clip_norm,
            precision=precision,
            shift=shift,
            mirror=mirror,
            distort=distort,
            seed=seed,
            checkpoints=folder,
            progress=progress,
        )
    learning.save(made, output)
    learning.tell(screen, made, output, rows, {"model": str(model), "seed": seed})
    return MET
