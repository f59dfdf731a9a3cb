"""Gradients of one batch: in pieces where memory asks for it, shared among processes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from penjing.core.errors import ConfigError, PenjingWarning, TrainingError
from penjing.training.augmentation import augmented, blended, channels_last, distorted

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

    from penjing.core.training import Moment, Optimization
    from penjing.training.rows import Rows, Sample
    from penjing.training.state import Pace

Found = TypeVar("Found")


class Trainee(Protocol):
    """What the loop trains: a module, and what it costs on a batch."""

    @property
    def module(self) -> torch.nn.Module:
        """Hold parameters and buffers."""

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Sort the parameters by learning rate, for an optimizer; the fastest come last."""

    def loss(
        self, module: Any, sample: Sample, moment: Moment
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the module on a batch; give what to minimise, and what to show.

        Both are means over the batch: of pieces, those weighted by their rows are added up.
        """

    def after(self, moment: Moment, pace: Pace) -> None:
        """Change what changes between steps."""


@dataclass(slots=True, eq=False)
class Stepper:
    """Computes gradients of batches."""

    trainee: Trainee
    rows: Rows
    settings: Optimization
    seed: int
    accelerator: Accelerator
    tell: Callable[[str], None]
    """Told what people may want to know."""
    pieces: int = 1
    """Pieces that a batch is computed in."""

    def __post_init__(self) -> None:
        count = self.accelerator.num_processes
        if self.settings.batch_size % count:
            raise ConfigError(
                "training.batch_size",
                f"must be a multiple of the number of processes, {count}, got "
                f"{self.settings.batch_size}",
                f"{self.settings.batch_size // count * count or count} would do",
            )
        self.trainee.module.to(self.accelerator.device)

    def gradients(self, optimizer: Any, places: list[int], moment: Moment) -> torch.Tensor:
        """Leave the gradients of a batch, cut to the norm, in the parameters.

        Gives the loss to show.

        Every process takes its part of the batch; where it has fewer rows than there are
        processes, some count for nothing.
        """
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        first, last = (len(places) * (index + more) // count for more in (0, 1))
        own = places[first:last] or places[:1]
        sample = self._varied(self._read(self.rows, own), moment.step, len(places), first)
        share = (last - first) * count / len(places)

        def accumulate() -> torch.Tensor:
            optimizer.zero_grad()
            torch.manual_seed(mixed(self.seed, moment.step))
            shown = torch.zeros((), device=self.accelerator.device)
            for piece, part in self.rows.pieces(sample, self.pieces):
                with self.accelerator.autocast():
                    loss, seen = self.trainee.loss(self.trainee.module, piece, moment)
                self.accelerator.backward(loss * (part * share))
                shown += seen.detach() * (part * share)
            return shown

        shown = self._within_memory(accumulate, len(own), moment)
        if count > 1:
            shown = self._mean_of_all(shown)
        if self.settings.clip_norm:
            parameters = self.trainee.module.parameters()
            self.accelerator.clip_grad_norm_(parameters, self.settings.clip_norm)
        return shown

    @torch.no_grad()
    def held_out_loss(self, held: Rows, moment: Moment) -> float:
        """Measure the mean loss on rows as they are."""
        batch = min(self.settings.batch_size, len(held))

        def measure() -> float:
            total, size = 0.0, max(1, batch // self.pieces)
            for first in range(0, len(held), size):
                places = list(range(first, min(first + size, len(held))))
                with self.accelerator.autocast():
                    _, shown = self.trainee.loss(
                        self.trainee.module, self._read(held, places), moment
                    )
                total += float(shown) * len(places)
            return total / len(held)

        self.trainee.module.eval()
        found = self._within_memory(measure, batch, moment)
        self.trainee.module.train()
        if self.accelerator.num_processes > 1:  # the same to the last digit for all of them
            told = torch.tensor([found], dtype=torch.float64, device=self.accelerator.device)
            found = float(self.accelerator.reduce(told, "mean"))
        return found

    def _within_memory(self, work: Callable[[], Found], rows: int, moment: Moment) -> Found:
        """Do it in more pieces, as often as the GPU's memory is full."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if self.pieces >= rows:
                    raise TrainingError(
                        f"step {moment.step + 1} of {moment.steps}",
                        "the GPU's memory does not hold what a single row needs",
                        "end other programs on it, choose precision: bfloat16 in the section "
                        "'training' of the recipe, or set CUDA_VISIBLE_DEVICES= to train on "
                        "the CPU",
                    ) from error
            # Outside of the handler, which holds on to everything that was computed.
            self.pieces *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            told = f"the GPU's memory is full: batches are computed in {self.pieces} pieces"
            self.tell(told)
            if self.accelerator.is_main_process:
                warnings.warn(told, PenjingWarning, stacklevel=2)

    def _read(self, rows: Rows, places: list[int]) -> Sample:
        from accelerate.utils import send_to_device

        sample: Sample = send_to_device(rows.__getitems__(places), self.accelerator.device)
        return sample

    def _varied(self, sample: Sample, step: int, rows: int, first: int) -> Sample:
        """Change the images of a batch, by seed and step; ``sample`` may be a part of it."""
        inputs, labels = sample
        generator = torch.Generator().manual_seed(mixed(self.seed + 1, step))
        settings = self.settings
        place = {"batch": rows, "first": min(first, rows - 1)}
        changed = augmented(inputs, settings.shift, generator, mirror=settings.mirror, **place)
        if settings.distort:
            changed = distorted(changed, generator, **place)
        if settings.blend:
            changed, labels = blended(changed, generator, **place), None
        return channels_last(changed), labels

    def _mean_of_all(self, shown: torch.Tensor) -> torch.Tensor:
        """Replace gradients by their mean over all processes, in one message."""
        found = [p.grad for p in self.trainee.module.parameters() if p.grad is not None]
        flat = torch.cat([*(grad.reshape(-1) for grad in found), shown.reshape(1)])
        mean: torch.Tensor = self.accelerator.reduce(flat, "mean")
        at = 0
        for grad in found:
            grad.copy_(mean[at : at + grad.numel()].view_as(grad))
            at += grad.numel()
        return mean[-1]


def mixed(seed: int, step: int) -> int:
    """Give each step a seed of its own (Knuth's multiplicative hash)."""
    return (seed * 0x9E3779B1 + step * 0x85EBCA77 + 0x5EED) % 2**63
