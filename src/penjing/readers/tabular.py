"""Tables: CSV, TSV and Parquet files."""

from __future__ import annotations

import importlib
import re
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from penjing.core.errors import DataError, MissingExtraError, PenjingError
from penjing.readers.support.dataset import assemble
from penjing.readers.support.files import existing_file, has_suffix
from penjing.readers.support.fit import fit
from penjing.readers.support.labels import as_labels, parse_labels
from penjing.readers.support.names import Columns, name_columns
from penjing.readers.support.ports import name_features
from penjing.readers.support.stores import ArrayStore, Spool, TextSpool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from penjing.core.data import Dataset
    from penjing.core.model import Port
    from penjing.core.tensors import Array
    from penjing.readers.support.stores import Store

__all__ = ["Tabular"]

BLOCK_BYTES = 4 << 20
"""Of a CSV file, read at a time; a row must fit in it."""
BATCH_ROWS = 8192
"""Of a Parquet file, read at a time."""

Wanted = dict[str, str | None]
"""Arrow type of each column that is read; None leaves it as it is in the file."""


class Tabular:
    """Reads tables whose first line names the columns; ``target`` names the label column.

    Each input of the model takes the column of its name, and other columns are left out with a
    warning; or a single 2-D input takes all columns but the label, in order.  A missing string
    is '', a missing number is refused unless missing values are allowed.  The file is read
    once, in pieces, into temporary files from which rows are then taken; labels are held in
    memory.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".parquet")

    def recognises(self, source: object) -> bool:
        """Tell whether ``source`` is a path that ends in .csv, .tsv or .parquet."""
        return has_suffix(source, self.suffixes)

    def open(
        self,
        source: object,
        inputs: Sequence[Port],
        target: str | None,
        *,
        allow_missing: bool = False,
    ) -> Dataset:
        """Read the table for a model with these inputs; ``target`` names the label column.

        Raises:
            DataError: it is missing, damaged, or its columns do not fit the model.
            MissingExtraError: pyarrow is not installed.
        """
        path = existing_file(source)
        where = str(path)
        with _explaining(where) as names:
            table = _open_table(path)
            names.extend(table.names)
            plan = name_columns(where, table.names, inputs, target)
            stores, labels = _read(where, table, plan, target)
        feeds = [
            fit(columns.port, store, where, columns.names, allow_missing=allow_missing)
            for columns, store in zip(plan, stores, strict=True)
        ]
        return assemble(where, feeds, labels, f"{where}, column {target!r}")

    def describe(self, source: object, target: str | None) -> tuple[Port, ...]:
        """Tell how many columns there are beside the label, as one input of numbers.

        Raises:
            DataError: the file is missing or damaged, or has no such column.
            MissingExtraError: pyarrow is not installed.
        """
        path = existing_file(source)
        with _explaining(str(path)):
            return (name_features(str(path), _open_table(path).names, target),)

    def first_rows(self, source: object, target: str | None, rows: int) -> tuple[Array, ...]:
        """Give zeros, as many in a row as there are columns of features.

        Raises:
            DataError: the file is missing or damaged, or has no such column.
            MissingExtraError: pyarrow is not installed.
        """
        (port,) = self.describe(source, target)
        return (np.zeros((rows, port.shape[-1] or 0), np.float32),)


@contextmanager
def _explaining(where: str) -> Iterator[list[str]]:
    """Say in our words what Arrow says; names of columns go into the list, once known."""
    lib = _arrow("pyarrow").lib
    names: list[str] = []
    try:
        yield names
    except PenjingError:
        raise
    except (lib.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(
            where,
            f"cannot be read as a table of what the model takes: {_placed(error, names)}",
            "the first line names the columns; give numbers where the model takes numbers, and "
            "leave cells of missing ones empty",
        ) from error


_AT = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?(?:CSV conversion error to \w+: )?")
_LINE = re.compile(r"CSV parse error: Row #(\d+): ")


def _placed(error: Exception, names: Sequence[str]) -> str:
    """Name columns, and count rows below the first line from 0, as all other messages do."""
    text = str(error)
    if cell := _AT.match(text):
        row = f", row {int(cell[2]) - 2} (counting from 0)" if cell[2] else ""
        number = int(cell[1])
        column = repr(names[number]) if number < len(names) else f"number {number + 1}"
        return f"column {column}{row}: {text[cell.end() :]}"
    if line := _LINE.match(text):
        return f"row {int(line[1]) - 2} (counting from 0): {text[line.end() :]}"
    return text


@dataclass(frozen=True, slots=True)
class _Table:
    """A file whose columns are known and that can be read in batches of converted columns."""

    names: list[str]
    batches: Callable[[Wanted], Iterator[Any]]
    label_type: str | None
    """Arrow type in which labels are read."""


def _arrow(module: str) -> Any:
    """Import pyarrow where it is needed, so that nobody else pays for it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MissingExtraError("data", "reading CSV and Parquet files") from None


def _open_table(path: Path) -> _Table:
    return _open_parquet(path) if has_suffix(path, (".parquet",)) else _open_csv(path)


