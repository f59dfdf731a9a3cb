"""Tables are mapped to inputs by name or in order, without guessing."""

from __future__ import annotations

import importlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penjing.core.data import open_data
from penjing.core.errors import DataError, MissingExtraError, PenjingWarning
from penjing.core.model import Port
from penjing.readers import tabular

PEOPLE = [Port("age", "float32", (None, 1)), Port("job", "str", (None, 1))]
MATRIX = [Port("x", "float32", (None, 2))]
CSV = "age,job,income\n30,clerk,lo\n41.5,,hi\n50,?,lo\n"


def written(folder: Path, text: str | bytes, name: str = "d.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_feed_inputs_by_name(tmp_path: Path) -> None:
    data = open_data(written(tmp_path, CSV), PEOPLE, "income")
    batch = data.take(np.array([0, 1, 2]))
    assert batch.inputs["age"].tolist() == [[30.0], [41.5], [50.0]]
    assert batch.inputs["age"].dtype == np.float32
    assert batch.inputs["job"].tolist() == [["clerk"], [""], ["?"]]
    assert batch.labels is not None
    assert batch.labels.tolist() == ["lo", "hi", "lo"]


@pytest.mark.parametrize("kind", ["csv", "frame", "parquet"])
@pytest.mark.parametrize(
    ("ports", "target", "told"),
    [
        (PEOPLE, "income", "are left out: 'city', 'zip'$"),
        (PEOPLE, None, "left out: 'city', 'income', 'zip' .*--target"),
        (PEOPLE[:1], "income", "are left out: 'city', 'job', 'zip'$"),
    ],
    ids=["labels", "no labels", "one input"],
)
def test_columns_beside_named_inputs_are_left_out_with_a_warning(
    tmp_path: Path, ports: list[Port], target: str | None, told: str, kind: str
) -> None:
    path = written(tmp_path, "city,age,job,income,zip\nRome,30,clerk,lo,-\n,41,,hi,7\n")
    sources: dict[str, Any] = {"csv": path, "frame": pd.read_csv(path)}
    sources["parquet"] = tmp_path / "d.parquet"
    sources["frame"].to_parquet(sources["parquet"])
    with pytest.warns(PenjingWarning, match=told):
        data = open_data(sources[kind], ports, target)
    batch = data.take(np.array([0, 1]))
    assert batch.inputs["age"].tolist() == [[30.0], [41.0]]
    assert set(batch.inputs) == {port.name for port in ports}
    assert (batch.labels is None) == (target is None)


def test_every_kind_of_table_holds_the_same(tmp_path: Path) -> None:
    frame = pd.read_csv(written(tmp_path, CSV))
    frame.to_parquet(tmp_path / "d.parquet")
    written(tmp_path, CSV.replace(",", "\t"), "d.tsv")
    arrays = {
        "age": np.array([30, 41.5, 50]),
        "job": np.array(["clerk", "", "?"]),
        "y": np.array(["lo", "hi", "lo"]),
    }
    sources: list[Any] = [tmp_path / f"d.{kind}" for kind in ("csv", "tsv", "parquet")]
    digests = {open_data(source, PEOPLE, "income").digest for source in [*sources, frame]}
    assert digests == {open_data(arrays, PEOPLE).digest}


def test_one_matrix_takes_all_columns_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, "b,label,a\n1,7,2\n3,8,4\n")
    data = open_data(path, MATRIX, "label")
    assert data.take(np.array([1])).inputs["x"].tolist() == [[3.0, 4.0]]
    assert data.labels is not None
    assert data.labels.tolist() == [7, 8]
    texts = open_data(path, [Port("x", "str", (None, None))])
    assert texts.take(np.array([1])).inputs["x"].tolist() == [["3", "8", "4"]]


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        (["1", "2", "0"], "i", [1, 2, 0]),
        (["1", "2.5", "0"], "f", [1, 2.5, 0]),
        (["1", "b", "0"], "U", ["1", "b", "0"]),
    ],
    ids=["whole", "real", "text"],
)
def test_labels_are_numbers_where_all_of_them_are(
    tmp_path: Path, column: list[str], kind: str, expected: list[Any]
) -> None:
    rows = "".join(f"0,0,{label}\n" for label in column)
    labels = open_data(written(tmp_path, "a,b,l\n" + rows), MATRIX, "l").labels
    assert labels is not None
    assert labels.dtype.kind == kind
    assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([True, False]), [1, 0]),
        (pa.array([3, 4], pa.int8()), [3, 4]),
        (pa.array([0.5, 1.5]), [0.5, 1.5]),
        (pa.array(["1", "2"]), ["1", "2"]),
        (pa.array(["u", "v"]).dictionary_encode(), ["u", "v"]),
    ],
    ids=["bool", "int8", "float", "text", "dictionary"],
)
def test_parquet_labels_keep_their_type(
    tmp_path: Path, values: Any, expected: list[Any]
) -> None:
    table = pa.table({"a": pa.array([1, 2], pa.int32()), "b": [0.5, 1], "l": values})
    pq.write_table(table, tmp_path / "d.parquet")
    data = open_data(tmp_path / "d.parquet", MATRIX, "l")
    assert data.labels is not None
    assert data.labels.tolist() == expected
    assert data.take(np.array([0])).inputs["x"].tolist() == [[1.0, 0.5]]


