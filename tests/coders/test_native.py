"""The compiled library, and what is said when it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penjing.coders.native import binding
from penjing.core.errors import PenjingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "libpenjing_coder.so"
    monkeypatch.setattr(binding, "library_path", lambda: path)
    binding._library.cache_clear()  # noqa: SLF001  # as in a fresh process
    yield path
    binding._library.cache_clear()  # noqa: SLF001


def test_a_missing_library_is_named_with_what_to_do(no_library: Path) -> None:
    with pytest.raises(PenjingError, match="make venv") as caught:
        binding.call("rans_work")
    assert caught.value.where == str(no_library)


def test_a_damaged_library_is_named_too(no_library: Path) -> None:
    no_library.write_bytes(b"not a library")
    with pytest.raises(PenjingError, match="cannot be loaded"):
        binding.call("rans_work")


def test_tables_are_made_once_and_cannot_be_changed() -> None:
    assert binding.tables() is binding.tables()
    assert not binding.tables().flags.writeable