def _open_csv(path: Path) -> _Table:
    csv = _arrow("pyarrow.csv")
    settings = {
        "read_options": csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        "parse_options": csv.ParseOptions(
            delimiter="\t" if has_suffix(path, (".tsv",)) else ","
        ),
    }
    with csv.open_csv(path, **settings) as reader:
        names = list(reader.schema.names)
    if names and all(_is_number(name) for name in names):
        raise DataError(
            str(path),
            f"its first line holds numbers ({', '.join(names[:3])}, ...), not column names",
            "put a line with the names of the columns on top",
        )

    def batches(wanted: Wanted) -> Iterator[Any]:
        lib = _arrow("pyarrow")
        options = csv.ConvertOptions(
            include_columns=list(wanted),
            column_types={name: lib.type_for_alias(kind) for name, kind in wanted.items()},
        )
        with csv.open_csv(path, convert_options=options, **settings) as reader:
            yield from reader

    # A type guessed from the first block may be wrong for the next one: labels come as text.
    return _Table(names, batches, "string")


def _open_parquet(path: Path) -> _Table:
    file = _arrow("pyarrow.parquet").ParquetFile(path)

    def batches(wanted: Wanted) -> Iterator[Any]:
        with file:
            yield from file.iter_batches(BATCH_ROWS, columns=list(wanted))

    return _Table(list(file.schema_arrow.names), batches, None)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _read(
    where: str, table: _Table, plan: list[Columns], target: str | None
) -> tuple[list[Store], Array | None]:
    """Go through the table once; give what feeds each input, and the labels."""
    with ExitStack() as files:
        builders = [files.enter_context(closing(_Builder(where, each))) for each in plan]
        wanted: Wanted = {
            name: each.arrow_type for each in builders for name in each.columns.names
        }
        if target is not None:
            wanted[target] = table.label_type
        labels: list[Any] = []
        for batch in table.batches(wanted):
            for builder in builders:
                builder.append(batch)
            if target is not None:
                labels.append(batch.column(target))
        stores = [builder.stored() for builder in builders]
    if target is None or not labels:
        return stores, None
    return stores, _join_labels(f"{where}, column {target!r}", labels, table.label_type)


class _Builder:
    """Collects what feeds one input, row by row, in temporary files."""

    def __init__(self, where: str, columns: Columns) -> None:
        self.where, self.columns = where, columns
        self.rows = 0
        self.dtype = _held_as(columns.port)
        self.spool = TextSpool() if self.dtype is None else Spool()

    @property
    def arrow_type(self) -> str:
        """How the columns are read."""
        return "string" if self.dtype is None else self.dtype.name

    def append(self, batch: Any) -> None:
        """Add the rows of a batch."""
        alias = _arrow("pyarrow").type_for_alias(self.arrow_type)
        parts = [batch.column(name).cast(alias) for name in self.columns.names]
        if isinstance(self.spool, TextSpool):
            texts = [part.fill_null("").to_pylist() for part in parts]
            self.spool.append(text for row in zip(*texts, strict=True) for text in row)
        else:
            numbers = [self._numbers(part) for part in parts]
            self.spool.append(np.stack(numbers, axis=1).tobytes())
        self.rows += batch.num_rows

    def _numbers(self, part: Any) -> Array:
        assert self.dtype is not None
        if part.null_count and self.dtype.kind != "f":
            first = self.rows + part.is_null().to_pylist().index(True)
            raise DataError(
                self.where,
                f"input {self.columns.port.name!r} of the model takes whole numbers, but one "
                f"is missing in row {first} (counting from 0)",
                "fill it in or leave the row out",
            )
        found: Array = part.to_numpy(zero_copy_only=False).astype(self.dtype, copy=False)
        return found

    def stored(self) -> Store:
        """Give everything that was added."""
        rank = len(self.columns.port.shape)
        shape = (self.rows, len(self.columns.names))[:rank]
        if isinstance(self.spool, TextSpool):
            return self.spool.stored(shape)
        assert self.dtype is not None
        return ArrayStore(self.spool.mapped(self.dtype, shape))

    def close(self) -> None:
        """Close the temporary files; what was stored stays valid."""
        self.spool.close()


def _held_as(port: Port) -> np.dtype[Any] | None:
    """Give the widest type of the input's kind; None for strings."""
    if port.dtype == "str":
        return None
    if port.dtype in {"uint64", "bool"}:
        return np.dtype(port.dtype)
    return np.dtype(np.int64 if port.dtype.startswith(("int", "uint")) else np.float64)


def _join_labels(where: str, chunks: list[Any], label_type: str | None) -> Array:
    lib = _arrow("pyarrow")
    labels = lib.chunked_array(chunks)
    types = lib.types
    if label_type == "string":
        return parse_labels(where, np.asarray(labels.fill_null("").to_pylist(), object))
    if types.is_boolean(labels.type) and not labels.null_count:
        labels = labels.cast("int64")
    if types.is_integer(labels.type) or types.is_floating(labels.type):
        # Nulls turn integers into floats with NaN, which as_labels refuses with their row.
        return as_labels(where, labels.to_numpy())
    texts = labels.cast("string").fill_null("").to_pylist()
    return as_labels(where, np.asarray(texts, object))
