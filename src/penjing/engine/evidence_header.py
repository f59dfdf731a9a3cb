"""The evidence inside the file: what does not depend on the machine or the hour."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from penjing.artifact.header import squeeze

if TYPE_CHECKING:
    from penjing.core.data import Part, Splits
    from penjing.engine.decide import Decision
    from penjing.engine.job import Job
    from penjing.engine.judging import Judge

DIGEST_CHARACTERS = 32


def build(
    job: Job, splits: Splits, decision: Decision, judge: Judge, proof: Judge
) -> dict[str, Any]:
    """Give the header: recipe, budget, data, metric and certificate.

    Times are left out: the same input, settings and seed must give the same bytes.
    """
    metric = {
        "name": metric_name(judge),
        "original": proof.original_value(),
        "compressed": decision.judgement.value,
        "drop": decision.judgement.drop,
        "samples": len(proof.part),
    }
    evidence: dict[str, Any] = {"metric": metric, "verdict": str(decision.verdict)}
    if decision.outcome is not None:
        evidence["upper"] = decision.outcome.upper
        evidence["method"] = decision.method
        evidence["confidence"] = job.budget.confidence
        evidence["tests"] = (
            0 if decision.certificate is None else len(decision.certificate.tested)
        )
    budget = {
        "max_drop": job.budget.max_drop,
        "max_size_bytes": job.budget.max_size_bytes,
    }
    data = {
        "calibration": _described(splits.calibration),
        "search": _described(splits.search),
        "certification": _described(splits.certification),
    }
    described: dict[str, Any] = squeeze(
        {
            "made_by": f"penjing {version('penjing')}",
            "model": PurePath(job.name).name,
            "original_bytes": original_bytes(job),
            "seed": job.seed,
            "budget": {key: value for key, value in budget.items() if value is not None},
            "data": data,
            "evidence": evidence,
        }
    )
    # The recipe is kept to the last digit: it must give the same file again.
    return {**described, "recipe": decision.chosen.recipe.to_dict()}


def metric_name(judge: Judge) -> str:
    """Public name of the metric in use."""
    return type(judge.metric).__module__.rpartition(".")[2]


def original_bytes(job: Job) -> int:
    """Size of the model as its owner had it."""
    backend: Any = job.model.backend
    return int(backend.original_bytes(job.model.native))


def _described(part: Part) -> dict[str, Any]:
    return {"rows": len(part), "sha256": part.dataset.digest[:DIGEST_CHARACTERS]}
