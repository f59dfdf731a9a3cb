"""Every hostile file in attacks/ is refused, by name and without effort."""

from __future__ import annotations

import importlib.util
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from penjing.artifact import Artifact, verify
from penjing.core.errors import FormatError

SOURCE = Path(__file__).parents[2] / "attacks" / "attacks.py"


def load_attacks() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("penjing_attacks", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.ATTACKS
    return found


ATTACKS = load_attacks()


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    data = ATTACKS[name].build()
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=ATTACKS[name].met_by) as caught:
            Artifact.from_bytes(data).onnx_bytes()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * len(data) + (24 << 20)
    (tmp_path / "hostile").write_bytes(data)
    report = verify(tmp_path / "hostile")
    assert not report.ok
    assert str(report.fault) == str(caught.value)
