"""All commands but compress: those that use a file, the list of techniques, and help."""

from __future__ import annotations

import csv
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing import load, wrap
from penjing.cli.screen import plain, printable, size
from penjing.cli.techniques import describe
from penjing.core.registry import TECHNIQUES
from penjing.core.technique import Context
from penjing.engine.packing import pack
from penjing.testing.onnx_zoo import draw, graph

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

COMMANDS = (
    *("compress", "evaluate", "bench", "inspect", "predict", "verify", "unpack"),
    "techniques",
)


@pytest.fixture
def scores(made: Path) -> Any:
    with np.load(made / "new.npz") as rows:
        return load(made / "small.penjing").run({"x": rows["x"]})["y"]


def test_help_lists_every_command(penjing: Run) -> None:
    done = penjing("--help")
    assert (done.code, done.err) == (0, "")
    assert [name for name in COMMANDS if name not in done.out] == []


def test_no_arguments_are_wrong_usage_and_give_the_help(penjing: Run) -> None:
    bare = penjing()
    assert (bare.code, bare.out, bare.err) == (2, "", penjing("--help").out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_an_example_and_json(penjing: Run, command: str) -> None:
    done = penjing(command, "--help")
    assert done.code == 0
    assert f"Example: penjing {command}" in done.out
    assert "--json" in done.out


def test_version(penjing: Run) -> None:
    assert penjing("--version").out == f"penjing {version('penjing')}\n"


@pytest.mark.usefixtures("here")
def test_evaluate_gives_the_metric_with_its_interval(penjing: Run) -> None:
    told = penjing("evaluate", "small.penjing", "--data", "rows.npz", "--json").json
    assert told["metric"] == "accuracy"
    assert told["value"]["low"] <= told["value"]["value"] <= told["value"]["high"]
    assert told["rows"] == 900
    shown = penjing("evaluate", "small.penjing", "--data", "rows.npz")
    assert f"accuracy {told['value']['value']:.4f}" in shown.out
    assert "on 900 rows" in shown.out


@pytest.mark.usefixtures("here")
def test_evaluate_takes_plain_onnx_and_a_metric_by_name(penjing: Run) -> None:
    told = penjing(
        *("evaluate", "model.onnx", "--data", "rows.npz", "--metric", "f1", "--json")
    )
    assert told.json["metric"] == "f1"
    assert told.json["value"]["value"] == 1


def test_evaluate_offers_only_metrics_of_one_model(penjing: Run) -> None:
    told = penjing("evaluate", "--help").out
    assert "accuracy, auc, f1" in told
    assert "agreement" not in told


@pytest.mark.usefixtures("here")
def test_bench_times_loading_and_running(penjing: Run) -> None:
    asked = ("bench", "small.penjing", "--seconds", "0.01", "--batch", "3", "--threads", "2")
    told = penjing(*asked, "--json").json
    assert told["load_ms"] > 0
    assert told["latency_ms"]["unit"] == "ms"
    assert (told["batch"], told["threads"]) == (3, 2)
    assert "batch of 3, 2 thread(s)" in penjing(*asked).out


def test_bench_takes_shapes_and_shows_what_has_run(here: Path, penjing: Run) -> None:
    import onnx

    sizes: list[int | str] = ["n", "steps", 6]
    nodes: list[Any] = [("MatMul", ["x", "w"], "y", {})]
    model = graph(nodes, {"x": ("float32", sizes)}, draw(w=(6, 3)), rank=3)
    onnx.save(model, here / "open.onnx")
    asked = ("bench", "open.onnx", "--seconds", "0.01")
    chosen = penjing(*asked)
    assert "x 1x128x6" in chosen.out
    assert "free sizes set to 128; give others with --shape" in chosen.out
    given = penjing(*asked, "--shape", "x=2x9x6")
    assert "batch of 2" in given.out
    assert "x 2x9x6" in given.out
    assert "free sizes" not in given.out
    assert penjing(*asked, "--shape", "x=2x9x6", "--json").json["shapes"] == {"x": [2, 9, 6]}
    refused = penjing(*asked, "--shape", "x=2x9xx6")
    assert refused.code == 2
    assert "--shape: 'x=2x9xx6' is no NAME=SIZES" in refused.err


def test_what_is_left_out_of_a_table_is_noted_once(here: Path, penjing: Run) -> None:
    import onnx

    sizes: list[int | str] = ["n", 1]
    nodes: list[Any] = [("Mul", ["age", "w"], "a", {}), ("Add", ["a", "height"], "y", {})]
    ports = dict.fromkeys(("age", "height"), ("float32", sizes))
    onnx.save(graph(nodes, ports, draw(w=(1, 1)), rank=2), here / "people.onnx")
    (here / "people.csv").write_text("name,age,height\nAda,36,1.6\nAlan,41,1.8\n")
    asked = ("predict", "people.onnx", "--data", "people.csv", "-o", "out.csv")
    told = penjing(*asked, "--json")
    assert told.code == 0
    assert told.json["rows"] == 2
    note = "Note: people.csv: columns that are no input of the model are left out: 'name'"
    assert told.err.count(note) == 1


def test_inspect_accounts_for_every_byte(here: Path, penjing: Run) -> None:
    told = penjing("inspect", "small.penjing", "--json").json
    whole = (here / "small.penjing").stat().st_size
    assert told["bytes"] == whole
    assert sum(row["bytes"] for row in told["ledger"]) == whole
    assert sum(section["size_bytes"] for section in told["sections"]) == whole
    assert told["header"]["evidence"]["metric"]["name"] == "accuracy"
    shown = penjing("inspect", "small.penjing").out
    assert "source digest: " in shown
    for word in ("recipe:", "evidence:", "w1", "<header>", "weights", told["sha256"]):
        assert word in shown


@pytest.mark.usefixtures("here")
def test_verify_lists_what_it_has_checked(penjing: Run) -> None:
    told = penjing("verify", "small.penjing", "--json")
    assert (told.code, told.json["ok"]) == (0, True)
    names = [check["name"] for check in told.json["checks"]]
    shown = penjing("verify", "small.penjing")
    assert [line.split()[1].rstrip(":") for line in shown.out.splitlines()] == names


@pytest.mark.usefixtures("here")
def test_verify_gives_2_for_a_damaged_file(here: Path, penjing: Run) -> None:
    data = bytearray((here / "small.penjing").read_bytes())
    data[-1] ^= 1
    (here / "odd.penjing").write_bytes(data)
    told = penjing("verify", "odd.penjing", "--json")
    assert told.code == told.json["exit_code"] == 2
    assert "odd.penjing: weights" in told.json["error"]["where"]
    assert told.json["checks"] == []


def test_predict_writes_csv(here: Path, penjing: Run, scores: Any) -> None:
    told = penjing(
        *("predict", "small.penjing", "--data", "new.npz", "-o", "out.csv", "--json")
    )
    assert told.json["rows"] == 7
    with (here / "out.csv").open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    assert names == ["y_0", "y_1", "y_2", "predicted_class"] == told.json["columns"]
    written = np.array(rows)
    np.testing.assert_array_equal(written[:, :3].astype(np.float32), scores)
    np.testing.assert_array_equal(written[:, 3].astype(int), scores.argmax(axis=1))


def test_predict_ignores_the_label_column(here: Path, penjing: Run, scores: Any) -> None:
    with np.load("new.npz") as new, (here / "labelled.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{i}" for i in range(12)), "kind"])
        writer.writerows([*row, "b"] for row in new["x"].tolist())
    done = penjing(
        *("predict", "small.penjing", "--data", "labelled.csv", "--target", "kind"),
        *("-o", "out.npz"),
    )
    assert done.code == 0, done.err
    with np.load(here / "out.npz") as written:
        np.testing.assert_array_equal(written["y"], scores)


