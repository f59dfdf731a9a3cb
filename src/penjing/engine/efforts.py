"""How far a search goes: quantizing what is there, training without labels, training with them.

Training is searched like quantizing: one trade-off between loss and bits orders all
candidates, and the boldest that the search split lets pass is sought with few runs, since
each takes minutes.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from penjing.core.errors import PenjingWarning, TrainingError, UnsupportedError
from penjing.core.model import LayerKind
from penjing.core.recipe import Recipe
from penjing.engine.invariances import kept_by, views
from penjing.engine.running import Running
from penjing.engine.search import PLAIN
from penjing.engine.training import unlabelled

if TYPE_CHECKING:
    from penjing.core.data import Splits
    from penjing.engine.candidate import Candidate
    from penjing.engine.job import Job
    from penjing.engine.search import Progress, Search
    from penjing.training.trainer import TorchTrainer

STEPS = (5000, 2500)
"""Steps of a training run, where rows are many and where they are few; epochs follow."""
FEWEST_EPOCHS, MOST_EPOCHS = 3.0, 400.0
BATCHES = (128, 64)
"""Rows of one step: the first where there are many, the second where there are few."""
MANY_ROWS = 20_000
MOST_RUNS = (4, 5)
"""Training runs of one search: where rows are many and where they are few, as such runs differ
more in what they lose from one to the next."""
BOLDER = (2.0, 1.12)
"""Factor of the trade-off from one run to the next, while the limit is not between two: where
rows are many and where they are few.  What is lost there is chance as much as boldness, so the
next run is close by; the factor is squared, cubed and so on from then on."""
FIRST_LEAP = 4.0
"""The same after a first run that passed, where rows are many: labels are hard to foresee."""
FIRST, MOST_FIRST = 0.3, 2.0
"""Trade-off to begin with, times the number of weights, times the square of the bits that each
takes after quantizing alone, and at most: what has few bits has many to spare."""
UNKNOWN_FIRST = 1.0
"""The same where quantizing alone was not tried."""
BEYOND = (2.0, 4.0)
"""Trade-off of the quantization that training begins with, over the boldest within the limit:
what that loses is won back.  Where rows are many, training itself makes the file smaller;
where they are few, it hardly changes codes, and bolder runs begin bolder still."""
CLOSE_BY = 0.3
"""Excess (logarithm) up to which such a quantization counts as within it."""
CAREFUL = 16.0
"""How much finer than guessed training begins where no loss is allowed."""
RATES = (0.02, 0.01)
"""Learning rate, in steps of each weight's grid: where rows are many and where they are few."""
CLOSE = 1.12
"""Factor between two trade-offs, one within the limit and one beyond, at which to stop."""
TEACHER = (0.0, 0.7)
"""Share of the original's word beside labels: where rows are many, and where they are so few
that labels alone would be learned by heart."""
FROM_ORIGINAL = {"weight": 1.0, "temperature": 4.0, "features": 1.0}
"""The section ``distillation`` where labels have no part, since there are none, or images are
blended.  What blocks give tells more about an image than its classes do, which counts where
images are few."""
TIME_OF_RUN = 0.45
"""Share of the time left that one run may take, where time is limited."""

FAILED = "training failed, which ended the search early"


def run(job: Job, search: Search, splits: Splits, trainer: TorchTrainer | None) -> None:
    """Search as far as the job says; candidates are left in ``search``."""
    search.run()
    enough = job.effort == "post-training" or (job.effort == "auto" and met(search))
    if enough or search.stopped or trainer is None:
        return
    if search.budget.max_drop is None and met(search):  # nothing is left to win
        return
    # Whatever learns from the original's outputs alone is of no use where nothing may be lost.
    first = job.effort in {"auto", "reconstruct"} and search.budget.max_drop != 0
    if first:
        _train(_Trained(search, splits, unlabelled(trainer), labelled=False))
    if job.train is None or job.effort == "reconstruct" or search.stopped:
        return
    trained = _Trained(search, splits, trainer, labelled=True)
    if first and (met(search) or trained.blends):  # blends have no labels: all has been tried
        return
    _train(trained)


def _train(trained: _Trained) -> None:
    """Train; what goes wrong there ends the search with the best so far."""
    try:
        trained.run()
    except (TrainingError, UnsupportedError) as error:
        warnings.warn(str(error), PenjingWarning, stacklevel=2)
        trained.search.stopped = FAILED


