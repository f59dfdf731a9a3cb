"""Memory: statistics are taken of as many samples as fit, and large models are not copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.backends.onnx_support import walking
from penjing.core.registry import BACKENDS
from penjing.testing import models
from penjing.testing.onnx_oddities import ODDITIES
from penjing.testing.onnx_zoo import LAYERS

if TYPE_CHECKING:
    from penjing.core.model import Model, Statistics
    from penjing.core.tensors import Array

MEASURE = """
import resource, sys
import numpy as np, onnxruntime
import penjing.backends.onnx as onnx_backend
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = onnx_backend.Onnx().open(sys.argv[1])
width = model.backend.inputs(model.native)[0].shape[1]
rows = np.random.default_rng(0).normal(size=(32, width)).astype(np.float32)
model.predict({"x": rows})
seen = []
model.backend.walker(model.native, [{"x": rows}]).run(lambda n, s: seen.append(n) or {})
assert len(seen) == 8, seen
print(peak() - before)
"""


def opened(proto: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(proto)
    return model


def observed(model: Model, batches: list[dict[str, Array]]) -> dict[str, Statistics]:
    seen: dict[str, Statistics] = {}
    model.backend.walker(model.native, batches).run(lambda n, s: seen.update({n: s}) or {})  # type: ignore[attr-defined]
    return seen


@pytest.mark.parametrize("name", ["conv_2d", "matmul_3d", "gemm_10"])
def test_fewer_samples_are_taken_where_all_do_not_fit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(LAYERS[name]())
    batches = [models.inputs(model, 64, seed) for seed in range(4)]
    assert observed(model, batches)["w"].samples == 256
    monkeypatch.setattr(walking, "LIVE_BYTES", 20_000)
    monkeypatch.setattr(walking, "PIECE_BYTES", 2_000)
    fewer = observed(model, batches)["w"]
    assert 0 < fewer.samples < 256
    assert fewer.gram is not None


def test_batches_of_a_fixed_size_are_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(ODDITIES["four_samples"]())
    monkeypatch.setattr(walking, "PIECE_BYTES", 1)
    monkeypatch.setattr(walking, "LIVE_BYTES", 1)
    batches = [models.inputs(model, 4, seed) for seed in range(3)]
    assert observed(model, batches)["w"].samples == 4


def test_pieces_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(LAYERS["matmul_residual"]())
    batches = [models.inputs(model, 50, 0)]
    whole = observed(model, batches)["w"]
    monkeypatch.setattr(walking, "PIECE_BYTES", 10_000)
    parts = observed(model, batches)["w"]
    assert whole.gram is not None
    assert parts.gram is not None
    np.testing.assert_allclose(parts.gram, whole.gram, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the Linux way")
def test_a_large_model_takes_few_times_its_size(tmp_path: Path) -> None:
    import onnx

    from penjing.testing.onnx_zoo import Node, graph

    width, layers = 2560, 8
    rng = np.random.default_rng(0)
    nodes: list[Node] = []
    for layer in range(layers):
        source = "x" if layer == 0 else f"h{layer}"
        target = "y" if layer == layers - 1 else f"h{layer + 1}"
        nodes.append(("MatMul", [source, f"w{layer}"], target, {}))
    arrays = {
        f"w{layer}": (rng.normal(size=(width, width)) / 50).astype(np.float32)
        for layer in range(layers)
    }
    path = tmp_path / "large.onnx"
    onnx.save(graph(nodes, {"x": ("float32", ["n", width])}, arrays, rank=2), path)
    source_folder = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": source_folder},
    )
    assert int(done.stdout) < 4 * path.stat().st_size