def test_predict_writes_parquet(here: Path, penjing: Run, scores: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the data extra")
    done = penjing("predict", "small.penjing", "--data", "new.npz", "-o", "out.parquet")
    assert "7 rows in out.parquet: y_0, y_1, y_2, predicted_class" in done.out
    table = parquet.read_table(here / "out.parquet")
    for column in range(3):
        np.testing.assert_array_equal(table[f"y_{column}"].to_numpy(), scores[:, column])


def test_predict_writes_arrays(here: Path, penjing: Run, scores: Any) -> None:
    done = penjing("predict", "small.penjing", "--data", "new.npz", "-o", "out.npz")
    assert done.code == 0
    with np.load(here / "out.npz") as written:
        np.testing.assert_array_equal(written["y"], scores)
        np.testing.assert_array_equal(written["predicted_class"], scores.argmax(axis=1))


def test_unpack_gives_a_valid_model_of_the_same_outputs(
    here: Path, penjing: Run, scores: Any
) -> None:
    import onnx

    told = penjing("unpack", "small.penjing", "-o", "plain.onnx", "--json").json
    assert told["bytes"] == (here / "plain.onnx").stat().st_size
    onnx.checker.check_model(here / "plain.onnx", full_check=True)
    with np.load("new.npz") as rows:
        plainly = load("plain.onnx").run({"x": rows["x"]})["y"]
    np.testing.assert_array_equal(plainly, scores)


def test_unpack_gives_integers_of_the_same_outputs(
    here: Path, penjing: Run, scores: Any
) -> None:
    told = penjing("unpack", "small.penjing", "-o", "qdq.onnx", "--form", "qdq", "--json").json
    assert told["bytes"] == (here / "qdq.onnx").stat().st_size
    assert told["integers"] == ["w1", "w2", "w3"]
    assert told["quantized_activations"] == 0
    with np.load("new.npz") as rows:
        found = load("qdq.onnx").run({"x": rows["x"]})["y"]
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-6)
    shown = penjing("unpack", "small.penjing", "-o", "qdq.onnx", "--form", "qdq").out
    assert "3 weights are 8-bit integers: w1, w2, w3" in shown
    assert "no faster" in shown


