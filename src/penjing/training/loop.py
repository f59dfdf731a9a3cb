"""The one training loop: every technique that learns, and every template, runs through it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from penjing.core.errors import ConfigError, OutputError, TrainingError
from penjing.core.training import Moment
from penjing.training.augmentation import augmented
from penjing.training.rows import Rows, SeededBatches, loader, steps_per_epoch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    from penjing.core.training import Optimization
    from penjing.training.checkpoints import Checkpoints
    from penjing.training.rows import Sample

CHECK_EVERY = 25
"""Steps between looks at the loss: each look keeps a state to go back to."""
SAVE_EVERY_S = 20.0
"""Seconds between checkpoints; when they are written has no part in the result."""
MOST_ROLLBACKS = 4
BRAKE = 0.3
"""Factor of the learning rate after a rollback."""
WARM_UP = 0.3
"""Share of the run in which the one-cycle schedule rises."""
LOWEST = 1e-3
"""Last learning rate of the falling schedules, relative to the largest."""


Pace = Callable[[torch.nn.Parameter], torch.Tensor]
"""Tells how far a lasting gradient of one would move each number of a parameter now."""


class Trainee(Protocol):
    """What the loop trains: a module, and what it costs on a batch."""

    @property
    def module(self) -> torch.nn.Module:
        """Hold parameters and buffers."""

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Sort the parameters by learning rate, for an optimizer."""

    def loss(
        self, module: Any, sample: Sample, moment: Moment
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the (wrapped) module on a batch; give what to minimise, and what to show."""

    def after(self, moment: Moment, pace: Pace) -> None:
        """Change what changes between steps."""


@dataclass(slots=True)
class Run:
    """One training run."""

    trainee: Trainee
    rows: Rows
    settings: Optimization
    epochs: float
    learning_rate: float
    seed: int
    key: str
    """Digest of all that decides the result: what a checkpoint is found by."""
    checkpoints: Checkpoints
    progress: Callable[[float, str], None]
    stop: Callable[[Moment], bool] = lambda moment: moment.step < 0
    """Asked after every epoch: whether to end early."""
    rollbacks: int = field(default=0, init=False)

    @property
    def steps(self) -> int:
        """Count the steps of the run."""
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps of one pass over the rows."""
        return steps_per_epoch(len(self.rows), self.settings.batch_size)

    def go(self) -> None:
        """Train to the end, from a checkpoint where there is one.

        Raises:
            TrainingError: the loss became NaN or infinite again and again.
            OutputError: a checkpoint cannot be written.
        """
        with torch.random.fork_rng(), _deterministic():
            torch.set_flush_denormal(True)  # averages of what is zero vanish slowly
            try:
                self._go()
            finally:
                torch.set_flush_denormal(False)

    def _go(self) -> None:
        accelerator = _accelerator(self.settings.precision)
        module = accelerator.prepare_model(self.trainee.module)
        raw = _optimizer(self.settings, self.trainee, self.learning_rate)
        scheduler = LambdaLR(raw, self._course)
        optimizer = accelerator.prepare_optimizer(raw)
        state = _State(self.trainee.module, optimizer, scheduler)
        known = self.checkpoints.load(self.key)
        if known is not None:
            state.restore(known)
        keeper = _Keeper(self, state, accelerator.is_main_process)
        while state.step < self.steps and not keeper.ended:
            batches = SeededBatches(
                len(self.rows), self.settings.batch_size, self.seed, state.step, self.steps
            )
            module.train()
            for sample in prepare_data_loader(accelerator, loader(self.rows, batches)):
                loss = self._step(accelerator, module, optimizer, state, sample)
                if not keeper.goes_on(loss):
                    break

    def _step(
        self,
        accelerator: Accelerator,
        module: Any,
        optimizer: Any,
        state: _State,
        sample: Sample,
    ) -> torch.Tensor:
        moment = self.moment(state)
        with accelerator.autocast():
            loss, shown = self.trainee.loss(module, self._varied(sample, state.step), moment)
        optimizer.zero_grad()
        accelerator.backward(loss)
        if self.settings.clip_norm:
            accelerator.clip_grad_norm_(module.parameters(), self.settings.clip_norm)
        optimizer.step()
        state.advance()
        self.trainee.after(self.moment(state), _pace(optimizer))
        return shown.detach()

    def _varied(self, sample: Sample, step: int) -> Sample:
        """Change the images of a batch, and let dropout draw: both by seed and step."""
        inputs, labels = sample
        torch.manual_seed(_mixed(self.seed, step))
        generator = torch.Generator().manual_seed(_mixed(self.seed + 1, step))
        shift, mirror = self.settings.shift, self.settings.mirror
        return augmented(inputs, shift, generator, mirror=mirror), labels

    def moment(self, state: _State) -> Moment:
        """Tell where the run stands."""
        return Moment(state.step, self.steps, float(state.scheduler.get_last_lr()[-1]))

    def _course(self, step: int) -> float:
        """Give the learning rate at a step, relative to the largest."""
        done = min(step / self.steps, 1.0)
        brake = BRAKE**self.rollbacks
        if self.settings.schedule == "constant":
            return brake
        if self.settings.schedule == "one_cycle":
            if done < WARM_UP:
                return brake * (0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM_UP)) / 2)
            done = (done - WARM_UP) / (1 - WARM_UP)
        return brake * (LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(slots=True)
class _Keeper:
    """Looks at the loss every so often, and keeps a state to go back or to go on from."""

    run: Run
    state: _State
    writes: bool
    """Whether this process keeps checkpoints."""
    ended: bool = field(default=False, init=False)
    good: dict[str, Any] = field(init=False)
    losses: list[torch.Tensor] = field(default_factory=list, init=False)
    saved: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self.good = self.state.copy()

    def goes_on(self, loss: torch.Tensor) -> bool:
        """Note the loss of a step; tell whether the next batch is the one to go on with."""
        self.losses.append(loss)
        step, per_epoch = self.state.step, self.run.steps_per_epoch
        at_end = step % per_epoch == 0 or step >= self.run.steps
        if not at_end and len(self.losses) < CHECK_EVERY:
            return True
        mean = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not (math.isfinite(mean) and _finite(self.state.module)):
            self._roll_back()
            return False
        self.good = self.state.copy()
        self.run.progress(step / self.run.steps, f"loss {mean:.4g}")
        self._save()
        self.ended = at_end and self.run.stop(self.run.moment(self.state))
        return not self.ended

    def _save(self) -> None:
        if not self.writes or time.monotonic() - self.saved < SAVE_EVERY_S:
            return
        self.saved = time.monotonic()
        try:
            self.run.checkpoints.save(self.run.key, self.good)
        except OutputError as error:  # the training itself can go on
            self.run.progress(
                self.state.step / self.run.steps, f"{error.where}: {error.problem}"
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
        self.state.restore(self.good)
        run.progress(
            self.state.step / run.steps,
            f"the loss is no number: back to step {self.state.step}, with a rate of {rate:.2g}",
        )


@dataclass(slots=True)
class _State:
    """All that changes in a run."""

    module: torch.nn.Module
    optimizer: Optimizer
    scheduler: LambdaLR
    step: int = 0

    def advance(self) -> None:
        self.step += 1
        self.scheduler.step()

    def copy(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "module": _cloned(self.module.state_dict()),
            "optimizer": _cloned(self.optimizer.state_dict()),
        }

    def restore(self, known: dict[str, Any]) -> None:
        self.step = known["step"]
        self.module.load_state_dict(known["module"])
        self.optimizer.load_state_dict(_cloned(known["optimizer"]))
        # The course of the rate follows from the step alone.
        self.scheduler.last_epoch = self.step
        rates = [
            base * course(self.step)
            for base, course in zip(
                self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True
            )
        ]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.scheduler._last_lr = rates  # noqa: SLF001  # it has no setter


def _cloned(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _cloned(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_cloned(value) for value in state]
    return copy.copy(state)


def _finite(module: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())


def _mixed(seed: int, step: int) -> int:
    """Give each step a seed of its own (Knuth's multiplicative hash)."""
    return (seed * 0x9E3779B1 + step * 0x85EBCA77 + 0x5EED) % 2**63


def _optimizer(settings: Optimization, trainee: Trainee, learning_rate: float) -> Optimizer:
    groups = trainee.groups(learning_rate, settings.weight_decay)
    if settings.optimizer == "sgd":
        return SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    kind = AdamW if settings.optimizer == "adamw" else Adam
    return kind(groups, lr=learning_rate)


def _pace(optimizer: Optimizer) -> Pace:
    """Read the pace of each number off the optimizer: the rate, over Adam's denominator."""
    rates = {id(p): group for group in optimizer.param_groups for p in group["params"]}

    def pace(parameter: torch.nn.Parameter) -> torch.Tensor:
        group, state = rates[id(parameter)], optimizer.state[parameter]
        rate = torch.as_tensor(group["lr"])
        if "exp_avg_sq" not in state:
            return rate
        correction = 1 - group["betas"][1] ** float(state["step"])
        moved: torch.Tensor = rate / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
        return moved

    return pace


def prepare_data_loader(accelerator: Accelerator, batches: DataLoader[Sample]) -> Any:
    """Share batches out among processes and bring them to the device."""
    from accelerate.data_loader import prepare_data_loader as prepare

    return prepare(
        batches,
        accelerator.device,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        split_batches=True,
        put_on_device=True,
        even_batches=False,
        use_seedable_sampler=False,
    )


def _accelerator(precision: str) -> Accelerator:
    """Set Accelerate up: the devices and processes it was started on, batches shared out.

    Raises:
        ConfigError: this device cannot compute in the precision.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    if precision == "float16" and not torch.cuda.is_available():
        raise ConfigError("training.precision", "float16 needs a GPU", "use bfloat16 here")
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[precision]
    return Accelerator(
        mixed_precision=mixed,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


class _deterministic:  # noqa: N801  # reads as a statement
    """Ask PyTorch for results that do not change from run to run, and put back what was."""

    def __enter__(self) -> None:
        self._before = torch.are_deterministic_algorithms_enabled()
        self._warns = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(mode=True, warn_only=True)

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(mode=self._before, warn_only=self._warns)
