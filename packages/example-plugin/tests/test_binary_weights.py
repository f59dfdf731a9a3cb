from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from penjing_binary.binary_weights import BinaryWeights

from penjing.core.model import LayerKind, Weight
from penjing.core.recipe import Recipe
from penjing.core.registry import TECHNIQUES
from penjing.core.technique import Context, Technique
from penjing.core.tensors import Dense
from penjing.testing import technique_cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.testing.conformance import Check
    from penjing.testing.models import Build

PACKAGE = Path(__file__).parents[1]
CASES = dict(technique_cases({"binary_weights": BinaryWeights}))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in for ``pip install``: leave the entry points where Python looks for them."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    info = tmp_path / "penjing_binary-0.1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("".join(lines))
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: penjing-binary\nVersion: 0.1.0\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield
    importlib.invalidate_caches()


@pytest.mark.parametrize(("check", "technique", "build"), CASES.values(), ids=CASES)
def test_it_conforms(check: Check, technique: type[Technique], build: Build) -> None:
    check(technique, build)


def test_it_is_found_like_a_built_in_one() -> None:
    assert "binary_weights" in TECHNIQUES.names()
    assert TECHNIQUES.load("binary_weights") is BinaryWeights
    recipe = Recipe.from_yaml("steps: [{use: binary_weights, gap: 0.5}]")
    assert recipe.steps[0].technique == BinaryWeights(gap=0.5)
    names = {name.partition("-")[0] for name, _ in technique_cases()}
    assert "binary_weights" in names


def test_it_keeps_signs_and_the_mean_magnitude() -> None:
    array = np.array([[1, -3, 2, -2, 0, 1, 3, 4]] * 3, np.float32)
    binary = BinaryWeights().encode(Weight("w", LayerKind.LINEAR, Dense(array)), Context())
    np.testing.assert_array_equal(binary.dense()[0], [2, -2, 2, -2, 0, 2, 2, 2])
