"""NumPy files are read as they are, in bounded memory, or refused clearly."""

from __future__ import annotations

import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.data import batches, open_data
from penjing.core.errors import DataError, OutputError
from penjing.core.model import Port
from penjing.readers import npz

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = Port("image", "uint8", (None, 1, 28, 28))
ROW = Port("x", "float32", (None, 4))


def images(rows: int = 10) -> Any:
    return np.random.default_rng(0).integers(0, 256, (rows, 1, 28, 28), np.uint8)


def test_npz_gives_inputs_and_labels(tmp_path: Path) -> None:
    x, y = images(), np.arange(10, dtype=np.uint8)
    np.savez(tmp_path / "d.npz", image=x, y=y, names=np.array(["a"] * 10))
    data = open_data(tmp_path / "d.npz", [IMAGE])
    batch = data.take(np.array([2, 5]))
    np.testing.assert_array_equal(batch.inputs["image"], x[[2, 5]])
    assert batch.labels is not None
    assert batch.labels.tolist() == [2, 5]
    assert (batch.rows, len(data)) == (2, 10)
    assert batch.labels.dtype == np.int64


def test_a_single_input_may_be_called_x(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.NPZ", x=images())
    (tmp_path / "d.NPZ.npz").rename(tmp_path / "d.NPZ")
    assert open_data(str(tmp_path / "d.NPZ"), [IMAGE]).labels is None


def test_target_names_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=images(3), kind=np.array(["a", "b", "a"]))
    data = open_data(tmp_path / "d.npz", [IMAGE], "kind")
    assert data.labels is not None
    assert data.labels.tolist() == ["a", "b", "a"]
    with pytest.raises(DataError, match="did you mean 'kind'"):
        open_data(tmp_path / "d.npz", [IMAGE], "kinds")


def test_npy_is_the_single_input(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", images())
    assert len(open_data(tmp_path / "d.npy", [IMAGE])) == 10
    with pytest.raises(DataError, match="has no array 'a', 'b'"):
        open_data(
            tmp_path / "d.npy", [Port("a", "uint8", (None,)), Port("b", "uint8", (None,))]
        )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_layout_of_the_file_does_not_matter(tmp_path: Path, order: Any, dtype: str) -> None:
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    np.save(tmp_path / "d.npy", np.asarray(x, dtype, order=order))
    np.savez(tmp_path / "d.npz", x=np.asarray(x, dtype, order=order))
    digests = set()
    for name in ("d.npy", "d.npz"):
        data = open_data(tmp_path / name, [ROW])
        found = data.take(np.array([0, 3, 9])).inputs["x"]
        np.testing.assert_array_equal(found, x[[0, 3, 9]])
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        digests.add(data.digest)
    assert digests == {open_data(x, [ROW]).digest}


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    rows = 75_000  # 300 MB, sparse on disk
    path = tmp_path / "big.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (rows, 1000)).flush()
    tracemalloc.start()
    data = open_data(path, [Port("x", "float32", (None, 1000))])
    total = sum(
        batch.rows for batch in batches(data, np.arange(0, rows, 50, dtype=np.int64), 100)
    )
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(data), total) == (rows, 1500)
    assert peak_bytes < 40 << 20


def test_large_members_go_to_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "LARGE_BYTES", 100)
    x = images()
    np.savez_compressed(tmp_path / "d.npz", x=x)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = open_data(tmp_path / "d.npz", [IMAGE])
    np.testing.assert_array_equal(data.take(np.arange(10)).inputs["image"], x)
    assert data.digest == open_data(x, [IMAGE]).digest
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]


def test_a_full_disk_is_said_to_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "LARGE_BYTES", 100)
    np.savez(tmp_path / "d.npz", x=images())
    monkeypatch.setattr("tempfile.TemporaryFile", _Full)
    with pytest.raises(OutputError, match="TMPDIR"):
        open_data(tmp_path / "d.npz", [IMAGE])


class _Full:
    def write(self, _: bytes) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """Do nothing."""


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    array = np.array([1, None], object)
    np.save(tmp_path / "d.npy", array, allow_pickle=True)
    np.savez(tmp_path / "d.npz", x=array)
    for name in ("d.npy", "d.npz"):
        with pytest.raises(DataError, match="never unpickled"):
            open_data(tmp_path / name, [ROW])


def test_a_header_may_not_claim_more_than_there_is(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((4, 4), np.float32))
    raw = (tmp_path / "d.npy").read_bytes().replace(b"(4, 4), }  ", b"(4, 400),}")
    (tmp_path / "d.npy").write_bytes(raw + b" ")
    with pytest.raises(DataError, match="damaged"):
        open_data(tmp_path / "d.npy", [ROW])


def test_a_header_that_is_no_header_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((4, 4), np.float32))
    whole = (tmp_path / "d.npy").read_bytes()
    for old, new in ((b"(4, 4)", b"(4, (4"), (b"{", b" "), (b"<f4", b"<q9"), (b"\x93", b"x")):
        (tmp_path / "d.npy").write_bytes(whole.replace(old, new))
        with pytest.raises(DataError, match="NumPy's format"):
            open_data(tmp_path / "d.npy", [ROW])


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_damage_is_an_error_and_nothing_else(tmp_path: Path, *, compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    x = np.random.default_rng(1).random((20, 4), np.float32)
    save(tmp_path / "d.npz", x=x, y=np.arange(20))
    whole = (tmp_path / "d.npz").read_bytes()
    rng = np.random.default_rng(2)
    refused = 0
    for trial in range(150):
        raw = bytearray(whole)
        if trial % 2:
            del raw[int(rng.integers(len(raw))) :]
        else:
            raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "d.npz").write_bytes(raw)
        try:
            data = open_data(tmp_path / "d.npz", [ROW])
        except DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(data.take(np.arange(20)).inputs["x"], x)
    assert refused > 75


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"no \.npz file"):
        open_data(tmp_path / "d.npz", [ROW])
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", b"nonsense")
    with pytest.raises(DataError, match="NumPy's format"):
        open_data(tmp_path / "d.npz", [ROW])
    with pytest.raises(DataError, match="No such file"):
        open_data(tmp_path / "none.npz", [ROW])
