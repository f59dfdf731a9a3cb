"""Rows without a model say what a model for them has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.architecture import Problem, Task
from penjing.core.data import Part, describe_data
from penjing.core.errors import ConfigError, DataError, PenjingWarning
from penjing.core.model import Port
from penjing.engine import templating
from penjing.engine.templating import check_labels, make_template, open_for, pose, targets

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.core.data import Dataset
    from penjing.core.tensors import Array

RNG = np.random.default_rng(0)


def whole(dataset: Dataset) -> Part:
    return Part(dataset, np.arange(len(dataset), dtype=np.int64))


def posed(
    name: str, source: object, target: str | None = None, task: Task | None = None
) -> Problem:
    template = make_template(name)
    return pose(template, whole(open_for(template, source, target)), task)


def images(*shape: int) -> Any:
    return RNG.integers(0, 256, shape, np.uint8)


def classes(rows: int, count: int = 3) -> Array:
    return np.arange(rows) % count


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "houses.csv"
    rows = [f"{i},{10 * i + 0.5},{i % 2},{1000.5 * i},{'ab'[i % 2]}" for i in range(8)]
    path.write_text("\n".join(["rooms,area,sold,price,word", *rows]))
    return path


def without_words(table: Path, *names: str) -> Path:
    lines = [line.split(",") for line in table.read_text().splitlines()]
    kept = [i for i, name in enumerate(lines[0]) if name in names]
    path = table.with_name("kept.csv")
    path.write_text("\n".join(",".join(line[i] for i in kept) for line in lines))
    return path


def test_images_in_an_npz_are_taken_raw(tmp_path: Path) -> None:
    x, y = images(9, 28, 28), classes(9).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=y, names=np.array(["a", "b", "c"]))
    problem = posed("lenet_5", tmp_path / "d.npz")
    assert (problem.shape, problem.dtype, problem.name) == ((28, 28), "uint8", "x")
    assert (problem.task, problem.outputs) == (Task.CLASSIFICATION, 3)
    assert problem.port == Port("x", "uint8", (None, 28, 28))
    np.testing.assert_allclose(problem.mean, [[x.mean()]])
    np.testing.assert_allclose(problem.std, [[x.std()]])


def test_colours_are_scaled_each_for_itself() -> None:
    x = images(9, 3, 16, 16) // np.array([1, 2, 4], np.uint8).reshape(3, 1, 1)
    problem = posed("resnet_8", (x, classes(9)))
    assert problem.mean.shape == problem.std.shape == (3, 1, 1)
    np.testing.assert_allclose(problem.mean.ravel(), x.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(problem.std.ravel(), x.std(axis=(0, 2, 3)))


def test_the_scale_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.normal(1e4, 1, (50, 6, 3)) * [1, 10, 100]
    monkeypatch.setattr(templating, "BATCH_BYTES", 7 * 6 * 3 * 4)
    problem = posed("lstm_classifier", (x, classes(50)))
    assert problem.dtype == "float32"
    rounded = x.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(problem.mean, rounded.mean(axis=(0, 1)))
    np.testing.assert_allclose(problem.std, rounded.std(axis=(0, 1)))


def test_only_training_rows_count() -> None:
    x, y = RNG.normal(size=(20, 4)), classes(20)
    x[10:], y[10:] = 1e6, 7
    template = make_template("mlp")
    problem = pose(template, Part(open_for(template, (x, y)), np.arange(10)))
    np.testing.assert_allclose(problem.mean, x[:10].mean(axis=0), rtol=1e-5)
    assert problem.outputs == 3


def test_constant_features_are_not_divided_by_zero() -> None:
    x = np.stack([np.full(9, 0.1), np.arange(9), np.full(9, 1e9)], axis=1)
    problem = posed("mlp", {"x": x, "y": classes(9)})
    assert problem.std[[0, 2]].tolist() == [1, 1]
    assert problem.std[1] == pytest.approx(np.arange(9).std())


def test_tokens_say_how_many_words_there_are(tmp_path: Path) -> None:
    tokens = RNG.integers(0, 40, (12, 5)).astype(np.uint16)
    tokens[0, 0] = 40
    np.savez(tmp_path / "d.npz", words=tokens, y=classes(12))
    problem = posed("gru_classifier", tmp_path / "d.npz")
    assert (problem.vocabulary, problem.dtype, problem.name) == (41, "int64", "words")


def test_the_template_says_whether_whole_numbers_are_tokens() -> None:
    x = RNG.integers(0, 40, (12, 5))
    assert posed("transformer_classifier", (x, classes(12))).dtype == "int64"
    features = posed("mlp", (x, classes(12)))
    assert (features.dtype, features.vocabulary) == ("float32", 0)
    np.testing.assert_allclose(features.mean, x.mean(axis=0))


def test_a_table_gives_all_columns_but_the_label(table: Path) -> None:
    path = without_words(table, "rooms", "area", "sold")
    problem = posed("logistic_regression", path, "sold")
    assert (problem.shape, problem.dtype, problem.outputs) == ((2,), "float32", 2)
    assert problem.task is Task.CLASSIFICATION
    np.testing.assert_allclose(problem.mean, [3.5, 35.5])


def test_values_are_predicted_in_their_own_units(table: Path) -> None:
    path = without_words(table, "rooms", "area", "price")
    problem = posed("mlp", path, "price")
    assert (problem.task, problem.outputs) == (Task.REGRESSION, 1)
    prices = 1000.5 * np.arange(8)
    np.testing.assert_allclose(problem.target_mean, [prices.mean()])
    np.testing.assert_allclose(problem.target_std, [prices.std()])


def test_several_targets_are_scaled_each_for_itself() -> None:
    y = RNG.normal(size=(9, 2)) * [1, 100]
    problem = posed("linear_regression", (RNG.normal(size=(9, 3)), y))
    assert problem.outputs == 2
    np.testing.assert_allclose(problem.target_std, y.std(axis=0))


def test_a_table_with_words_is_refused_with_the_column(table: Path) -> None:
    with pytest.raises(DataError, match=r"column 'word', row 0"):
        posed("mlp", table, "sold")


def test_a_frame_is_read_like_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(6), "b": np.ones(6), "label": classes(6)})
    problem = posed("mlp", frame, "label")
    assert (problem.shape, problem.outputs) == ((2,), 3)


def test_a_parquet_file_is_read_like_a_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    held = arrow.table({"a": np.arange(6), "b": np.ones(6), "label": classes(6)})
    parquet.write_table(held, tmp_path / "d.parquet")
    problem = posed("mlp", tmp_path / "d.parquet", "label")
    assert (problem.shape, problem.outputs) == ((2,), 3)


def test_what_is_rebuilt_needs_no_labels(tmp_path: Path) -> None:
    x = RNG.normal(5, 2, (9, 4)).astype(np.float32)
    np.save(tmp_path / "d.npy", x)
    for source in (tmp_path / "d.npy", x, {"x": x, "y": classes(9)}):
        template = make_template("autoencoder")
        dataset = open_for(template, source)
        problem = pose(template, whole(dataset))
        assert problem.task is Task.RECONSTRUCTION
        np.testing.assert_allclose(problem.output_scale[0], x.mean(axis=0), rtol=1e-5)
        np.testing.assert_array_equal(
            targets(problem, dataset.take(np.array([1, 4]))), x[[1, 4]]
        )


@pytest.mark.parametrize(
    ("name", "labels", "task", "found"),
    [
        ("mlp", np.array([0, 1, 2, 0]), None, Task.CLASSIFICATION),
        ("mlp", np.array([0.0, 1, 2, 0]), None, Task.REGRESSION),
        ("mlp", np.array([0.0, 1, 2, 0]), Task.CLASSIFICATION, Task.CLASSIFICATION),
        ("mlp", np.array([0, 1, 2, 0]), Task.REGRESSION, Task.REGRESSION),
        ("mlp", np.array([True, False, True, True]), None, Task.CLASSIFICATION),
        ("linear_regression", np.array([7, 1, -2, 0]), None, Task.REGRESSION),
        ("logistic_regression", np.array([1.0, 0, 1, 0]), None, Task.CLASSIFICATION),
    ],
    ids=["whole", "floats", "asked classes", "asked values", "flags", "line", "logistic"],
)
def test_labels_and_template_tell_the_task(
    name: str, labels: Array, task: Task | None, found: Task
) -> None:
    problem = posed(name, (RNG.normal(size=(4, 3)), labels), task=task)
    assert problem.task is found
    assert problem.outputs == (1 if found is Task.REGRESSION else labels.max() + 1)


def test_targets_have_the_type_that_losses_want() -> None:
    x, y = RNG.normal(size=(6, 3)), classes(6).astype(np.uint8)
    for task, dtype, shape in (
        (Task.CLASSIFICATION, "int64", (2,)),
        (Task.REGRESSION, "float32", (2, 1)),
    ):
        template = make_template("mlp")
        dataset = open_for(template, (x, y))
        problem = pose(template, whole(dataset), task)
        found = targets(problem, dataset.take(np.array([1, 2])))
        assert (found.dtype.name, found.shape) == (dtype, shape)
        assert found.ravel().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "x", "y", "message"),
    [
        (
            "mlp",
            (4, 3),
            [0, 1, -1, 1],
            r"outside the head's range: the smallest is -1\n.*unique",
        ),
        (
            "mlp",
            (4, 3),
            [0, 1, 5000, 1],
            r"the largest of 3 different ones is 5000\n(.|\n)*float",
        ),
        ("mlp", (4, 3), [2, 2, 2, 2], r"all labels are 2"),
        ("mlp", (4, 3), ["a", "b", "a", "b"], r"holds strings, such as 'a'(.|\n)*np\.unique"),
        ("mlp", (2, 3), [[0, 1], [1, 0]], r"no class for each row\n.*argmax"),
        ("mlp", (2, 3), np.zeros((2, 3, 4)), r"labels have shape \(2, 3, 4\)"),
        ("logistic_regression", (2, 3), [0.5, 1], r"such as 0\.5 are values, not classes"),
        ("mlp", (4, 3), None, r"has no labels, which mlp is trained by\n.*--target"),
    ],
)
def test_labels_of_no_use_are_refused(
    name: str, x: tuple[int, ...], y: Any, message: str
) -> None:
    labels = None if y is None else np.array(y)
    with pytest.raises(DataError, match=message):
        posed(name, (RNG.normal(size=x), labels))


def test_a_class_of_a_single_row_is_pointed_out(recwarn: pytest.WarningsRecorder) -> None:
    def warn(labels: Array) -> None:
        x = RNG.normal(size=(len(labels), 3))
        templating.warn_of_strays(whole(open_for(make_template("mlp"), (x, labels))))

    warn(classes(60))
    warn(classes(4))
    assert not recwarn.list, "few rows of each class are no surprise"
    with pytest.warns(PenjingWarning, match="class 3 has a single row, most others 20: if it"):
        warn(np.append(classes(60), 3))


def test_labels_beyond_the_training_rows_are_refused() -> None:
    problem = posed("mlp", (RNG.normal(size=(6, 3)), classes(6)))
    check_labels(problem, np.array([0, 2]))
    with pytest.raises(DataError, match=r"outside the head's range: the largest is 3.*0 to 2"):
        check_labels(problem, np.array([0, 3]), "valid.npz, array 'y'")
    with pytest.raises(DataError, match="holds strings"):
        check_labels(problem, np.array(["a"]))
    values = posed("mlp", (RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))))
    with pytest.raises(DataError, match="holds 1 values for each row, but training rows 2"):
        check_labels(values, np.zeros(4))


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("mlp", {"a": np.ones((3, 2)), "b": np.ones((3, 2))}, r"several arrays.*'a', 'b'\n.*x"),
        ("mlp", {"y": np.ones(3)}, r"no array of inputs beside the labels"),
        ("mlp", {"x": np.array([["a", "b"]])}, r"holds strings, but templates take numbers"),
        ("mlp", {"x": np.float32(1)}, r"holds one value, not one row for each sample"),
        ("lstm_classifier", (np.array([[0, -3]]), np.zeros(1, int)), r"holds -3, which is no"),
        ("mlp", np.array([[0.0, np.nan]]), r"missing, NaN or infinite"),
        ("mlp", np.empty((0, 3)), r"has no rows"),
    ],
)
def test_rows_of_no_use_are_refused(name: str, source: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        posed(name, source)


def test_rows_of_another_kind_are_refused_by_the_template() -> None:
    with pytest.raises(ConfigError, match=r"^lenet_5: takes images, got rows of 8 features"):
        posed("lenet_5", (RNG.normal(size=(9, 8)), classes(9)))
    with pytest.raises(ConfigError, match=r"^autoencoder: is for reconstruction, not for"):
        posed("autoencoder", (RNG.normal(size=(9, 8)), classes(9)), task=Task.REGRESSION)


def test_settings_are_given_by_name() -> None:
    assert make_template("mlp", {"width": 7}) == make_template("mlp", {"width": 7, "layers": 2})
    with pytest.raises(ConfigError, match=r"^mlp\.layer: no such setting\nHint: did you mean"):
        make_template("mlp", {"layer": 7})
    with pytest.raises(ConfigError, match=r"^mlp\.width: must be int in"):
        make_template("mlp", {"width": 0})
    with pytest.raises(ConfigError, match="did you mean 'lenet_5'"):
        make_template("lenet5")


def test_a_file_tells_what_it_holds_without_a_model(tmp_path: Path, table: Path) -> None:
    np.savez(tmp_path / "d.npz", image=images(4, 8, 8), when=np.ones(4), y=classes(4))
    assert describe_data(tmp_path / "d.npz") == (
        Port("image", "uint8", (None, 8, 8)),
        Port("when", "float64", (None,)),
    )
    assert describe_data(table, "word") == (Port("x", "float32", (None, 4)),)
    with pytest.raises(DataError, match="did you mean 'sold'"):
        describe_data(table, "solt")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"is no \.npz file, or damaged"):
        describe_data(tmp_path / "bad.npz")


@pytest.mark.parametrize("name", ["lenet_5", "mlp"])
def test_what_is_posed_can_be_built(name: str) -> None:
    torch = pytest.importorskip("torch")
    template = make_template(name)
    dataset = open_for(template, (images(6, 1, 28, 28), classes(6)))
    net = template.build(pose(template, whole(dataset)))
    batch = dataset.take(np.arange(6))
    with torch.no_grad():
        scaled = net.scaled(torch.from_numpy(batch.inputs["x"]))
    assert abs(float(scaled.mean())) < 1e-3
    assert float(scaled.std()) == pytest.approx(1, abs=1e-2)