def test_unpack_does_not_call_a_model_slow_that_computes_in_integers(
    here: Path, penjing: Run
) -> None:
    model = wrap("model.onnx")
    backend: Any = model.backend
    ranges = dict.fromkeys(backend.activations(model.native), (-4.0, 4.0))
    made = replace(model, native=backend.with_quantized_activations(model.native, ranges))
    rounded = TECHNIQUES.load("round_to_nearest")().apply(made, Context())
    pack(rounded, {}).save(here / "integers.penjing")
    asked = ("unpack", "integers.penjing", "-o", "qdq.onnx", "--form", "qdq")
    assert penjing(*asked, "--json").json["quantized_activations"] == len(ranges) == 3
    shown = penjing(*asked).out
    assert "3 weights are 8-bit integers: w1, w2, w3" in shown
    assert "no faster" not in shown


def test_unpack_says_that_nothing_is_stored_as_integers(here: Path, penjing: Run) -> None:
    pack(wrap("model.onnx"), {}).save(here / "plain.penjing")
    asked = ("unpack", "plain.penjing", "-o", "qdq.onnx", "--form", "qdq")
    assert penjing(*asked, "--json").json["integers"] == []
    assert "No weight is stored as 8-bit integers" in penjing(*asked).out


def test_techniques_are_all_listed(penjing: Run) -> None:
    told = penjing("techniques", "--json").json["techniques"]
    assert [each["name"] for each in told] == list(TECHNIQUES.names())
    shown = penjing("techniques").out
    assert [name for name in TECHNIQUES.names() if name not in shown] == []


@pytest.mark.parametrize("name", TECHNIQUES.names())
def test_every_setting_of_a_technique_is_explained(penjing: Run, name: str) -> None:
    described = describe(name, TECHNIQUES.load(name))
    shown = penjing("techniques", name).out
    assert described["summary"].endswith(".")
    for setting in described["settings"]:
        assert setting["help"], f"a string below the field {setting['name']} is its help"
        assert setting["name"] in shown


def test_a_setting_shows_default_range_and_reference(penjing: Run) -> None:
    (told,) = penjing("techniques", "magnitude_pruning", "--json").json["techniques"]
    sparsity, scope = told["settings"]
    assert (sparsity["default"], sparsity["low"], sparsity["high"]) == (0.5, 0.0, 1.0)
    assert scope["choices"] == ["layer", "model"]
    assert "Han et al." in told["references"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (99_950, "100 kB"), (10**9, "1.00 GB")],
    ids=str,
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers_json_cannot_hold_become_null() -> None:
    assert plain({"a": [np.float32(0.5), float("nan"), float("inf"), np.int64(3)]}) == {
        "a": [0.5, None, None, 3]
    }


def test_control_characters_are_shown_not_obeyed() -> None:
    assert printable("a\x1b[31m\tb\n") == "a\\x1b[31m\\tb\n"
