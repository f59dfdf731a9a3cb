"""What is asked for must fit together: refused or warned of before any work is done."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from penjing.core.errors import ConfigError, PenjingWarning
from penjing.core.processes import processes

if TYPE_CHECKING:
    from penjing.engine.job import Job


def check(job: Job) -> None:
    """Refuse efforts that need what was not given.

    Raises:
        ConfigError: there are no rows to train on, or nothing would use them.
    """
    if job.effort == "train" and job.train is None:
        raise ConfigError(
            "effort",
            "'train' needs rows to train on",
            "give them with --train (train= in Python), or choose 'reconstruct'",
        )
    if job.recipe is not None and job.effort != "auto":
        raise ConfigError(
            "effort",
            "does not go with a recipe, whose steps say themselves what is trained",
            "leave one of them out",
        )
    if job.train is not None and job.effort == "post-training":
        raise ConfigError(
            "effort",
            "'post-training' would not use the rows of --train",
            "leave one of them out",
        )
    if job.teachers and not job.trains:
        raise ConfigError(
            "teacher",
            "is of no use: nothing is trained",
            "choose --effort train or reconstruct, a recipe that trains, or leave it out",
        )
    if job.recipe is None:
        _check_use(job)
    if job.time_limit_s is not None and processes() > 1:
        raise ConfigError(
            "time_limit",
            "processes that train together would reach it at different steps",
            "leave it out, or use one process",
        )


def _check_use(job: Job) -> None:
    """Refuse to train for nothing; warn where rows to train on are of no use."""
    learns = job.effort == "train" and job.train is not None and job.train.labels is not None
    if job.trains and job.budget.max_drop == 0 and not learns:
        raise ConfigError(
            "effort",
            f"{job.effort!r} without labels cannot keep a limit of 0: whatever changes a "
            "weight may lose more than nothing",
            "allow a small drop, or train with labels (--effort train)",
        )
    if job.effort == "auto" and job.train is not None and job.budget.max_size_bytes is None:
        warnings.warn(
            "the rows to train on are not used: 'auto' trains only where a limit on size asks "
            "for it; --effort train (effort='train' in Python) uses them",
            PenjingWarning,
            stacklevel=2,
        )