def test_whole_number_inputs_stay_exact(tmp_path: Path) -> None:
    large = 2**60 + 1
    path = written(tmp_path, f"n\n{large}\n1\n")
    data = open_data(path, [Port("n", "int64", (None, 1))])
    assert data.take(np.array([0])).inputs["n"].tolist() == [[large]]
    with pytest.raises(DataError, match="int8, which cannot hold 1 in column 'n'"):
        open_data(path, [Port("n", "int8", (None, 1))])
    with pytest.raises(DataError, match="missing in row 1"):
        open_data(written(tmp_path, "n,m\n1,1\n,2\n"), [Port("x", "int64", (None, 2))])


@pytest.mark.parametrize(
    ("text", "ports", "target", "message"),
    [
        (
            "age,income\n1,lo\n",
            PEOPLE,
            None,
            "no column 'job'.*no input is called 'income'.*--target",
        ),
        (CSV, PEOPLE, "incom", "did you mean 'income'"),
        (
            CSV,
            [*PEOPLE, Port("sex", "str", (None, 1))],
            "income",
            "has no column 'sex' for the model's inputs\n",
        ),
        (
            CSV,
            [Port("x", "float32", (None, 5))],
            "income",
            "has 2 columns.*takes 5: 'age', 'job'.*in order, and no others",
        ),
        (CSV, [Port("x", "float32", (None, 3, 4))], None, r"is a table.*\.npz"),
        (CSV, MATRIX, "income", "column 'job', row 0 .counting from 0.: invalid value 'clerk'"),
        ("a,b\n1,2\n,3\n5,\n,1\n", MATRIX, None, "2 in column 'a', 1 in column 'b'.*row 1"),
        ("a,b\n1,inf\n", MATRIX, None, "1 in column 'b'"),
        ("1,2\n3,4\n", MATRIX, None, "first line holds numbers"),
        ("a,a\n3,4\n", MATRIX, None, "more than one column named 'a'"),
        ("a,b\n3,4\n5\n", MATRIX, None, "row 1 .counting from 0.: Expected 2 columns, got 1"),
        ("a,b\n", MATRIX, None, "has no rows"),
        ("", MATRIX, None, "Empty CSV"),
        (b"a,\xff\n1,2\n", MATRIX, None, "utf-8"),
        ("a,b,l\n1,2,x\n1,2,\n", MATRIX, "l", "column 'l': holds an empty label.*row 1"),
    ],
    ids=range(15),
)
def test_what_does_not_fit_is_refused_with_a_hint(
    tmp_path: Path, text: str | bytes, ports: list[Port], target: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=rf"(?s){message}"):
        open_data(written(tmp_path, text), ports, target)


def test_missing_numbers_pass_where_allowed(tmp_path: Path) -> None:
    data = open_data(written(tmp_path, "a,b\n1,\n3,4\n"), MATRIX, allow_missing=True)
    np.testing.assert_array_equal(data.take(np.array([0])).inputs["x"], [[1, np.nan]])


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0], "b": [2.0]}).to_parquet(tmp_path / "d.parquet")
    whole = (tmp_path / "d.parquet").read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "d.parquet").write_bytes(whole[:cut])
        with pytest.raises(DataError):
            open_data(tmp_path / "d.parquet", MATRIX)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    path = written(tmp_path, CSV)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"penjing\[data\]"):
        tabular.Tabular().open(path, PEOPLE, None)


def test_a_large_table_is_read_in_bounded_memory(tmp_path: Path) -> None:
    rows = 60_000
    names = [f"c{place}" for place in range(20)]
    line = ",".join(["0.12345678"] * 20) + ",word\n"
    path = tmp_path / "d.csv"
    with path.open("w") as file:
        file.write(",".join([*names, "text"]) + "\n")
        file.writelines(line for _ in range(rows))
    ports = [Port(name, "float32", (None, 1)) for name in names]
    ports.append(Port("text", "str", (None, 1)))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    data = open_data(path, ports)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) == rows
    assert peak_bytes < 30 << 20  # 14 MB on disk, 10 MB of numbers, 60,000 strings
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert data.take(np.array([rows - 1])).inputs["text"].tolist() == [["word"]]


def test_adult_is_read_as_it_is(tmp_path: Path) -> None:
    folder = os.environ.get("PENJING_DATA")
    if folder is None:
        pytest.skip("PENJING_DATA names no folder of real data")
    names = "age workclass fnlwgt education education_num marital occupation relationship"
    names += " race sex gain loss hours country income"
    raw = (Path(folder) / "adult" / "adult-test.csv").read_text()
    path = written(tmp_path, names.replace(" ", ",") + "\n" + raw.replace(", ", ","))
    numeric = {"age", "fnlwgt", "education_num", "gain", "loss", "hours"}
    ports = [
        Port(name, "float32" if name in numeric else "str", (None, 1))
        for name in names.split()[:-1]
    ]
    data = open_data(path, ports, "income")
    assert data.labels is not None
    assert len(data) == 16281
    assert set(data.labels.tolist()) == {"<=50K.", ">50K."}
    frame = pd.read_csv(path, keep_default_na=False)
    assert data.digest == open_data(frame, ports, "income").digest
