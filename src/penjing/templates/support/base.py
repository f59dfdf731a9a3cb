"""How a template builds a network in PyTorch; PyTorch is imported only when it does."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.core.architecture import ModelTemplate
from penjing.core.errors import MissingExtraError
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.core.architecture import InputKind, Problem
    from penjing.templates.support.net import Net


@dataclass(frozen=True)
class TorchTemplate(ModelTemplate):
    """A template whose models are PyTorch modules: write ``network`` and nothing else."""

    def build(self, problem: Problem, seed: int = 0) -> Net:
        """Give an untrained module in float32; equal seeds give equal weights.

        Raises:
            ConfigError: the template does not fit the problem.
            MissingExtraError: PyTorch is not installed.
        """
        kind = self.check_fits(problem)
        name = TEMPLATES.name_of(type(self))
        with _seeded(seed, f"building a model from the template {name}"):
            return self.network(problem, kind).float()

    @abstractmethod
    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the module for a problem that fits; random numbers are seeded already."""


@contextmanager
def _seeded(seed: int, wanted_for: str) -> Iterator[None]:
    """Draw from a seed on the CPU; afterwards the global generator goes on as before."""
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingExtraError("torch", wanted_for) from None
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would seed the generators of other devices as well.
        torch.default_generator.manual_seed(seed)
        yield
