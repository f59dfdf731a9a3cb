"""What a candidate will lose on fresh samples, judged by all candidates of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from penjing.engine.expectation import correction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penjing.core.budget import Budget
    from penjing.engine.candidate import Candidate

MOST_MARGIN = 0.5
"""Where no confidence is asked, estimates stay a standard error below the limit, but not by
more than this share of it: on fresh samples, one at the limit would be over it every other
time."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Drops to expect, from the search split alone."""

    candidates: Sequence[Candidate]
    """All that were tried so far."""
    budget: Budget
    samples: int
    """Samples of the search split."""
    proof_samples: int
    """Samples of the certification split: how far the bound will be from the estimate."""

    def risk(self, candidate: Candidate) -> float:
        """Order candidates by what they may lose, the safest first.

        How far the outputs have moved is hardly noisy; but training moves them for the better,
        too.  Where there is such a candidate, expected drops decide.
        """
        if any(known.trained for known in self.candidates):
            return self.upper(candidate) if candidate.recipe.steps else -math.inf
        return candidate.judgement.divergence

    def drop(self, candidate: Candidate) -> float:
        """Expect the drop of a candidate on fresh data.

        Drops counted on a few thousand samples are noisy, and picking the best of many
        favours the lucky.  Where the model gives probabilities, they tell what to expect
        (``penjing.engine.expectation``).  Elsewhere the drop is taken proportional to the
        divergence, which is hardly noisy, with the factor that fits all candidates so far.
        What was trained decides otherwise far more often than it loses, even where it has
        learned from the original's outputs alone: its own probabilities count, too.  Without
        any, or where nothing may be lost, only counting is fair.
        """
        judgement = candidate.judgement
        if candidate.trained:
            if judgement.pooled is None or self.budget.max_drop == 0:
                return judgement.drop
            return self._correction(trained=True) * judgement.pooled
        if judgement.expected is not None:
            return self._correction(trained=False) * judgement.expected
        return self._drop_per_divergence() * judgement.divergence

    def within(self, candidate: Candidate, limit: float) -> bool:
        """Tell whether neither the expected nor the counted drop exceeds a limit."""
        estimate = self.drop(candidate)
        if self.budget.confidence is None:
            estimate += self.allowance(candidate)
        return max(estimate, candidate.judgement.drop) <= limit

    def _correction(self, *, trained: bool) -> float:
        """Compare expected with counted drops, over candidates up to three times the limit."""
        limit = 3 * (self.budget.max_drop or 0.005)
        known = [c.judgement for c in self.candidates if c.trained is trained]
        told = [(j, j.pooled if trained else j.expected) for j in known]
        near = [(j, drop) for j, drop in told if drop is not None and 0 < drop <= limit]
        return correction(
            [drop for _, drop in near],
            [j.drop for j, _ in near],
            [math.sqrt(j.variance / self.samples) for j, _ in near],
        )

    def upper(self, candidate: Candidate) -> float:
        """Expect the drop on fresh data or, with confidence asked, its upper bound."""
        return self.drop(candidate) + self.allowance(candidate)

    @property
    def provable(self) -> bool:
        """Whether so few samples could prove the limit even if nothing at all were lost."""
        return 0 < self.fewest_samples <= self.proof_samples

    @property
    def fewest_samples(self) -> int:
        """Samples that prove the limit where no answer changes; 0 where nothing is to prove."""
        limit, confidence = self.budget.max_drop, self.budget.confidence
        if not limit or confidence is None:
            return 0
        return math.ceil(math.log(1 - confidence) / math.log(1 - limit))

    def allowance(self, candidate: Candidate) -> float:
        """Tell how far the bound, or without confidence a margin, lies above the estimate."""
        if self.budget.confidence is None:
            noise = math.sqrt(candidate.judgement.variance / max(self.proof_samples, 1))
            return min(noise, MOST_MARGIN * (self.budget.max_drop or 0.0))
        if not self.provable:
            return 0.0
        return candidate.judgement.allowance(self.proof_samples, self.budget.confidence)

    def _drop_per_divergence(self) -> float:
        """Fit drop = slope x divergence over all candidates, noisier ones counting less."""
        known = [
            c.judgement for c in self.candidates if c.judgement.divergence > 0 and not c.trained
        ]
        if not known:
            return 0.0
        moved = np.array([j.divergence for j in known])
        lost = np.array([j.drop for j in known])
        # Candidates far beyond the limit say little about the slope near it.
        noise = np.array([max(j.variance, 1e-4) for j in known])
        limit = self.budget.max_drop or 0.005
        near = 1 / (1 + (lost / limit) ** 2)
        weight = near * moved / noise
        fitted = float((weight * lost).sum() / (weight * moved).sum())
        return max(fitted, 0.02)
