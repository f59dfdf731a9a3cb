"""Reports as runs give them: ordinary, deep and undecided, tiny, and with a relative metric."""

import math
from dataclasses import replace

import numpy as np
import pytest

from penjing.core.measure import Measurement
from penjing.core.report import CandidateRow, LayerRow, Offer, Report, Side
from penjing.report.html import Html

SHA256 = "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
RECIPE = """\
seed: 0
steps:
  - use: rate_distortion
    lambda: 0.00147
    step_ratio: 1.25
    rate_term: true
    only: "*.weight"
  - use: bias_correction
  - use: cast_precision
    form: float16
    only: "*.bias"
"""


def measured(value: float, spread: float, unit: str = "") -> Measurement:
    return Measurement(value, value - spread, value + spread, unit)


def layer(
    name: str, kind: str, shape: tuple[int, ...], bits: float, damage: float, **more: str
) -> LayerRow:
    parameters = math.prod(shape)
    coded = kind not in {"bias", "other"}
    return LayerRow(
        name=name,
        kind=kind,
        shape=shape,
        parameters=parameters,
        encoding=more.get("encoding", "affine" if coded else "cast"),
        coder=more.get("coder", "context_arithmetic" if coded else "float_split"),
        size_bytes=max(3, round(parameters * bits / 8)),
        original_bytes=4 * parameters,
        bits_per_weight=bits,
        zeros=max(0.0, 0.95 - bits * 0.27) if coded else 0.0,
        damage=damage,
        reason=more.get("reason", ""),
    )


def resnet_layers() -> tuple[LayerRow, ...]:
    rows, width_in = [], 3
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            for conv in (1, 2):
                bits = 3.4 - 0.7 * stage + 0.15 * conv - 0.11 * block
                shape = (width, width_in, 3, 3)
                name = f"net.layer{stage}.{block}.conv{conv}.weight"
                rows.append(layer(name, "conv", shape, bits, 0.12 / stage / conv))
                width_in = width
    rows.append(layer("net.linear.weight", "linear", (10, 64), 4.1, 0.08))
    rows.append(layer("net.linear.bias", "bias", (10,), 16.0, 0.001))
    rows.append(
        layer(
            "mean", "other", (1, 3, 1, 1), 32.0, 0.0,
            encoding="dense", coder="raw", reason="too small to gain anything",
        )
    )  # fmt: skip
    return tuple(rows)


