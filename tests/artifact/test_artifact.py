"""What callers rely on: whole files, lazy reading, and an account of every byte."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest

from penjing.artifact import Artifact, Limits, container, sections, verify
from penjing.core.errors import FormatError, ModelError, OutputError
from penjing.core.tensors import Affine, Dense

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.tensors import Tensor

    Make = Callable[[Mapping[str, Tensor]], Artifact]

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def test_saving_and_loading_gives_the_same_file(small: Artifact, tmp_path: Path) -> None:
    small.save(tmp_path / "a.penjing")
    back = Artifact.load(tmp_path / "a.penjing")
    assert (tmp_path / "a.penjing").read_bytes() == back.to_bytes() == small.to_bytes()
    assert (back.sha256, back.size_bytes) == (small.sha256, small.size_bytes)
    assert back.header == small.header
    assert list(tmp_path.iterdir()) == [tmp_path / "a.penjing"]


def test_decoded_tensors_code_to_the_same_file(small: Artifact) -> None:
    back = Artifact.from_bytes(small.to_bytes())
    again = Artifact(back.template, dict(back.tensors), back.header)
    assert again.to_bytes() == small.to_bytes()


def test_a_new_header_leaves_the_weights_alone(small: Artifact) -> None:
    changed = small.with_header({"evidence": {"met": True}})
    assert changed.header == {"evidence": {"met": True}}
    assert changed.onnx_bytes() == small.onnx_bytes()
    assert changed.to_bytes() == replace(small, header=changed.header).to_bytes()
    before, after = (container.sections(made.to_bytes()) for made in (small, changed))
    assert [part.sha256 for part in after][2:] == [part.sha256 for part in before][2:]


def test_replacing_tensors_codes_them_anew(small: Artifact) -> None:
    small.to_bytes()
    other = {**small.tensors, "fc.bias": Dense(np.arange(6, dtype=np.float32))}
    changed = replace(small, tensors=other)
    np.testing.assert_array_equal(
        Artifact.from_bytes(changed.to_bytes()).tensors["fc.bias"].dense(), np.arange(6)
    )


def test_a_model_without_weights_is_a_file(make: Make) -> None:
    made = make({})
    assert Artifact.from_bytes(made.to_bytes()).onnx_bytes() == made.template.skeleton


def test_nan_in_weights_is_kept_quietly(make: Make) -> None:
    tensor = Affine.encode(np.full((3, 4), 2**30), float("inf"))
    back = Artifact.from_bytes(make({"w": tensor}).to_bytes())
    assert np.isinf(back.arrays()["w"]).all()


def test_the_ledger_accounts_for_every_byte(small: Artifact) -> None:
    rows = small.ledger()
    assert sum(row["bytes"] for row in rows) == small.size_bytes
    assert sum(row["original_bytes"] for row in rows) == small.template.size_bytes
    tensors = {row["name"]: row for row in rows if "shape" in row}
    assert list(tensors) == list(small.tensors)
    assert tensors["fc.weight"]["encoding"] == "affine int8 codes"
    assert tensors["sparse"]["encoding"] == "bitmask(affine int8 codes)"
    zeros = float(np.mean(small.tensors["sparse"].dense() == 0))
    assert tensors["sparse"]["zeros"] == pytest.approx(zeros)
    assert tensors["fc.weight"]["original_bytes"] == 2 * 60 * 4, "two slots hold it"
    assert tensors["table"]["bits_per_weight"] == 8 * tensors["table"]["bytes"] / 12


def test_tensors_are_decoded_only_when_asked_for(
    small: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small.to_bytes()

    def never(*_: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr("penjing.artifact.leaves.Leaf.decode", never)
    back = Artifact.from_bytes(data)
    assert len(back.tensors) == len(small.tensors)
    with pytest.raises(AssertionError):
        back.tensors["fc.weight"]


def test_verifying_lists_what_was_checked(small: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "a.penjing"
    small.save(path)
    report = verify(path)
    assert report.ok
    names = ["hashes", "header", "tables", "tensors", "graph"]
    assert [check.name for check in report.checks] == names
    assert sum(part.size_bytes for part in sections(path)) == small.size_bytes
    path.write_bytes(small.to_bytes()[:-1])
    damaged = verify(path)
    assert not damaged.ok
    assert isinstance(damaged.fault, FormatError)


def test_reading_what_is_not_there_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.penjing", tmp_path):
        with pytest.raises(ModelError, match=str(path)):
            Artifact.load(path)


def test_files_above_the_limit_are_not_read(small: Artifact, tmp_path: Path) -> None:
    small.save(tmp_path / "a.penjing")
    with pytest.raises(FormatError, match="limit"):
        Artifact.load(tmp_path / "a.penjing", Limits(file=10))


def test_a_full_disk_leaves_the_old_file(
    small: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.penjing"
    path.write_bytes(b"old")

    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space") as caught:
        small.save(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file(
    small: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.penjing"
    path.write_bytes(b"old")

    def interrupted(_: int) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_impossible_places_are_named(small: Artifact, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none" / "a.penjing", tmp_path, tmp_path / "file" / "a.penjing"):
        with pytest.raises(OutputError, match=str(path)):
            small.save(path)


@pytest.mark.skipif(AS_ROOT, reason="nothing is read-only to the superuser")
def test_read_only_places_are_named(small: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "a.penjing"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(OutputError, match="read-only"):
        small.save(path)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="denied"):
            small.save(tmp_path / "b.penjing")
    finally:
        tmp_path.chmod(0o755)
    assert path.read_bytes() == b"old"


def test_links_are_written_through(small: Artifact, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    small.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == small.to_bytes()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device file")
def test_devices_are_not_replaced(small: Artifact) -> None:
    small.save("/dev/null")
    assert not Path("/dev/null").is_file()


def test_reading_imports_no_framework(small: Artifact, tmp_path: Path) -> None:
    small.save(tmp_path / "a.penjing")
    code = (
        "import sys; from penjing.artifact import Artifact;"
        "Artifact.load(sys.argv[1]).onnx_bytes();"
        "bad = {'onnx', 'onnxruntime', 'torch', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run(  # our own interpreter and code
        [sys.executable, "-c", code, str(tmp_path / "a.penjing")],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
