"""Batches are read once, in order, and become the same rows as arrays."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.data import describe_data, first_rows, gathered, open_data
from penjing.core.errors import DataError
from penjing.core.model import Port

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

X = Port("x", "float32", (None, 2))
TWO = [Port("a", "float32", (None, 2)), Port("b", "int64", (None,))]
ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)
MORE = np.arange(10)
LABELS = np.arange(10) % 3
SET = TensorDataset(torch.from_numpy(ROWS), torch.from_numpy(LABELS))


class Items(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return {"a": ROWS[index], "b": int(MORE[index]), "y": int(LABELS[index])}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(ROWS, LABELS, strict=True)


class Custom:
    def __iter__(self) -> Iterator[Any]:
        yield ROWS[:6], LABELS[:6]
        yield ROWS[6:], LABELS[6:]


@pytest.mark.parametrize(
    "source",
    [
        DataLoader(SET, batch_size=4),
        SET,
        Stream(),
        DataLoader(Stream(), batch_size=3),
        Custom(),
        [(torch.from_numpy(ROWS), torch.from_numpy(LABELS))],
        [({"x": ROWS}, LABELS)],
        [{"x": ROWS, "y": LABELS}],
        [((ROWS,), LABELS[:, None])],
    ],
    ids=[
        *("loader", "data set", "stream", "loader of a stream", "iterable"),
        *("list", "dict and labels", "dict", "tuple"),
    ],
)
def test_batches_hold_the_same_as_arrays(source: Any) -> None:
    assert open_data(source, [X]).digest == open_data((ROWS, LABELS), [X]).digest


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ([(ROWS, LABELS)], ["x"]),
        ((ROWS, LABELS), ["x"]),
        (((ROWS, MORE), LABELS), ["x_0", "x_1"]),
        ([(ROWS, MORE, LABELS)], ["x_0", "x_1"]),
        ({"a": ROWS, "b": MORE, "y": LABELS, "one": 3.0}, ["a", "b"]),
    ],
    ids=["batches", "pair", "tuple", "batches of several", "names"],
)
def test_what_is_described_is_what_comes_first(source: Any, names: list[str]) -> None:
    if isinstance(source, dict):
        with pytest.raises(DataError, match="holds one value"):
            describe_data(source)
        source = {name: array for name, array in source.items() if name != "one"}
    ports = describe_data(source)
    example = first_rows(source)
    found: Any = example
    if isinstance(example, tuple):
        found = dict(zip(names, example, strict=True))
    assert [port.name for port in ports] == names
    for port in ports:
        assert found[port.name].shape == (2, *port.shape[1:])
        assert found[port.name].dtype.name == port.dtype


def test_generators_are_read_once() -> None:
    batches = ((ROWS[i : i + 4], LABELS[i : i + 4]) for i in range(0, 10, 4))
    held = gathered(batches)
    example = first_rows(held, None)
    assert isinstance(example, tuple)
    np.testing.assert_array_equal(example[0], ROWS[:2])
    assert open_data(held, [X]).digest == open_data((ROWS, LABELS), [X]).digest
    with pytest.raises(DataError, match="was a generator used before"):
        gathered(batches)


@pytest.mark.parametrize(
    "source",
    [
        Items(),
        DataLoader(Items(), batch_size=4),
        [(ROWS, MORE, LABELS)],
        [((ROWS, MORE), LABELS)],
        [({"b": MORE, "a": ROWS}, LABELS)],
        ((ROWS, MORE), LABELS),
        ((torch.from_numpy(ROWS), torch.from_numpy(MORE)), LABELS),
    ],
    ids=["items", "loader", "in a row", "tuple", "dict", "arrays", "tensors"],
)
def test_several_inputs_come_by_name_or_in_order(source: Any) -> None:
    wanted = open_data({"a": ROWS, "b": MORE, "y": LABELS}, TWO)
    assert open_data(source, TWO).digest == wanted.digest


def test_labels_may_have_a_name() -> None:
    data = open_data([{"x": ROWS, "labels": LABELS}], [X], "labels")
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels, LABELS)
    assert open_data([ROWS], [X]).labels is None


class Noisy(Dataset[Any]):
    """Augments with every source of random numbers there is."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        noise = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002, S311
        return ROWS[index] + np.float32(noise), LABELS[index]


def test_shuffling_and_augmentation_are_the_same_each_time() -> None:
    own = torch.Generator()
    loaders = [
        DataLoader(Noisy(), batch_size=4, shuffle=True),
        DataLoader(Noisy(), batch_size=4, shuffle=True, generator=own),
    ]
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    state = own.get_state()
    for loader in loaders:
        first, again = open_data(loader, [X]), open_data(loader, [X])
        assert first.digest == again.digest
        assert first.digest != open_data((ROWS, LABELS), [X]).digest
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(own.get_state(), state)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(ROWS, LABELS), (ROWS,)], "batch 1 .*: holds 1 arrays of inputs, the first one"),
        ([{"x": ROWS}, {"z": ROWS}], "batch 1 .*: holds 'z', the first one 'x'"),
        ([(ROWS, LABELS), (ROWS[:, :1], LABELS)], r"shape \(10, 1\) .* has \(10, 2\)"),
        ([(ROWS, LABELS), (ROWS > 0, LABELS)], "holds bool where the first one holds float32"),
        ([(ROWS, LABELS[:3])], "batch 0 .*: holds arrays of 3, 10 rows"),
        (iter([3, 4]), "holds 3, which is no array of rows"),
        ([(ROWS, {"a": LABELS})], "has a dict inside its inputs or labels"),
        (iter([(ROWS, LABELS), ()]), "batch 1 .*: is empty"),
        ([(ROWS, MORE, MORE, LABELS)], "has 3 arrays of inputs, the model has 1"),
        (iter([]), "holds none"),
        ([(np.array([object()]), LABELS[:1])], "Python objects"),
    ],
    ids=[
        *("structure", "names", "shape", "type", "rows", "numbers", "labels", "empty"),
        *("too many", "none", "objects"),
    ],
)
def test_batches_that_do_not_fit_say_where(batches: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(batches, [X])


@pytest.mark.parametrize(
    "source", [[], "text", b"bytes", {1, 2}, range(3), 5, None, [1.0, 2.0], np.float32(3)]
)
def test_what_gives_no_batches_is_refused(source: Any) -> None:
    with pytest.raises(DataError, match=r"cannot be read|no such file"):
        open_data(source, [X])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "bool"])
def test_tensors_of_every_type_are_read(dtype: str) -> None:
    given = torch.ones(3, 2, dtype=getattr(torch, dtype), requires_grad="float" in dtype)
    batch = open_data(given, [X]).take(np.arange(3))
    np.testing.assert_array_equal(batch.inputs["x"], np.ones((3, 2), np.float32))
