"""What a search tries: a recipe, what it made, and how that was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.artifact.artifact import Artifact
    from penjing.core.model import Model
    from penjing.core.recipe import Recipe
    from penjing.engine.judging import Judgement

GIVEN = "recipe"
"""Label of what the user's own recipe makes."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A compressed model, packed and judged on the search split."""

    label: str
    recipe: Recipe
    model: Model
    artifact: Artifact
    judgement: Judgement
    seconds: float
    learned: bool = False
    """Whether it was trained on labels: it may lose nothing although it differs."""
    rebuilt: bool = False
    """Whether its graph is another than the original's."""

    @property
    def trained(self) -> bool:
        """Whether it was trained: it may be right where the original is wrong."""
        return self.recipe.trains

    @property
    def size_bytes(self) -> int:
        """Bytes of its file, header aside."""
        return self.artifact.size_bytes

    @property
    def is_given(self) -> bool:
        """Whether the user's own recipe made it."""
        return self.label == GIVEN

    @property
    def is_exact(self) -> bool:
        """Whether every weight is the same as before, and nothing was added."""
        if self.rebuilt:
            return False
        weights = self.model.backend.read_weights(self.model.native)
        return all(
            np.array_equal(tensor.dense(), weights[name].tensor.dense())
            for name, tensor in self.model.changed.items()
        )


def pareto(candidates: list[Candidate], risk: Callable[[Candidate], float]) -> list[Candidate]:
    """Keep those that no other beats in both bytes and risk; largest file first."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.size_bytes, risk(c))):
        if not kept or risk(candidate) < risk(kept[-1]):
            kept.append(candidate)
    return kept[::-1]
