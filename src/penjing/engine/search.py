"""The search: the boldest trade-off that the search split lets pass.

One number, the trade-off between loss and bits, orders all candidates.  It is found on the
search split alone: first with plain passes over all layers, which cost little, then with
sequential ones, in which each layer makes up for what earlier ones have lost.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from penjing.core.recipe import Recipe
from penjing.engine.candidate import Candidate
from penjing.engine.estimates import Estimates
from penjing.engine.packing import pack, without_losses
from penjing.engine.running import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.core.budget import Budget
    from penjing.core.model import Model
    from penjing.core.technique import Observation
    from penjing.core.training import Trainer
    from penjing.engine.judging import Judge

PLAIN: dict[str, Any] = {"sequential": False}
"""Settings of the quantizer to begin with."""
PROBING: dict[str, Any] = {"probe_at": True}
"""Stands for sensitivities measured by actual errors at the trade-off found so far."""
VARIANTS: tuple[dict[str, Any], ...] = (
    PROBING,
    {"damping": 0.1},
    {"descents": 0},
    {"step_ratio": 3.0},
    {"step_ratio": 1.4},
    {"rate_term": False},
    {"sequential": True},
)
"""Changes of settings to compare, each on top of the best before it."""
NEARBY = (0.87, 0.94, 1.12)
LADDER = (0.4, 0.65, 0.85, 1.25)
"""Further trade-offs to try, relative to the one found: for estimates, and for a proof."""
BOLDER = 1.4
"""Factor from one trade-off to the next where the proof has passed all that were tried."""
HOPELESS = 0.7
"""Excess (logarithm) beyond which a candidate is not worth a test."""
COMPARABLE = 0.4
"""Logarithm of two divergences beyond which their bytes are not compared."""
LOSS_PER_DROP = 6.0
"""First guess: divergence (nats) at which a share of 1 of the drop limit is used up."""
LOSS_PER_BIT = 4.0
"""First guess: divergence per weight at a trade-off of 1."""
BYTES_PER_DIVERGENCE = 0.32
"""How fast the logarithm of bytes falls as that of the divergence grows."""
STEEPEST = 30.0
"""Largest factor by which one step of the search may change the trade-off."""
HEADER_RESERVE_BYTES = 200
"""The recipe and the evidence join the file after the search; they must fit, too."""
MOST_STEPS_BACK = 4
TIME_IS_UP = "the time limit ended the search early"
TRADE_OFFS = (1e-14, 1e5)
"""Within what the quantizer takes."""


class Progress(Protocol):
    """Told what is going on."""

    def __call__(self, phase: str, share: float, note: str = "") -> None:
        """``share`` of ``phase`` is done."""


@dataclass(slots=True, eq=False)
class Search:
    """Tries recipes and remembers every candidate."""

    model: Model
    observation: Observation
    judge: Judge
    budget: Budget
    proof_samples: int
    """Samples of the certification split: how far the bound will be from the estimate."""
    progress: Progress
    seed: int
    deadline: float
    """``time.monotonic()`` at which to stop with what there is."""
    trainer: Trainer | None = None
    """Trains on the rows given for that; None where there are none."""
    candidates: list[Candidate] = field(default_factory=list)
    stopped: str = ""
    """What ended the search early, for people; empty where nothing did."""
    slowest: float = 0.0
    """Seconds that the slowest candidate took."""

    @property
    def estimates(self) -> Estimates:
        """What the candidates so far lead to expect of each."""
        return Estimates(self.candidates, self.budget, len(self.judge.part), self.proof_samples)

    def attempt(self, recipe: Recipe, label: str) -> Candidate:
        """Apply a recipe, pack the result and judge it; labels are made unique."""
        started = time.monotonic()
        same = sum(known.label.partition(" #")[0] == label for known in self.candidates)
        label = f"{label} #{same + 1}" if same else label
        made = recipe.apply(self.model, self.observation, self.trainer)
        compressed = without_losses(self.model, made)
        artifact = pack(compressed, {})
        judgement = self.judge.judge(Running(compressed.decoded()))
        seconds = time.monotonic() - started
        self.slowest = max(self.slowest, seconds)
        labels = self.trainer is not None and self.trainer.has_labels
        candidate = Candidate(
            label,
            recipe,
            compressed,
            artifact,
            judgement,
            seconds,
            learned=recipe.trains and labels,
            rebuilt=compressed.native is not self.model.native,
        )
        self.candidates.append(candidate)
        return candidate

    @property
    def out_of_time(self) -> bool:
        """Whether one more candidate would take the search past its time limit: it ends."""
        if time.monotonic() + self.slowest < self.deadline:
            return False
        self.stopped = TIME_IS_UP
        return True

    def run(self) -> None:
        """Search for the boldest trade-off; candidates are left in ``candidates``."""
        if not self.worthwhile:
            return
        found = self._approach(
            self.first_guess(), PLAIN, steps=5, close=0.3, phase="finding the trade-off"
        )
        if self.out_of_time:
            return
        trade_off, settings = self._best_variant(found, PLAIN)
        final = self._approach(trade_off, settings, steps=5, close=0.05, phase="refining")
        self._fill_ladder(final, settings)
        self._step_back(final, settings)

    @property
    def worthwhile(self) -> bool:
        """Whether anything but lossless packing can be in question."""
        some = any(weight.is_float for weight in self.model.weights().values())
        if self.budget.max_drop is None and any(self.fits(c) for c in self.candidates):
            return False  # nothing keeps the outputs better than lossless packing
        return some and self.budget.max_drop != 0

    def fits(self, candidate: Candidate) -> bool:
        """Tell whether its file, header included, will keep the limit on size."""
        limit = self.budget.max_size_bytes
        return limit is None or candidate.size_bytes + HEADER_RESERVE_BYTES <= limit

    def first_guess(self) -> float:
        """Guess a trade-off to begin with, by the limit and the number of weights."""
        weights = self.model.weights().values()
        count = sum(w.tensor.dense().size for w in weights if w.is_float)
        allowed = self.budget.max_drop or 0.005
        return LOSS_PER_DROP * allowed / (LOSS_PER_BIT * max(count, 1))

    def quantized(self, trade_off: float, settings: dict[str, Any]) -> Recipe:
        """Give the recipe of one setting of the quantizer, in numbers that print well."""
        rounded = float(f"{min(max(trade_off, TRADE_OFFS[0]), TRADE_OFFS[1]):.4g}")
        settings = {**settings, "probe_at": float(f"{settings.get('probe_at', 0.0):.4g}")}
        step = {"use": "rate_distortion", "trade_off": rounded, **settings}
        return Recipe.from_dict({"seed": self.seed, "steps": [step]})

    def _try(self, trade_off: float, settings: dict[str, Any]) -> Candidate:
        """Try one setting of the quantizer."""
        recipe = self.quantized(trade_off, settings)
        for known in self.candidates:
            if known.recipe == recipe:
                return known
        (step,) = recipe.to_dict()["steps"]
        kind = "sequential" if settings["sequential"] else "plain"
        return self.attempt(recipe, f"{kind} {step['trade_off']:.3g}")

    def _approach(
        self, start: float, settings: dict[str, Any], *, steps: int, close: float, phase: str
    ) -> float:
        """Find the boldest trade-off that passes, by false position on logarithms.

        Args:
            start: trade-off to try first.
            settings: of the quantizer.
            steps: candidates to try at most.
            close: distance to the limit (logarithm) at which to stop.
            phase: what to call this.
        """
        log_x = math.log(start)
        points: list[tuple[float, float]] = []
        for step in range(steps):
            if points and self.out_of_time:
                break
            candidate = self._try(math.exp(log_x), settings)
            points.append((log_x, self.excess(candidate)))
            drop = candidate.judgement.drop
            self.progress(
                phase, (step + 1) / steps, f"{candidate.size_bytes} bytes, drop {drop:+.2%}"
            )
            if abs(points[-1][1]) < close:
                break
            log_x = _next(points)
        passing = [x for x, excess in points if excess <= close]
        return math.exp(max(passing) if passing else min(points)[0])

    def excess(self, candidate: Candidate) -> float:
        """Logarithm of how far a candidate is over the limit; negative where it passes.

        With a size limit alone, smaller trade-offs are bolder than needed: the sign turns.
        """
        if self.budget.max_drop is None:
            assert self.budget.max_size_bytes is not None
            room = max(self.budget.max_size_bytes - HEADER_RESERVE_BYTES, 1)
            return 4 * math.log(room / candidate.size_bytes)
        expected = self.estimates.upper(candidate)
        if self.budget.max_drop == 0:  # only what has learned from labels can keep that
            return math.inf if expected > 0 else -math.inf
        return math.log(max(expected, 1e-9) / self.budget.max_drop)

    def _best_variant(
        self, found: float, plain: dict[str, Any]
    ) -> tuple[float, dict[str, Any]]:
        """Compare settings of the quantizer at about the divergence of a reference.

        Each is judged by the bytes it would need at just that divergence; the logarithm of
        bytes falls about with a third of that of the divergence.

        Returns:
            The best settings, and the trade-off at which they should meet the reference.
        """
        reference = self._try(found, plain)
        best, best_cost, trade_off = plain, math.log(reference.size_bytes), found
        tried = 0

        def consider(change: dict[str, Any], guess: float) -> None:
            nonlocal best, best_cost, trade_off, tried
            tried += 1
            if self.out_of_time:
                return
            variant = {**best, **change}
            for _ in range(2):
                candidate = self._try(guess, variant)
                gap = math.log(
                    max(candidate.judgement.divergence, 1e-12)
                    / max(reference.judgement.divergence, 1e-12)
                )
                guess *= math.exp(-gap)
                if abs(gap) < COMPARABLE:
                    break
            self.progress(
                "comparing settings", tried / len(VARIANTS), f"{candidate.size_bytes} bytes"
            )
            cost = math.log(candidate.size_bytes) + BYTES_PER_DIVERGENCE * gap
            if cost < best_cost:
                best, best_cost, trade_off = variant, cost, guess

        for change in VARIANTS:
            if change is PROBING:
                consider({"probe_at": found}, trade_off)
                continue
            ratio = change.get("step_ratio", 0.0)
            before = best.get("step_ratio", 2.0)
            consider(change, trade_off * (before / ratio) ** 1.5 if ratio else trade_off)
        return trade_off, dict(best)

    def _fill_ladder(self, final: float, settings: dict[str, Any]) -> None:
        """Add neighbours of the final trade-off, so that the proof has steps to climb."""
        factors: tuple[float, ...]
        factors = NEARBY if self.budget.confidence is None else LADDER
        if self.budget.max_drop is None:
            factors = (1.03, 1.08, 1.25)  # those beside it that are a little smaller
        for step, factor in enumerate(factors):
            if self.out_of_time:
                return
            self._try(final * factor, settings)
            self.progress("refining", (step + 1) / len(factors))

    def bolder(self, last: Candidate) -> Iterator[Candidate]:
        """Go on from a candidate, for a proof that has passed everything up to it.

        Each is made only when asked for, and on search data alone: together they are one
        sequence that was fixed beforehand.
        """
        if last.trained:  # minutes each, and their trade-offs have been bracketed
            return
        (step,) = last.recipe.to_dict()["steps"]
        assert step.pop("use") == "rate_distortion"
        trade_off = float(step.pop("trade_off"))
        while not self.stopped and not self.out_of_time:
            trade_off *= BOLDER
            made = self._try(trade_off, step)
            if made.size_bytes >= last.size_bytes or self.excess(made) > HOPELESS:
                return
            last = made
            yield made

    def _step_back(self, final: float, settings: dict[str, Any]) -> None:
        """Go back, further every time, while nothing that was tried may be kept in the end."""
        for step in range(MOST_STEPS_BACK):
            lossy = [c for c in self.candidates if c.recipe.steps]
            if any(self._keeps(c) for c in lossy) or self.out_of_time:
                return
            factor = 2.0 ** ((step + 1) * (step + 2) / 2)
            is_size = self.budget.max_drop is None
            made = self._try(final * factor if is_size else final / factor, settings)
            self.progress("stepping back", 1.0, f"{made.size_bytes} bytes")

    def _keeps(self, candidate: Candidate) -> bool:
        """Tell whether a candidate keeps the limit, with confidence where that is asked.

        A ladder needs a first step that holds: were both splits unlucky, it would still pass.
        """
        limit, confidence = self.budget.max_drop, self.budget.confidence
        estimates = self.estimates
        if limit is None:
            return self.fits(candidate)
        counted = candidate.judgement.drop + estimates.allowance(candidate)
        if confidence is not None and estimates.provable:
            counted += candidate.judgement.allowance(len(self.judge.part), confidence)
        return max(estimates.upper(candidate), counted) <= limit


def _next(points: list[tuple[float, float]]) -> float:
    """Give the next logarithm to try, from (logarithm, excess) pairs so far."""
    below = max((p for p in points if p[1] <= 0), default=None)
    above = min((p for p in points if p[1] > 0), default=None)
    if below is not None and above is not None and below[0] < above[0]:
        share = -below[1] / (above[1] - below[1])
        return below[0] + float(np.clip(share, 0.15, 0.85)) * (above[0] - below[0])
    x, excess = points[-1]
    slope = 1.0
    if len(points) > 1 and points[-2][0] != x:
        slope = float(np.clip((excess - points[-2][1]) / (x - points[-2][0]), 0.4, 3.0))
    return x - float(np.clip(excess / slope, -math.log(STEEPEST), math.log(STEEPEST)))
