"""Which candidate to keep, and what may be said about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.measure import Measurement, Verdict
from penjing.engine.candidate import Candidate, pareto
from penjing.engine.certify import Certificate, Outcome, fixed_sequence, judge
from penjing.engine.packing import session_of
from penjing.engine.search import HOPELESS, Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penjing.engine.evidence import Evidence
    from penjing.engine.judging import Judge, Judgement

LONGEST_LADDER = 12
GAP = 1.08
"""How much smaller the next rung of a ladder may be before one between them is looked for."""
ABOUT = 1.3
"""How much further than the next rung the outputs of one between may have moved."""
INTERRUPTED = "interrupted before the certification was complete"
SAME = "every weight is the same as before"


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
        return "same weights" if self.chosen.is_exact else self.judgement.evidence.method


class Decider:
    """Picks from the candidates of a search; each is judged on the proof at most once."""

    def __init__(self, search: Search, proof: Judge) -> None:
        """Use ``proof`` only where a candidate's turn has come."""
        self.search, self.proof, self.budget = search, proof, search.budget
        self._judged: dict[int, Judgement] = {}
        self._climbed: list[Candidate] = []
        """Rungs whose turn has come, in their order."""

    def decide(self) -> Decision:
        """Pick as the budget asks."""
        given = self._given()
        if given is not None:
            return self._as_given(given)
        if self.budget.max_drop is None:
            return self._by_size()
        nothing_may_change = self.budget.max_drop == 0 and not self._learned
        if nothing_may_change or any(c.is_given for c in self.search.candidates):
            return self._keep_lossless(None)
        if self.budget.confidence is None:
            return self._by_estimate()
        return self._by_proof()

    @property
    def _learned(self) -> bool:
        """Whether a candidate learned from labels: it may lose nothing although it differs."""
        return any(candidate.learned for candidate in self.search.candidates)

    def interrupted(self) -> Decision:
        """Keep what is proven so far, or the best estimate, undecided."""
        if self.budget.max_drop is None:
            return self._by_size()
        if self._climbed:
            certificate = self._certificate(
                (c.label, self.judged(c).evidence) for c in self._climbed
            )
            if certificate.chosen is not None:
                return self._proven(certificate)
        chosen = self._given() or self._smallest_by_estimate()
        if not chosen.recipe.steps:
            return self._keep_lossless(None)
        return self._told(chosen, None, Verdict.UNDECIDED, INTERRUPTED)

    def judged(self, candidate: Candidate) -> Judgement:
        """Judge the file of a candidate, as it will be written, on the certification split."""
        if id(candidate) not in self._judged:
            session = session_of(candidate.artifact)
            self._judged[id(candidate)] = self.proof.judge(session)
        return self._judged[id(candidate)]

    def _given(self) -> Candidate | None:
        """Give what the user's own recipe has made, where that may be kept at all."""
        given = next((c for c in self.search.candidates if c.is_given), None)
        if given is None or given.size_bytes >= self._lossless().size_bytes:
            return None
        may_change = self.budget.max_drop != 0 or given.learned
        return given if given.is_exact or may_change else None

    def _lossless(self) -> Candidate:
        return next(c for c in self.search.candidates if not c.recipe.steps)

    def _by_size(self) -> Decision:
        """Take the safest among those that are small enough."""
        fitting = [c for c in self.search.candidates if self.search.fits(c)]
        if fitting:
            chosen = min(fitting, key=lambda c: (self.search.estimates.risk(c), c.size_bytes))
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
            c
            for c in self.search.candidates
            if c.recipe.steps and self.search.estimates.within(c, limit)
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
        elif self.budget.max_drop == 0 and not self._learned:
            reason = "lossless packing: whatever changes a weight may lose more than nothing"
        elif self.search.stopped:
            reason = "lossless packing: what was tried so far is expected to lose too much"
        else:
            reason = "lossless packing: every smaller candidate is expected to lose too much"
        return self._told(lossless, certificate, Verdict.MET, reason)

    def _as_given(self, candidate: Candidate) -> Decision:
        """Keep what the user asked for, and say whether it is within the limit."""
        if candidate.is_exact:
            return self._told(candidate, None, Verdict.MET, SAME)
        if self.budget.max_drop is None:
            fits = self.search.fits(candidate)
            reason = f"the recipe's file is {'within' if fits else 'over'} the size limit"
            reason = f"{reason}; it loses {self._lost(candidate)}"
            verdict = Verdict.MET if fits else Verdict.MISSED
            return self._told(candidate, None, verdict, reason)
        if self.budget.confidence is None:
            return self._estimated(candidate)
        certificate = self._certificate(self._climb([candidate]))
        if certificate.chosen is not None:
            return self._proven(certificate)
        (outcome,) = certificate.tested
        if outcome.verdict is Verdict.UNDECIDED:
            return self._too_few(candidate, certificate, outcome)
        reason = "the drop is over the limit"
        return self._told(candidate, certificate, Verdict.MISSED, reason, outcome)

    def _by_estimate(self) -> Decision:
        chosen = self._smallest_by_estimate()
        if not chosen.recipe.steps:
            return self._keep_lossless(None)
        return self._estimated(chosen)

    def _estimated(self, chosen: Candidate) -> Decision:
        """Judge a candidate by its drop alone."""
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
        ladder = self._ladder()
        if not ladder:
            return self._keep_lossless(None)
        rungs = chain(ladder, self.search.bolder(ladder[-1]))
        certificate = self._certificate(self._climb(rungs))
        if certificate.chosen is None:
            return self._undecided(certificate)
        return self._proven(certificate)

    def _climb(self, rungs: Iterable[Candidate]) -> Iterator[tuple[str, Evidence]]:
        """Judge candidates one by one as their turn comes, and note them."""
        for candidate in rungs:
            evidence = self.judged(candidate).evidence
            self._climbed.append(candidate)
            yield candidate.label, evidence

    def _certificate(self, steps: Iterable[tuple[str, Evidence]]) -> Certificate:
        limit, confidence = self.budget.max_drop, self.budget.confidence
        assert limit is not None
        assert confidence is not None
        return fixed_sequence(steps, limit, confidence, seed=self.search.seed)

    def _proven(self, certificate: Certificate) -> Decision:
        """Keep the last rung that passed."""
        place = certificate.chosen
        assert place is not None
        chosen, outcome = self._climbed[place], certificate.tested[place]
        percent = 100 * certificate.confidence
        reason = f"the drop is within the limit with {percent:g} % confidence"
        return self._told(chosen, certificate, Verdict.MET, reason, outcome)

    def _ladder(self) -> list[Candidate]:
        """Order what is worth a test by search data alone: safest (largest) first."""
        front = pareto(self.search.candidates, self.search.estimates.risk)
        lossy = [c for c in front if c.recipe.steps]
        worth = [c for c in lossy if self.search.excess(c) <= HOPELESS] or lossy[:1]
        trained = any(c.trained for c in self.search.candidates)
        worth = worth if trained else self._without_gaps(worth)
        if len(worth) <= LONGEST_LADDER:
            return worth
        # Rungs at even distances: where one fails, the one before it is not much larger.
        sizes = np.log([c.size_bytes for c in worth])
        wanted = np.linspace(sizes[0], sizes[-1], LONGEST_LADDER)
        return [worth[i] for i in sorted({int(np.abs(sizes - at).argmin()) for at in wanted})]

    def _without_gaps(self, ladder: list[Candidate]) -> list[Candidate]:
        """Add a rung where the next is much smaller: one that is about as safe as the next.

        Others are smaller and moved the outputs less, on the search split: but should those
        fail, it is better to have tested something between.
        """
        found = ladder[:1]
        for larger, smaller in pairwise(ladder):
            between = [
                c
                for c in self.search.candidates
                if larger.size_bytes > GAP * c.size_bytes
                and c.size_bytes > smaller.size_bytes
                and c.judgement.divergence <= ABOUT * smaller.judgement.divergence
            ]
            found += [min(between, key=lambda c: c.judgement.divergence)] if between else []
            found.append(smaller)
        return found

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
        if outcome.verdict is Verdict.MISSED:
            return self._told(
                chosen, certificate, Verdict.MISSED, "the drop is over the limit", outcome
            )
        if outcome.verdict is Verdict.MET:
            reason = (
                "a safer candidate failed its test first: what passes after that proves nothing"
            )
            return self._told(chosen, certificate, Verdict.UNDECIDED, reason, outcome)
        return self._too_few(chosen, certificate, outcome)

    def _too_few(
        self, candidate: Candidate, certificate: Certificate, outcome: Outcome
    ) -> Decision:
        """Say how many samples would decide, or that no number would."""
        needed, samples = outcome.samples_needed, len(self.proof.part)
        reason = (
            f"its drop on {samples} certification samples is too close to the limit, or over "
            "it, for any number of samples to prove it: allow a larger drop"
        )
        if needed:
            reason = (
                f"{samples} certification samples are too few to prove the limit; "
                f"about {needed} would decide"
            )
        elif not self.search.estimates.provable:
            least = self.search.estimates.fewest_samples
            reason = (
                f"{samples} certification samples are too few to prove anything; a model that "
                f"loses nothing needs {least}"
            )
        return self._told(candidate, certificate, Verdict.UNDECIDED, reason, outcome)

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
        if chosen.is_exact and self.budget.confidence is not None:
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
        if self.search.stopped:
            reason = f"{reason}; {self.search.stopped}"
        return Decision(chosen, judgement, outcome, certificate, verdict, reason)