def told(job: Job, search: Search, chosen: Candidate) -> tuple[str, ...]:
    """Say where training was asked for and the file owes nothing to it."""
    if job.recipe is not None or not job.trains:
        return ()
    if chosen.trained:
        return ()
    runs = sum(candidate.trained for candidate in search.candidates)
    if not runs:
        why = search.stopped or (
            "a file within the limits was found without"
            if search.budget.max_drop is None
            else "nothing may change"
        )
        return (f"nothing was trained: {why}",)
    which = "the one training run" if runs == 1 else f"the {runs} training runs"
    return (f"{which} gave no smaller file within the limits: it comes from quantizing alone",)


def met(search: Search) -> bool:
    """Tell whether a candidate keeps every limit, as far as the search split tells."""
    limit = search.budget.max_drop
    return any(
        search.fits(candidate) and (limit is None or search.estimates.within(candidate, limit))
        for candidate in search.candidates
    )


@dataclass(eq=False)
class _Trained:
    """Looks for the boldest trade-off of rate-penalised training."""

    search: Search
    splits: Splits
    trainer: TorchTrainer
    labelled: bool
    within: list[float] = field(default_factory=list, init=False)
    beyond: list[float] = field(default_factory=list, init=False)

    def run(self) -> None:
        sections, epochs = self._sections(), self._epochs()
        first = self._first()
        settings = self._recipe(first, 1.0, epochs, sections).settings
        trainer = self.trainer.configured(settings, self.search.seed)
        seconds = trainer.seconds_per_step(self.search.model)
        epochs = self._affordable(epochs, seconds)
        minutes = seconds * epochs * self._steps_per_epoch() / 60
        what = "training" if self.labelled else "reconstruction"
        minutes = max(minutes, 0.1)
        self.search.progress(
            "expected time",
            0.0,
            f"{what} takes about {minutes:.1f} min a run, {self.most_runs} runs at most",
        )
        self._look_closely()
        trade_off = first
        for number in range(self.most_runs):
            if self.search.out_of_time:
                return
            self.search.trainer = replace(self.trainer, progress=self._of_run(number))
            kind = "trained" if self.labelled else "reconstructed"
            bolder = trade_off / first if self.few else 1.0
            recipe = self._recipe(trade_off, bolder, epochs, sections)
            candidate = self.search.attempt(recipe, f"{kind} {trade_off:.3g}")
            (self.within if self._passes(candidate) else self.beyond).append(trade_off)
            drop = candidate.judgement.drop
            self.search.progress(
                "training",
                (number + 1) / self.most_runs,
                f"{candidate.size_bytes} bytes, drop {drop:+.2%}",
            )
            following = self._next()
            if following is None:
                return
            trade_off = following

    def _look_closely(self) -> None:
        """Judge what is trained by changed images as well, where the original's word counts."""
        judge = self.search.judge
        if self.blends and judge.expectation is not None and judge.metric.needs_labels:
            judge.look_at(Running(self.search.model), views(judge.part, self._changes))

    def _of_run(self, number: int) -> Progress:
        """Tell how far all runs are by how far one of them is."""

        def tell(phase: str, share: float, note: str = "") -> None:
            done = (number + share) / self.most_runs
            self.trainer.progress(phase, done, f"run {number + 1}: {note}")

        return tell

    def _recipe(
        self, trade_off: float, bolder: float, epochs: float, sections: dict[str, Any]
    ) -> Recipe:
        """Quantize, for steps to begin with, then train.

        Args:
            trade_off: of training.
            bolder: factor of the trade-off of quantizing.
            epochs: of training.
            sections: which say how to train.
        """
        begins_at = float(f"{bolder * self._start:.3g}")
        (quantize,) = self._plain(begins_at).to_dict()["steps"]
        train = {
            "use": "rate_penalized_training",
            "epochs": float(f"{epochs:.4g}"),
            "learning_rate": RATES[self.few],
            "trade_off": float(f"{trade_off:.3g}"),
            "centered": self.few,
        }
        return Recipe.from_dict(
            {"seed": self.search.seed, **sections, "steps": [quantize, train]}
        )

    @property
    def blends(self) -> bool:
        """Whether images are blended, so that labels have no part."""
        return "blend" in self._changes

    def _sections(self) -> dict[str, Any]:
        """Give the sections of a recipe that say how to train."""
        training = {
            "batch_size": self.batch,
            "precision": self._precision(),
            **self._changes,
        }
        if self.blends or not self.labelled:
            return {"training": training, "distillation": dict(FROM_ORIGINAL)}
        teach = self.few or len(self.trainer.teachers) > 1  # those that were given are heard
        return {"training": training, "distillation": {"weight": TEACHER[teach]}}

    def _precision(self) -> str:
        """Choose bfloat16 to tell classes by convolutions and few rows, where it is faster.

        There the rows are what limits training; weights themselves stay float32.
        """
        from penjing.training.surroundings import fast_in_bfloat16

        kinds = {weight.kind for weight in self.search.model.weights().values()}
        suits = self.few and LayerKind.CONV in kinds and self.search.judge.metric.bounded
        return "bfloat16" if suits and fast_in_bfloat16() else "float32"

    def _passes(self, candidate: Candidate) -> bool:
        """Tell whether a candidate is within the limit; with one on size alone, above it."""
        limit = self.search.budget.max_drop
        if limit is None:
            return not self.search.fits(candidate)
        return self.search.estimates.upper(candidate) <= limit

    def _next(self) -> float | None:
        """Go on beyond what has passed, back from what has not, or between the two."""
        if self.within and self.beyond:
            low, high = max(self.within), min(self.beyond)
            return math.sqrt(low * high) if high > CLOSE * low else None
        runs = len(self.within) + len(self.beyond)
        leap = BOLDER[self.few] ** (runs if self.few else 1)
        if self.beyond:
            return min(self.beyond) / leap
        if runs == 1 and self.labelled and not self.few:
            leap = FIRST_LEAP
        return max(self.within) * leap

    def _first(self) -> float:
        """Guess a trade-off by what quantizing alone has come to."""
        weights = self.search.model.weights().values()
        count = max(sum(w.tensor.dense().size for w in weights if w.is_float), 1)
        lossy = [c for c in self.search.candidates if c.recipe.steps and not c.trained]
        if not lossy:
            return UNKNOWN_FIRST / count
        within = [c.size_bytes for c in lossy if self._passes(c)]
        bits = 8 * min(within, default=max(c.size_bytes for c in lossy)) / count
        return min(FIRST / bits**2, MOST_FIRST) / count

    def _plain(self, trade_off: float) -> Recipe:
        """Quantize by the settings that are tried first, and nothing else.

        Codes that better settings choose are smaller, but training moves them no further: in
        the end, the drop is the same for the same bytes.
        """
        return self.search.quantized(trade_off, PLAIN)

    @cached_property
    def _start(self) -> float:
        """Choose the trade-off of the quantization that the first training begins with."""
        known: dict[float, bool] = {
            step["trade_off"]: self.search.excess(candidate) <= CLOSE_BY
            for candidate in self.search.candidates
            for step in candidate.recipe.to_dict()["steps"]
            if step["use"] == "rate_distortion"
            and candidate.recipe == self._plain(step["trade_off"])
        }
        passing = [
            BEYOND[self.few] * trade_off for trade_off, passed in known.items() if passed
        ]
        if not known:  # nothing may be lost, so nothing was tried
            return self.search.first_guess() / CAREFUL
        return max(passing, default=min(known))

    @property
    def batch(self) -> int:
        """Rows of one step."""
        return BATCHES[self.few]

    @property
    def few(self) -> bool:
        """Whether there are few rows to train on."""
        return len(self.trainer.part) < MANY_ROWS

    @property
    def most_runs(self) -> int:
        """Runs at most."""
        return MOST_RUNS[self.few]

    def _steps_per_epoch(self) -> float:
        return max(1.0, len(self.trainer.part) / self.batch)

    def _epochs(self) -> float:
        return min(max(STEPS[self.few] / self._steps_per_epoch(), FEWEST_EPOCHS), MOST_EPOCHS)

    def _affordable(self, epochs: float, seconds_per_step: float) -> float:
        """Train for a shorter time where time is limited.

        Measured times differ from run to run, so epochs are those of a coarse grid: mostly the
        same then, and with them the checkpoint that is found.
        """
        left = self.search.deadline - time.monotonic()
        if not math.isfinite(left):
            return epochs
        most = TIME_OF_RUN * max(left, 0.0) / (seconds_per_step * self._steps_per_epoch())
        return epochs if most >= epochs else max(coarse(max(most, 0.1)), 0.1)

    @cached_property
    def _changes(self) -> dict[str, Any]:
        """Change images in the ways that the original does not mind.

        Few are distorted and blended as well: the original says what it sees in that, and is
        as unsure of it as of images that it has never seen.
        """
        if not self.search.judge.metric.bounded:  # values may change with the image
            return {}
        found = kept_by(self.search.model, self.splits)
        # Blends have no labels, and only labels teach a model to lose nothing.
        if found and (self.few or not self.labelled) and self.search.budget.max_drop != 0:
            found["distort"] = found["blend"] = True
        return found


def coarse(epochs: float) -> float:
    """Round down to a power of the square root of two.

    >>> coarse(16.0), coarse(17.0), coarse(22.7), coarse(0.1)
    (16.0, 16.0, 22.63, 0.08839)
    """
    return float(f"{2 ** (math.floor(2 * math.log2(epochs) + 1e-9) / 2):.4g}")
