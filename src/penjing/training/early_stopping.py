"""Ending a run where rows that were held out no longer gain by it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penjing.training.state import State, cloned

if TYPE_CHECKING:
    from penjing.core.training import Moment
    from penjing.training.rows import Rows
    from penjing.training.stepping import Stepper


@dataclass(slots=True, eq=False)
class Stopper:
    """Measures the loss on held-out rows after every epoch, and remembers the best state.

    References:
        Prechelt, "Early Stopping - But When?", 1998.
    """

    stepper: Stepper
    held: Rows
    patience: int
    """Epochs without a better loss after which to end."""
    first: int
    """Step before which nothing counts: what is trained does not have its last form yet."""
    loss: float = field(default=math.inf, init=False)
    stale: int = field(default=0, init=False)
    best: dict[str, Any] | None = field(default=None, init=False)
    step: int = field(default=0, init=False)
    """Step of the best state."""

    @property
    def is_over(self) -> bool:
        """Whether the run is to end."""
        return self.stale >= self.patience

    def look(self, state: State, moment: Moment) -> float:
        """Measure after an epoch; give the loss."""
        loss = self.stepper.held_out_loss(self.held, moment)
        if state.step < self.first:
            return loss
        if loss < self.loss or self.best is None:
            self.loss, self.stale, self.step = loss, 0, state.step
            self.best = cloned(state.module.state_dict())
        else:
            self.stale += 1
        return loss

    def put_back(self, state: State) -> bool:
        """Bring the best state back; tell whether there was a better one than the last."""
        if self.best is None or self.step == state.step:
            return False
        state.module.load_state_dict(self.best)
        return True

    def copy(self) -> dict[str, Any]:
        """Copy what a checkpoint has to hold."""
        return {
            "loss": self.loss,
            "stale": self.stale,
            "best": self.best,  # never changed, only replaced
            "step": self.step,
        }

    def restore(self, known: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.loss, self.stale = known["loss"], known["stale"]
        self.best, self.step = known["best"], known["step"]
