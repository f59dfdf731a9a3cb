"""What a run found, as plain data: the one source of every table, chart and JSON line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from penjing.core.registry import REPORTS

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.core.measure import Measurement


LEAST_SAVING = 0.05
"""Share of a file that another limit must save to be worth an offer."""


@dataclass(frozen=True, slots=True)
class Side:
    """The model before or after."""

    size_bytes: int
    metric: Measurement
    latency_ms: Measurement


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate the search has tried."""

    label: str
    size_bytes: int
    drop: Measurement
    """On the search split; relative for unbounded metrics."""
    status: str
    """``chosen``, ``certified``, ``over the limit``, ``not certified``, ``too large``,
    ``dominated`` (another is smaller and no worse) or ``within the limit``."""
    certified_upper: float | None = None
    """Upper confidence bound of the drop on the certification split, where tested."""
    divergence: float = 0.0
    """Mean divergence of the outputs from the original's (nats or relative energy)."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One array of the model in the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    encoding: str
    coder: str
    size_bytes: int
    original_bytes: int
    bits_per_weight: float
    zeros: float
    """Share of elements that are zero, in [0, 1]."""
    damage: float
    """Estimated share of the total damage to the outputs, in [0, 1]."""
    reason: str = ""
    """Why it was left alone, where it was."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What another limit would have bought."""

    limit: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """The evidence of one run of ``penjing compress``."""

    model: str
    parameters: int
    metric: str
    metric_is_bounded: bool
    """Whether drops are absolute points; otherwise they are relative."""
    max_drop: float | None
    max_size_bytes: int | None
    confidence: float | None
    before: Side
    after: Side
    drop: Measurement
    """Drop of the chosen model on the certification split, with a two-sided interval; the
    one-sided bound that certifies is ``certificate["upper"]``."""
    met: str
    """``met``, ``missed`` or ``undecided``."""
    reason: str
    """Why, in one sentence."""
    samples_needed: int | None
    """Certification samples that would decide, where undecided."""
    splits: dict[str, Any]
    """``calibration``, ``search``, ``certification``: rows and source; ``seed``."""
    candidates: tuple[CandidateRow, ...]
    layers: tuple[LayerRow, ...]
    overhead: dict[str, int]
    """Bytes of the file beyond the arrays: ``graph``, ``header``, ``container``."""
    certificate: dict[str, Any]
    recipe: str
    """YAML."""
    reproduce: str
    """The command that gives the same file."""
    sha256: str
    seconds: dict[str, float]
    """By phase; ``total`` too."""
    environment: dict[str, str]
    offers: tuple[Offer, ...] = ()
    """Sizes that looser or tighter limits would have bought, by the search split."""
    warnings: tuple[str, ...] = field(default=())
    higher_is_better: bool = True
    """Whether the metric falls when it gets worse; a drop is a loss either way."""

    def __repr__(self) -> str:
        """Show the verdict and the sizes."""
        return f"<Report: {self.gist}>"

    @property
    def gist(self) -> str:
        """Model, sizes, metric and verdict in one line."""
        before, after = self.before, self.after
        return (
            f"{self.model}, {before.size_bytes:,} -> {after.size_bytes:,} bytes, "
            f"{self.metric} {before.metric.value:.4g} -> {after.metric.value:.4g}, {self.met}"
        )

    @property
    def ratio(self) -> float:
        """Original bytes over compressed bytes."""
        return self.before.size_bytes / self.after.size_bytes

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data."""
        return asdict(self)

    def show(self) -> None:
        """Print the before/after table to the terminal."""
        REPORTS.load("terminal")().show(self)

    def save(self, path: str | Path) -> None:
        """Write the self-contained HTML report.

        Raises:
            MissingExtraError: the ``report`` extra is not installed.
            OutputError: the file cannot be written.
        """
        REPORTS.load("html")().save(self, path)
