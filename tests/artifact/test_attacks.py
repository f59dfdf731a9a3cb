"""Every hostile file in attacks/ is refused, by name and without effort."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from attacks import ATTACKS
from penjing.artifact import Artifact, verify
from penjing.core.errors import FormatError

FOLDER = Path(__file__).parents[2]


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


def test_one_can_be_written_to_be_looked_at() -> None:
    command = [sys.executable, "-m", "attacks", "zstd_bomb"]
    done = subprocess.run(command, check=True, capture_output=True, cwd=FOLDER)
    assert done.stdout == ATTACKS["zstd_bomb"].build()
