"""What ``compress`` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from penjing.core.budget import Budget

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.artifact.artifact import Artifact
    from penjing.core.data import Dataset
    from penjing.core.model import Model
    from penjing.core.recipe import Recipe
    from penjing.core.report import Report
    from penjing.engine.search import Progress


Effort = Literal["auto", "post-training", "reconstruct", "train"]
"""How far the search goes: quantizing what is there; training without labels towards the
original's outputs; training with labels.  ``auto`` takes the cheapest that meets the budget."""


def silent(phase: str, share: float, note: str = "") -> None:
    """Show nothing."""
    del phase, share, note


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A model, its data and a budget."""

    model: Model
    name: str
    """How the user called the model."""
    data: Dataset
    calibration: Dataset | None = None
    test: Dataset | None = None
    train: Dataset | None = None
    """Rows to train on; nothing else sees them."""
    teachers: tuple[Model, ...] = ()
    """Models whose word counts beside the original's where anything is trained."""
    effort: Effort = "auto"
    checkpoints: Path | None = None
    """Folder where unfinished training is kept; None keeps nothing."""
    metric: str = "auto"
    budget: Budget = field(default_factory=Budget)
    recipe: Recipe | None = None
    """Steps to apply instead of searching."""
    seed: int = 0
    time_limit_s: float | None = None
    strict: bool = False
    """Fail where something large was left uncompressed."""
    reproduce: str = ""
    progress: Progress = silent

    @property
    def trains(self) -> bool:
        """Whether training is asked for: by the recipe, or else by the effort."""
        if self.recipe is not None:
            return self.recipe.trains
        return self.effort in {"train", "reconstruct"}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The file, and the evidence about it."""

    artifact: Artifact
    report: Report

    def __repr__(self) -> str:
        """Show the verdict and the sizes."""
        return f"<Result: {self.report.gist}>"

    @property
    def met(self) -> bool:
        """Whether every limit is kept."""
        return self.report.met == "met"

    def summary(self) -> dict[str, Any]:
        """Give the figures that scripts ask for, as plain JSON values."""
        report = self.report
        return {
            "bytes": report.after.size_bytes,
            "original_bytes": report.before.size_bytes,
            "ratio": report.ratio,
            "metric": report.metric,
            "original_metric": report.before.metric.value,
            "compressed_metric": report.after.metric.value,
            "drop": report.drop.value,
            "drop_upper": report.certificate.get("upper"),
            "confidence": report.confidence,
            "latency_ms": report.after.latency_ms.value,
            "original_latency_ms": report.before.latency_ms.value,
            "met": report.met == "met",
            "verdict": report.met,
            "reason": report.reason,
            "samples_needed": report.samples_needed,
            "sha256": report.sha256,
            "seconds": report.seconds["total"],
            "warnings": list(report.warnings),
        }