def candidate_rows(chosen_bytes: int, limit: float, count: int) -> tuple[CandidateRow, ...]:
    rng = np.random.default_rng(7)
    rows = []
    for index in range(count):
        factor = 2.1 ** ((count // 2 - index) / 4)
        drop = limit * 0.28 / factor**1.6 + 0.0006 * float(rng.normal())
        far = index - count // 2
        status, upper = "within the limit", None
        if far == 0:
            status, upper = "chosen", limit * 0.86
        elif -3 <= far < 0:
            status, upper = "certified", limit * (0.8 + 0.14 * far)
        elif far == 1:
            status, upper = "not certified", limit * 1.2
        elif drop > limit:
            status = "over the limit"
        elif index % 5 == 0:
            status = "dominated"
        rows.append(
            CandidateRow(
                label=f"lambda {0.0004 * 1.35**index:.5f}, step ratio {1 + index % 3 / 4:g}",
                size_bytes=round(chosen_bytes * factor),
                drop=Measurement(drop, drop - 0.0022, drop + 0.0022, ""),
                status=status,
                certified_upper=upper,
                divergence=0.003 / factor**2,
                seconds=3.1 + index * 0.2,
            )
        )
    return tuple(rows)


def busy() -> Report:
    layers = resnet_layers()
    overhead = {"<graph>": 1043, "<header>": 612, "<container>": 88}
    total = sum(row.size_bytes for row in layers) + sum(overhead.values())
    return Report(
        model="resnet20.onnx",
        parameters=sum(row.parameters for row in layers),
        metric="accuracy",
        metric_is_bounded=True,
        max_drop=0.005,
        max_size_bytes=None,
        confidence=0.95,
        before=Side(1_104_312, measured(0.9224, 0.0074), measured(1.482, 0.021, "ms")),
        after=Side(total, measured(0.9210, 0.0075), measured(1.391, 0.018, "ms")),
        drop=Measurement(0.0014, -0.0019, 0.0051, ""),
        met="met",
        reason="the smallest of 15 candidates whose upper bound is inside the limit",
        samples_needed=None,
        splits={
            "calibration": {"rows": 1024, "source": "train.npz"},
            "search": {"rows": 5000, "source": "val.npz, even rows"},
            "certification": {"rows": 5000, "source": "val.npz, odd rows"},
            "seed": 0,
        },
        candidates=candidate_rows(total, 0.005, 15),
        layers=layers,
        overhead=overhead,
        certificate={
            "method": "exact paired test",
            "approximate": False,
            "confidence": 0.95,
            "limit": 0.005,
            "seed": 0,
            "tested": [
                {
                    "label": f"lambda {0.0012 * (k + 1):.4f}",
                    "drop": {"value": 0.0004 * k, "low": 0.0004 * k - 0.002,
                             "high": 0.0004 * k + 0.003, "unit": ""},
                    "upper": 0.0022 + 0.0007 * k,
                    "p_value": 0.0001 * 4.2**k,
                    "samples": 5000,
                    "verdict": "met" if k < 4 else "undecided",
                    "samples_needed": None if k < 4 else 9100,
                }
                for k in range(5)
            ],
            "chosen": 3,
            "upper": 0.0043,
        },
        recipe=RECIPE,
        reproduce=(
            "penjing compress resnet20.onnx --data val.npz --calibration train.npz "
            "--metric accuracy --max-drop 0.5% --confidence 95% --seed 0 -o small.penjing"
        ),
        sha256=SHA256,
        seconds={"observe": 9.4, "search": 71.8, "write": 1.2, "certify": 12.9, "total": 96.1},
        environment={
            "penjing": "0.1.0",
            "python": "3.11.2",
            "onnxruntime": "1.23.0",
            "processor": "x86-64, 2 cores",
            "threads": "1",
        },
        offers=(Offer(0.002, 91_200), Offer(0.01, 51_300), Offer(0.02, 43_900)),
        warnings=("2 of 1,024 calibration samples are duplicates",),
    )  # fmt: skip


def deep() -> Report:
    base = busy()
    rng = np.random.default_rng(3)
    layers = []
    for index in range(120):
        block, part = divmod(index, 6)
        names: tuple[str, ...] = (
            "q_proj.weight",
            "k_proj.weight",
            "v_proj.weight",
            "out_proj.weight",
        )
        names += ("mlp.fc1.weight", "norm.bias")
        kind = "bias" if part == 5 else "linear"
        shape = ((192,), (768, 192))[part == 4] if part >= 4 else (192, 192)
        shape = (192,) if part == 5 else shape
        bits = 16.0 if part == 5 else float(2.2 + 0.5 * rng.random())
        name = f"encoder.layers.{block}.self_attention.{names[part]}"
        layers.append(layer(name, kind, shape, bits, float(rng.random() / 60)))
    total = sum(row.size_bytes for row in layers) + sum(base.overhead.values())
    rows = tuple(
        replace(row, status="not certified", certified_upper=0.0062 + 0.001 * i)
        if row.status == "certified"
        else replace(row, certified_upper=0.0071)
        if row.status == "chosen"
        else replace(row, certified_upper=None)
        for i, row in enumerate(candidate_rows(total, 0.005, 23))
    )
    return replace(
        base,
        model="/home/someone/models/a-rather-long-folder-name/vision-transformer-small.onnx",
        parameters=sum(row.parameters for row in layers),
        layers=tuple(layers),
        candidates=rows,
        before=Side(
            sum(row.original_bytes for row in layers) + 41_000,
            measured(0.8112, 0.0242),
            measured(18.2, 0.4, "ms"),
        ),
        after=Side(total, measured(0.8092, 0.0243), measured(18.1, 0.5, "ms")),
        drop=Measurement(0.002, -0.0041, 0.0081, ""),
        met="undecided",
        reason="the limit lies inside the interval of the drop",
        certificate={**base.certificate, "chosen": None, "upper": 0.0071},
        samples_needed=12_400,
        offers=(Offer(0.01, round(total * 0.86)), Offer(0.02, round(total * 0.71))),
        splits={
            "calibration": {"rows": 250, "source": "val.npz"},
            "search": {"rows": 375, "source": "val.npz"},
            "certification": {"rows": 1000, "source": "val.npz"},
            "seed": 3,
        },
        warnings=(
            "the data have only 1,000 certification samples",
            "3 arrays are constant and were stored as one value",
        ),
    )


def tiny() -> Report:
    only = layer("w", "linear", (4, 2), 32.0, 0.0, encoding="dense", coder="raw", reason="tiny")
    none = Measurement(math.nan, math.nan, math.nan, "")
    return Report(
        model="m.onnx",
        parameters=8,
        metric="agreement",
        metric_is_bounded=True,
        max_drop=None,
        max_size_bytes=100,
        confidence=None,
        before=Side(230, Measurement(1.0, 1.0, 1.0, ""), none),
        after=Side(only.size_bytes + 120, Measurement(1.0, 0.83, 1.0, ""), none),
        drop=Measurement(0.0, 0.0, 0.0, ""),
        met="missed",
        reason="no candidate is smaller than 100 B.",
        samples_needed=None,
        splits={"calibration": 10, "search": 10, "certification": 20, "seed": 0},
        candidates=(
            CandidateRow("lossless", 152, Measurement(0.0, 0.0, 0.0, ""), "chosen"),
        ),
        layers=(only,),
        overhead={"graph": 80, "header": 40},
        certificate={},
        recipe="steps: []\n",
        reproduce="penjing compress m.onnx --data d.npz --max-size 100",
        sha256=SHA256,
        seconds={"total": 0.31},
        environment={},
    )  # fmt: skip


def relative() -> Report:
    base = busy()
    limit = 0.01
    return replace(
        base,
        model="housing-pipeline.onnx",
        metric="mse",
        metric_is_bounded=False,
        max_drop=limit,
        max_size_bytes=60_000,
        before=Side(412_000, measured(0.28341, 0.009), measured(0.0213, 0.0004, "ms")),
        after=Side(base.after.size_bytes, measured(0.28502, 0.009), measured(0.0243, 0.0006)),
        drop=Measurement(0.00568, 0.0011, 0.00992, ""),
        candidates=tuple(
            replace(row, status="too large") if row.size_bytes > 60_000 * 1.8 else row
            for row in candidate_rows(base.after.size_bytes, limit, 15)
        ),
        certificate={"method": "paired bootstrap (BCa)", "approximate": True, "upper": 0.00992},
        offers=(),
        warnings=(),
        higher_is_better=False,
    )


REPORTS = {"busy": busy, "deep": deep, "tiny": tiny, "relative": relative}


@pytest.fixture(scope="session", params=REPORTS, ids=str)
def report(request: pytest.FixtureRequest) -> Report:
    """Give each of the sample reports in turn."""
    return REPORTS[request.param]()


@pytest.fixture(scope="session")
def page(report: Report) -> str:
    """Give the HTML page of each of them."""
    return Html().render(report)


@pytest.fixture
def ordinary() -> Report:
    """Give a run that met its limit."""
    return busy()


@pytest.fixture
def undecided() -> Report:
    """Give a run with 120 layers and too few samples."""
    return deep()
