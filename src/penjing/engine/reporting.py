"""From a finished search to the report."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from penjing.core.measure import Measurement
from penjing.core.model import LayerKind, Statistics
from penjing.core.report import LEAST_SAVING, CandidateRow, LayerRow, Offer, Report, Side
from penjing.engine.candidate import pareto
from penjing.engine.evaluate import threads
from penjing.engine.evidence_header import metric_name, original_bytes
from penjing.engine.observe import error_energy

if TYPE_CHECKING:
    from penjing.artifact.artifact import Artifact
    from penjing.core.data import Part, Splits
    from penjing.engine.candidate import Candidate
    from penjing.engine.decide import Decision
    from penjing.engine.job import Job
    from penjing.engine.judging import Judge
    from penjing.engine.search import Search

OFFERED_LIMITS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
DISPLAY_CONFIDENCE = 0.95
LARGE_DROP = 0.05
"""Five points or per cent: more is seldom meant where nobody gave a limit."""


def build(  # noqa: PLR0913, PLR0917  # one call gathers everything a run has found
    job: Job,
    splits: Splits,
    search: Search,
    decision: Decision,
    proof: Judge,
    artifact: Artifact,
    times: tuple[Measurement, Measurement, Measurement],
    seconds: dict[str, float],
    warnings: tuple[str, ...],
) -> Report:
    """Gather the evidence of one run."""
    confidence = job.budget.confidence or DISPLAY_CONFIDENCE
    drop = decision.judgement.interval(confidence)
    outcome = decision.outcome
    if outcome is not None:
        drop = outcome.drop
    absolute = proof.metric.absolute
    if not decision.chosen.recipe.steps:
        drop = _nothing_lost(confidence)
    weights = job.model.weights()
    rows, overhead = _layers(artifact, search, decision)
    return Report(
        model=job.name,
        parameters=sum(w.tensor.dense().size for w in weights.values() if w.is_float),
        metric=metric_name(proof),
        metric_is_bounded=absolute,
        max_drop=job.budget.max_drop,
        max_size_bytes=job.budget.max_size_bytes,
        confidence=job.budget.confidence,
        before=Side(
            original_bytes(job),
            proof.measured(proof.original_value(), confidence),
            times[0],
        ),
        after=Side(
            artifact.size_bytes, proof.measured(decision.judgement.value, confidence), times[1]
        ),
        drop=drop,
        met=str(decision.verdict),
        reason=decision.reason,
        samples_needed=None if outcome is None else outcome.samples_needed,
        splits={
            "calibration": _part(splits.calibration),
            "search": _part(splits.search),
            "certification": _part(splits.certification),
            "seed": job.seed,
        },
        candidates=_candidates(search, decision, artifact),
        layers=rows,
        overhead=overhead,
        certificate=decision.evidence(),
        recipe=decision.chosen.recipe.to_yaml(),
        # Where a search ends early depends on the machine: the command would find another file.
        reproduce="" if search.stopped else job.reproduce,
        sha256=artifact.sha256,
        seconds=seconds,
        environment=_environment(),
        offers=_offers(search, decision, artifact),
        warnings=warnings + _unlimited(job, metric_name(proof), drop, absolute),
        higher_is_better=proof.metric.higher_is_better,
    )


def _nothing_lost(confidence: float) -> Measurement:
    """Give the drop of lossless packing: none, by construction and not by measurement."""
    return Measurement(0.0, 0.0, 0.0, "", confidence)


def _unlimited(
    job: Job,
    metric: str,
    drop: Measurement,
    absolute: bool,  # noqa: FBT001  # private
) -> tuple[str, ...]:
    """Warn of a large drop that nobody has forbidden, though perhaps not meant."""
    if job.budget.max_drop is not None or drop.value < LARGE_DROP:
        return ()
    lost = f"{100 * drop.value:.3g} {'points' if absolute else '%'}"
    return (
        f"{metric} is {lost} worse, and no limit on that was given: state one with --max-drop",
    )


def _part(part: Part) -> dict[str, Any]:
    return {"rows": len(part), "source": part.dataset.source, "sha256": part.dataset.digest}


def _candidates(
    search: Search, decision: Decision, artifact: Artifact
) -> tuple[CandidateRow, ...]:
    uppers: dict[str, float] = {}
    passed: set[str] = set()
    if decision.certificate is not None:
        for outcome in decision.certificate.tested:
            uppers[outcome.label] = outcome.upper
            if outcome.verdict == "met":
                passed.add(outcome.label)
    front = {candidate.label for candidate in pareto(search.candidates, search.estimates.risk)}
    header = _header_bytes(decision, artifact)
    confidence = search.budget.confidence or DISPLAY_CONFIDENCE
    return tuple(
        CandidateRow(
            candidate.label,
            candidate.size_bytes + header,
            candidate.judgement.interval(confidence)
            if candidate.recipe.steps
            else _nothing_lost(confidence),
            _status(candidate, search, decision, front, passed, uppers),
            uppers.get(candidate.label),
            candidate.judgement.divergence,
            candidate.seconds,
        )
        for candidate in search.candidates
    )


def _status(  # noqa: PLR0913, PLR0917, PLR0911  # one reason each
    candidate: Candidate,
    search: Search,
    decision: Decision,
    front: set[str],
    passed: set[str],
    uppers: dict[str, float],
) -> str:
    if candidate is decision.chosen:
        return "chosen"
    if candidate.label in passed:
        return "certified"
    if candidate.label in uppers:
        return "not certified"
    size_limit = search.budget.max_size_bytes
    if size_limit is not None and candidate.size_bytes > size_limit:
        return "too large"
    if candidate.label not in front:
        return "dominated"
    limit = search.budget.max_drop
    if limit is not None and not search.estimates.within(candidate, limit):
        return "over the limit"
    return "within the limit"


def _layers(
    artifact: Artifact, search: Search, decision: Decision
) -> tuple[tuple[LayerRow, ...], dict[str, int]]:
    """Turn the ledger into rows; what is no array of the model goes to the overhead."""
    weights = search.model.weights()
    changed = decision.chosen.model.changed
    damage = _damage(search, decision)
    rows, overhead = [], {}
    for entry in artifact.ledger():
        if entry["name"] not in weights:
            overhead[entry["name"]] = int(entry["bytes"])
            continue
        weight = weights[entry["name"]]
        rows.append(
            LayerRow(
                name=weight.name,
                kind=str(weight.kind),
                shape=weight.tensor.shape,
                parameters=int(weight.tensor.dense().size),
                encoding=entry["encoding"],
                coder=entry["coder"],
                size_bytes=int(entry["bytes"]),
                original_bytes=int(entry["original_bytes"]),
                bits_per_weight=float(entry["bits_per_weight"]),
                zeros=float(entry["zeros"]),
                damage=damage.get(weight.name, 0.0),
                reason="" if weight.name in changed else _why_left(weight.is_float, decision),
            )
        )
    return tuple(rows), overhead


def _why_left(is_float: bool, decision: Decision) -> str:  # noqa: FBT001
    if not decision.chosen.recipe.steps:
        return "lossless packing was chosen"
    if not is_float:
        return "integers are packed losslessly"
    return "the recipe does not touch it, or makes it no smaller"


def _damage(search: Search, decision: Decision) -> dict[str, float]:
    """Estimate each weight's share of the damage: sensitivity times output error energy."""
    known = search.observation
    weights = search.model.weights()
    found = {}
    for name, tensor in decision.chosen.model.changed.items():
        if name not in weights:
            continue
        weight = weights[name]
        error = tensor.dense().astype(float) - weight.tensor.dense()
        seen = known.statistics.get(name, Statistics())
        if weight.kind is LayerKind.BIAS and weight.layer in known.statistics:
            seen = Statistics(positions=known.statistics[weight.layer].positions)
        sensitivity = known.sensitivity.get(name, known.sensitivity.get(weight.layer, 0.0))
        found[name] = sensitivity * error_energy(error, weight, seen)
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in found.items()}


