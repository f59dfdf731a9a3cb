"""Which candidate to keep, and what may be said about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from penjing.core.measure import Measurement, Verdict
from penjing.engine.certify import Certificate, Outcome, fixed_sequence, judge
from penjing.engine.packing import session_of
from penjing.engine.search import Candidate, Search, pareto

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.engine.evidence import Evidence
    from penjing.engine.judging import Judge, Judgement

LONGEST_LADDER = 8
HOPELESS = 0.7
"""Excess (logarithm) beyond which a candidate is not worth a test."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The chosen candidate, judged on the certification split."""

    chosen: Candidate
    judgement: Judgement
    """On the certification split, from the written file loaded back."""
    outcome: Outcome | None
    """What the test says, or the bound alone without a limit; None without confidence."""
    certificate: Certificate | None
    verdict: Verdict
    reason: str

    def evidence(self) -> dict[str, Any]:
        """Give the certificate as plain data, the chosen one's bound as ``upper``."""
        found: dict[str, Any] = {} if self.certificate is None else self.certificate.to_dict()
        if self.outcome is not None:
            upper = self.outcome.upper
            found["upper"] = upper if math.isfinite(upper) else None
            found["method"] = self.method
        return found

    @property
    def method(self) -> str:
        """How the bound was found."""
        return self.judgement.evidence.method if self.chosen.recipe.steps else "same weights"


