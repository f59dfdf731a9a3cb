"""The command line that would give the same file as a call in Python."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.budget import Budget
    from penjing.core.recipe import Recipe


def command(
    sources: Mapping[str, object],
    budget: Budget,
    recipe: Recipe | None,
    seed: int,
    *,
    allow_missing: bool,
) -> str:
    """Write the command that gives the same file, where all inputs are files."""
    given = {option: value for option, value in sources.items() if value is not None}
    pairs = [
        (option, each)
        for option, value in given.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    if not all(isinstance(value, str | Path) for _, value in pairs):
        return ""
    words = ["penjing"]
    for option, value in pairs:
        words += [option, str(value)]
    if budget.max_drop is not None:
        words += ["--max-drop", repr(budget.max_drop)]
    if budget.max_size_bytes is not None:
        words += ["--max-size", str(budget.max_size_bytes)]
    if recipe is not None:
        words += ["--recipe", "recipe.yaml"]
    if allow_missing:
        words.append("--allow-missing")
    words += ["--confidence", "none" if budget.confidence is None else repr(budget.confidence)]
    words += ["--seed", str(seed), "-o", "small.penjing"]
    return shlex.join(words)
