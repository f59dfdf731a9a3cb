"""The one training loop: every technique that learns, and every template, runs through it."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from penjing.core.errors import PenjingError, PenjingWarning, TrainingError
from penjing.core.training import Moment
from penjing.training.early_stopping import Stopper
from penjing.training.learning_rate import find_learning_rate
from penjing.training.rows import Rows, SeededBatches, steps_per_epoch
from penjing.training.state import Pace, State, make_optimizer
from penjing.training.stepping import Stepper, Trainee
from penjing.training.surroundings import accelerated, all_alike, reproducible

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

    from penjing.core.training import Optimization
    from penjing.training.checkpoints import Checkpoints

__all__ = ["Pace", "Run", "Trainee"]

CHECK_EVERY = 25
"""Steps between looks at the loss: each look keeps a state to go back to."""
SAVE_EVERY_S = 20.0
"""Seconds between checkpoints; when they are written has no part in the result."""
EXPLODED = 10.0
"""Loss, relative to the first one or to 1, beyond which a state is none to go back to."""
MOST_ROLLBACKS = 4
BRAKE = 0.3
"""Factor of the learning rate after a rollback."""
WARM_UP = 0.3
"""Share of the run in which the one-cycle schedule rises."""
FIRST = 0.04
"""First learning rate of the one-cycle schedule, relative to the largest."""
LOWEST = 1e-3
"""Last learning rate of the falling schedules, relative to the largest."""


@dataclass(slots=True)
class Run:
    """One training run."""

    trainee: Trainee
    rows: Rows
    settings: Optimization
    epochs: float
    learning_rate: float
    """Largest of the schedule; 0 looks for one."""
    seed: int
    key: str
    """Digest of all that decides the result: what a checkpoint is found by."""
    checkpoints: Checkpoints
    progress: Callable[[float, str], None]
    stop: Callable[[Moment], bool] = lambda moment: moment.step < 0
    """Asked after every epoch: whether to end early."""
    held: Rows | None = None
    """Rows that are not trained on, by which patience judges."""
    settled: float = 0.0
    """Share of the run after which a state could be the result."""
    rollbacks: int = field(default=0, init=False)

    @property
    def steps(self) -> int:
        """Count the steps of the run."""
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps of one pass over the rows."""
        return steps_per_epoch(len(self.rows), self.settings.batch_size)

    def go(self) -> int:
        """Train to the end, from a checkpoint where there is one; give the steps done.

        Whatever ends it before, such as Ctrl-C, leaves a checkpoint of the last good state.

        Raises:
            TrainingError: the loss became NaN or infinite again and again, or a GPU's memory
                is too small.
            ConfigError: the precision, or the batch size, does not fit where it runs.
        """
        with reproducible(), accelerated(self.settings.precision) as accelerator:
            return self._go(accelerator)

    def _go(self, accelerator: Accelerator) -> int:
        stepper = Stepper(
            self.trainee, self.rows, self.settings, self.seed, accelerator, self._tell
        )
        known = self._known(accelerator)
        if known is not None:
            self.learning_rate, self.rollbacks = known["rate"], known["rollbacks"]
            stepper.pieces = known["pieces"]
        elif self.learning_rate == 0:
            self._tell("looking for a learning rate")
            self.learning_rate = find_learning_rate(stepper)
            self._tell(f"learning rate {self.learning_rate:.3g}, found by a range test")
        groups = self.trainee.groups(self.learning_rate, self.settings.weight_decay)
        raw = make_optimizer(self.settings, groups, self.learning_rate)
        optimizer = accelerator.prepare_optimizer(raw)
        state = State(self.trainee.module, optimizer, self._course, accelerator.scaler)
        keeper = _Keeper(
            self, state, stepper, self._stopper(stepper), accelerator.is_main_process
        )
        if known is not None:
            keeper.go_on_from(known)
        try:
            while state.step < self.steps and not keeper.ended:
                self._stretch(keeper)
        except PenjingError:
            raise
        except BaseException:
            keeper.save()
            raise
        keeper.end()
        return state.step

    def _known(self, accelerator: Accelerator) -> dict[str, Any] | None:
        """Load the state of the run, if all processes have the same."""
        known = self.checkpoints.load(self.key)
        step = -1 if known is None else known["step"]
        return known if all_alike(accelerator, step) else None

    def _stopper(self, stepper: Stepper) -> Stopper | None:
        if not self.settings.patience or self.held is None:
            return None
        first = max(1, round(self.settled * self.steps))
        return Stopper(stepper, self.held, self.settings.patience, first)

    def _stretch(self, keeper: _Keeper) -> None:
        """Train from one step on, to the end or to a rollback."""
        state, stepper = keeper.state, keeper.stepper
        batches = SeededBatches(
            len(self.rows), self.settings.batch_size, self.seed, state.step, self.steps
        )
        self.trainee.module.train()
        for places in batches:
            loss = stepper.gradients(state.optimizer, places, self.moment(state))
            self._step(state)
            state.advance()
            self.trainee.after(self.moment(state), state.pace)
            if not keeper.goes_on(loss):
                break

    def _step(self, state: State) -> None:
        try:
            state.optimizer.step()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"step {state.step + 1} of {self.steps}",
                "the GPU's memory does not hold what the optimizer remembers of each weight",
                "end other programs on it, choose optimizer: sgd with momentum: 0 in the "
                "section 'training' of the recipe, or set CUDA_VISIBLE_DEVICES= to train on "
                "the CPU",
            ) from error

    def moment(self, state: State) -> Moment:
        """Tell where the run stands."""
        return Moment(state.step, self.steps, state.learning_rate)

    def _tell(self, note: str) -> None:
        self.progress(0.0, note)

    def _course(self, step: int) -> float:
        """Give the learning rate at a step, relative to the largest."""
        done = min(step / self.steps, 1.0)
        brake = BRAKE**self.rollbacks
        if self.settings.schedule == "constant":
            return brake
        if self.settings.schedule == "one_cycle":
            if done < WARM_UP:
                risen = (1 - math.cos(math.pi * done / WARM_UP)) / 2
                return brake * (FIRST + (1 - FIRST) * risen)
            done = (done - WARM_UP) / (1 - WARM_UP)
        return brake * (LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(slots=True)
class _Keeper:
    """Looks at the loss every so often, and keeps a state to go back or to go on from."""

    run: Run
    state: State
    stepper: Stepper
    stopper: Stopper | None
    writes: bool
    """Whether this process keeps checkpoints."""
    ended: bool = field(default=False, init=False)
    good: dict[str, Any] = field(init=False)
    """The last state: what a checkpoint holds."""
    safe: dict[str, Any] = field(init=False)
    """The last state before the loss exploded, if it has: what to go back to."""
    first: float = field(default=math.nan, init=False)
    """Loss of the first step."""
    losses: list[torch.Tensor] = field(default_factory=list, init=False)
    saved: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self.good = self.safe = self.copy()

    def copy(self) -> dict[str, Any]:
        """Copy all that a run can go on from."""
        return {
            **self.state.copy(),
            "stopper": None if self.stopper is None else self.stopper.copy(),
            "ended": self.ended,
            "first": self.first,
        }

    def go_on_from(self, known: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.restore(known)
        self.good = self.copy()
        self.safe = known["safe"] or self.good

    def restore(self, known: dict[str, Any]) -> None:
        """Put everything back."""
        self.state.restore(known)
        if self.stopper is not None:
            self.stopper.restore(known["stopper"])
        self.ended, self.first = known["ended"], known["first"]

    def goes_on(self, loss: torch.Tensor) -> bool:
        """Note the loss of a step; tell whether the next batch is the one to go on with."""
        self.losses.append(loss)
        step, per_epoch = self.state.step, self.run.steps_per_epoch
        at_end = step % per_epoch == 0 or step >= self.run.steps
        if not at_end and len(self.losses) < CHECK_EVERY:
            return True
        mean = float(torch.stack(self.losses).mean())
        if math.isnan(self.first):
            self.first = float(self.losses[0])
        self.losses.clear()
        if not (math.isfinite(mean) and self.state.is_finite()):
            self._roll_back()
            return False
        self.state.settle()
        note = f"loss {mean:.4g}"
        if at_end:
            note += self._end_of_epoch()
        self.good = self.copy()
        if mean <= EXPLODED * max(1.0, self.first):
            self.safe = self.good
        self.run.progress(step / self.run.steps, note)
        if time.monotonic() - self.saved >= SAVE_EVERY_S:
            self.save()
        return not self.ended

    def _end_of_epoch(self) -> str:
        """Ask whether to go on; give what there is to tell."""
        moment, told = self.run.moment(self.state), ""
        self.ended = self.run.stop(moment)
        if self.stopper is not None:
            told = f", held-out loss {self.stopper.look(self.state, moment):.4g}"
            self.ended = self.ended or self.stopper.is_over
        return told

    def save(self) -> None:
        """Write the last good state to disk, in the main process."""
        self.saved = time.monotonic()
        if self.writes:
            run = self.run
            known = {
                "rate": run.learning_rate,
                "rollbacks": run.rollbacks,
                "pieces": self.stepper.pieces,
                "safe": None if self.safe is self.good else self.safe,
            }
            run.checkpoints.save(run.key, {**self.good, **known})

    def end(self) -> None:
        """Bring back the best state, where one was looked for."""
        if self.stopper is not None and self.stopper.put_back(self.state):
            self.run.progress(
                1.0,
                f"ended at step {self.state.step} of {self.run.steps}, with the best state by "
                f"held-out loss: that of step {self.stopper.step}",
            )

    def _roll_back(self) -> None:
        """Go back to the last good state, and on with a smaller rate."""
        run, failed = self.run, self.state.step
        run.rollbacks += 1
        rate = run.learning_rate * BRAKE**run.rollbacks
        if run.rollbacks > MOST_ROLLBACKS:
            raise TrainingError(
                f"step {failed} of {run.steps}",
                f"the loss is no number, and was none after {MOST_ROLLBACKS} smaller rates",
                f"set a learning_rate below {rate:.1g}, or clip_norm: 1 in the section "
                "'training' of the recipe",
            )
        self.restore(self.safe)
        self.good = self.safe
        back = f"back to step {self.state.step}, with a rate of {rate:.2g}"
        told = f"the loss is no number: {back}"
        run.progress(self.state.step / run.steps, told)
        if self.writes:  # once, whatever the number of processes
            warnings.warn(told, PenjingWarning, stacklevel=2)