class Decider:
    """Picks from the candidates of a search; each is judged on the proof at most once."""

    def __init__(self, search: Search, proof: Judge) -> None:
        """Use ``proof`` only where a candidate's turn has come."""
        self.search, self.proof, self.budget = search, proof, search.budget
        self._judged: dict[int, Judgement] = {}

    def decide(self) -> Decision:
        """Pick as the budget asks."""
        if self.budget.max_drop is None:
            return self._by_size()
        if self.budget.confidence is None:
            return self._by_estimate()
        return self._by_proof()

    def interrupted(self) -> Decision:
        """Keep the best estimate, undecided: the tests were not finished."""
        if self.budget.max_drop is None:
            return self._by_size()
        reason = "interrupted before the certification was complete"
        return self._told(self._smallest_by_estimate(), None, Verdict.UNDECIDED, reason)

    def judged(self, candidate: Candidate) -> Judgement:
        """Judge the file of a candidate, as it will be written, on the certification split."""
        if id(candidate) not in self._judged:
            session = session_of(candidate.artifact)
            self._judged[id(candidate)] = self.proof.judge(session)
        return self._judged[id(candidate)]

    def _lossless(self) -> Candidate:
        return next(c for c in self.search.candidates if not c.recipe.steps)

    def _by_size(self) -> Decision:
        """Take the one that moves the outputs least among those that are small enough."""
        fitting = [c for c in self.search.candidates if self.search.fits(c)]
        if fitting:
            chosen = min(fitting, key=lambda c: (c.judgement.divergence, c.size_bytes))
            verdict = Verdict.MET
            reason = f"the best file found within the size limit; it loses {self._lost(chosen)}"
        else:
            chosen = min(self.search.candidates, key=lambda c: c.size_bytes)
            verdict = Verdict.MISSED
            reason = "no candidate is small enough; the smallest is kept"
        return self._told(chosen, None, verdict, reason)

    def _smallest_by_estimate(self) -> Candidate:
        """Take the smallest whose expected drop keeps the limit; lossless at the least."""
        limit = self.budget.max_drop or 0.0
        passing = [
            c for c in self.search.candidates if c.recipe.steps and self.search.within(c, limit)
        ]
        return min([self._lossless(), *passing], key=lambda c: c.size_bytes)

    def _lost(self, candidate: Candidate) -> str:
        """Put a candidate's drop on the search split into words."""
        unit = "points" if self.search.judge.metric.absolute else "%"
        return f"{100 * candidate.judgement.drop:.2g} {unit} on the search split"

    def _keep_lossless(self, certificate: Certificate | None) -> Decision:
        """Fall back on the same weights, and say why."""
        lossless = self._lossless()
        lossy = [c for c in self.search.candidates if c.recipe.steps]
        if not lossy:
            reason = "lossless packing: nothing else was tried"
        elif all(c.size_bytes >= lossless.size_bytes for c in lossy):
            reason = "lossless packing: nothing that was tried gives a smaller file"
        elif [c.label for c in lossy] == ["recipe"]:
            size, lost = lossy[0].size_bytes, self._lost(lossy[0])
            reason = f"lossless packing: the recipe gives {size} bytes, but loses {lost}"
        else:
            reason = "lossless packing: every smaller candidate is expected to lose too much"
        return self._told(lossless, certificate, Verdict.MET, reason)

    def _by_estimate(self) -> Decision:
        chosen = self._smallest_by_estimate()
        if not chosen.recipe.steps:
            return self._keep_lossless(None)
        drop = self.judged(chosen).drop
        limit = self.budget.max_drop or 0.0
        met = drop <= limit
        reason = (
            "its drop on samples the search never saw is within the limit"
            if met
            else "its drop on samples the search never saw is over the limit"
        )
        return self._told(chosen, None, Verdict.MET if met else Verdict.MISSED, reason)

    def _by_proof(self) -> Decision:
        """Test candidates from the safest to the boldest; keep the last that passes."""
        limit, confidence = self.budget.max_drop, self.budget.confidence
        assert limit is not None
        assert confidence is not None
        ladder = self._ladder() if limit > 0 else []
        if not ladder:
            return self._keep_lossless(None)
        steps: list[tuple[str, Evidence | Callable[[], Evidence]]] = [
            (c.label, lambda c=c: self.judged(c).evidence)  # type: ignore[misc]
            for c in ladder
        ]
        certificate = fixed_sequence(steps, limit, confidence, seed=self.search.seed)
        if certificate.chosen is None:
            return self._undecided(certificate)
        chosen, outcome = ladder[certificate.chosen], certificate.tested[certificate.chosen]
        reason = f"the drop is within the limit with {100 * confidence:g} % confidence"
        return self._told(chosen, certificate, Verdict.MET, reason, outcome)

    def _ladder(self) -> list[Candidate]:
        """Order what is worth a test by search data alone: safest (largest) first."""
        lossy = [c for c in pareto(self.search.candidates) if c.recipe.steps]
        worth = [c for c in lossy if self.search.excess(c) <= HOPELESS] or lossy[:1]
        # The safest stays: where the second fails, there is still the first.
        return worth[:1] + worth[1:][-(LONGEST_LADDER - 1) :]

    def _undecided(self, certificate: Certificate) -> Decision:
        """Nothing passed: keep the best point estimate, and say what would decide."""
        chosen = self._smallest_by_estimate()
        if not chosen.recipe.steps:
            return self._keep_lossless(certificate)
        assert self.budget.max_drop is not None
        assert self.budget.confidence is not None
        outcome = judge(
            chosen.label,
            self.judged(chosen).evidence,
            self.budget.max_drop,
            self.budget.confidence,
        )
        samples = len(self.proof.part)
        if outcome.verdict is Verdict.MISSED:
            return self._told(
                chosen, certificate, Verdict.MISSED, "the drop is over the limit", outcome
            )
        if outcome.verdict is Verdict.MET:
            reason = (
                "a safer candidate failed its test first: what passes after that proves nothing"
            )
            return self._told(chosen, certificate, Verdict.UNDECIDED, reason, outcome)
        needed = outcome.samples_needed
        more = f"; about {needed} would decide" if needed else ""
        reason = f"{samples} certification samples are too few to prove the limit{more}"
        return self._told(chosen, certificate, Verdict.UNDECIDED, reason, outcome)

    def _told(
        self,
        chosen: Candidate,
        certificate: Certificate | None,
        verdict: Verdict,
        reason: str,
        outcome: Outcome | None = None,
    ) -> Decision:
        """Complete a decision; a limit on size can still be missed."""
        judgement = self.judged(chosen)
        if not chosen.recipe.steps and self.budget.confidence is not None:
            nothing = Measurement(0.0, 0.0, 0.0, "", self.budget.confidence)
            samples = len(self.proof.part)
            outcome = Outcome(chosen.label, nothing, 0.0, 0.0, samples, Verdict.MET)
        elif outcome is None and self.budget.confidence is not None:
            # No limit was set: any would do, it is the bound that is of interest.
            anything = math.nextafter(1.0, 0.0)
            evidence, confidence = judgement.evidence, self.budget.confidence
            outcome = judge(chosen.label, evidence, anything, confidence)
            outcome = replace(outcome, samples_needed=None)
        if verdict is Verdict.MET and not self.search.fits(chosen):
            size = self.budget.max_size_bytes
            verdict = Verdict.MISSED
            reason = f"the smallest file that keeps the drop limit is larger than {size} bytes"
        return Decision(chosen, judgement, outcome, certificate, verdict, reason)
