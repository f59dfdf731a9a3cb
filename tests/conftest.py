"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile("penjing", deadline=None, print_blob=True)
# The same examples every time: CI fails for what a change did, not for the luck of the draw.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("penjing")

HASHES = Path(__file__).with_name("data.sha256")


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """Find a file of real data by its name, such as ``onnx/lenet-5.onnx``; its hash is checked.

    PENJING_DATA names the folder that holds them; without it the test is skipped.
    """
    folder = os.environ.get("PENJING_DATA")
    pooch = pytest.importorskip("pooch", reason="real data are checked by pooch")
    lines = HASHES.read_text(encoding="utf-8").splitlines()
    registry = {name: digest for digest, name in (line.split() for line in lines)}

    def find(name: str) -> Path:
        if not folder:
            pytest.skip("PENJING_DATA names no folder of real data")
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"there is no {name} in the folder that PENJING_DATA names")
        assert pooch.file_hash(str(path)) == registry[name], f"{name} is not the file we know"
        return path

    return find