def _header_bytes(decision: Decision, artifact: Artifact) -> int:
    """Bytes that recipe and evidence have added to the chosen file, and would to any."""
    return artifact.size_bytes - decision.chosen.size_bytes


def _offers(search: Search, decision: Decision, artifact: Artifact) -> tuple[Offer, ...]:
    """Say what other limits would have bought, as far as the search has looked.

    Only looser limits with a file smaller by ``LEAST_SAVING`` and tighter ones with a larger
    file are of use.
    """
    asked, whole = search.budget.max_drop, artifact.size_bytes
    if asked is None:
        return ()
    offers: list[Offer] = []
    header = _header_bytes(decision, artifact)
    for limit in OFFERED_LIMITS:
        sizes = [
            c.size_bytes
            for c in search.candidates
            if max(search.estimates.upper(c), c.judgement.drop) <= limit
        ]
        least = min(sizes) + header if sizes else whole
        saves = least <= (1 - LEAST_SAVING) * whole
        useful = saves if limit > asked else least > whole and limit < asked
        if useful and (not offers or least < offers[-1].size_bytes):
            offers.append(Offer(limit, least))
    return tuple(offers)


def _environment() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(threads()),
    }
    for package in ("penjing", "numpy", "onnxruntime", "onnx", "zstandard"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    torch = sys.modules.get("torch")
    if torch is not None:  # something may have been trained
        found["torch"] = version("torch")
        found["training threads"] = str(torch.get_num_threads())
    return found
