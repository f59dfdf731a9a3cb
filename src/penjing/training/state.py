"""All that changes in a run, to be kept and put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

if TYPE_CHECKING:
    from penjing.core.training import Optimization

SMALLEST_AVERAGE = 1e-30
"""Averages of gradients below are set to zero: numbers of less than about 1e-38 are slow."""

Pace = Callable[[torch.nn.Parameter], torch.Tensor]
"""Tells how far a lasting gradient of one would move each number of a parameter now."""


@dataclass(slots=True, eq=False)
class State:
    """A module with its optimizer at a step."""

    module: torch.nn.Module
    optimizer: Any
    """An optimizer, as Accelerate wraps it."""
    course: Callable[[int], float]
    """Tells the learning rate at a step, relative to the largest."""
    scaler: Any = None
    """Scales the loss where gradients are 16-bit numbers."""
    step: int = 0
    rates: list[float] = field(init=False)
    """Largest rate of each group of parameters."""

    def __post_init__(self) -> None:
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.set_rates()

    def set_rates(self) -> None:
        """Set each group's learning rate for the step."""
        factor = self.course(self.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    @property
    def learning_rate(self) -> float:
        """Rate of the step at hand, of the fastest parameters."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def advance(self) -> None:
        """Go to the next step."""
        self.step += 1
        self.set_rates()

    def settle(self) -> None:
        """Set averages that have all but vanished to zero."""
        for held in self.optimizer.state.values():
            for value in held.values():
                if isinstance(value, torch.Tensor) and value.ndim:
                    value.masked_fill_(value.abs() < SMALLEST_AVERAGE, 0.0)

    def copy(self) -> dict[str, Any]:
        """Copy everything: tensors, numbers and nothing else."""
        return {
            "step": self.step,
            "module": cloned(self.module.state_dict()),
            "optimizer": cloned(self.optimizer.state_dict()),
            "scaler": None if self.scaler is None else dict(self.scaler.state_dict()),
        }

    def restore(self, known: dict[str, Any]) -> None:
        """Put everything back; the course of the rate follows from the step alone."""
        self.step = known["step"]
        self.module.load_state_dict(known["module"])
        self.optimizer.load_state_dict(cloned(known["optimizer"]))
        if self.scaler is not None and known["scaler"] is not None:
            self.scaler.load_state_dict(known["scaler"])
        self.set_rates()

    def is_finite(self) -> bool:
        """Tell whether no parameter is NaN or infinite."""
        return all(bool(torch.isfinite(p).all()) for p in self.module.parameters())

    def pace(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Read the pace of each number off the optimizer: the rate, over Adam's denominator."""
        group = next(
            group
            for group in self.optimizer.param_groups
            if any(member is parameter for member in group["params"])
        )
        held = self.optimizer.state.get(parameter, {})
        rate = torch.as_tensor(group["lr"])
        if "exp_avg_sq" not in held:
            return rate / (1 - float(group.get("momentum", 0.0)))
        correction = 1 - group["betas"][1] ** float(held["step"])
        moved: torch.Tensor = rate / ((held["exp_avg_sq"] / correction).sqrt() + group["eps"])
        return moved


def cloned(state: Any) -> Any:
    """Copy tensors, and what holds them."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: cloned(value) for key, value in state.items()}
    if isinstance(state, list):
        return [cloned(value) for value in state]
    return copy.copy(state)


def make_optimizer(
    settings: Optimization, groups: list[dict[str, Any]], learning_rate: float
) -> Optimizer:
    """Make the optimizer that the settings name."""
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
    kind = AdamW if settings.optimizer == "adamw" else Adam
    return kind(groups, lr=learning_rate)
