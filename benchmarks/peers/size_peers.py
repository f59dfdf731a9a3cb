"""Measure what other tools make of one model: JSON rows, one per peer and point.

Run by the Python of the peers' environment, see ../README.md (``seconds`` is the time to
code, for NNCodec to decode as well; judging is not in it):

    python benchmarks/peers/size_peers.py --model lenet-5 --seed 0 --threads 2

``bytes + bytes_graph`` is what has to be kept. Every point is decoded from its bytes and
run by ONNX Runtime on all test images. Points are searched on the even-numbered ones.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kmeans_huffman
import nncodec_peer
import static_int8
from common import (
    MODELS,
    BenchModel,
    Judge,
    calibration_images,
    emit,
    load_test,
)
from nncodec_peer import Setting
from onnx_parts import OnnxParts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnx_parts import Weights

    Row = dict[str, Any]

FIRST_QP = {"mnist": -18, "cifar10": -25}
QP_RANGE = (-44, -2)
NEAR = (-6, -3, -2, -1, 0, 1, 2, 3)
"""Points beside the coarsest QP inside the limit, finer ones for smaller drops."""

NNCODEC_SETTINGS = (
    Setting(dependent=False),
    Setting(dependent=False, rate=1),
    Setting(dependent=True),
    Setting(dependent=True, rate=1),
    Setting(dependent=True, rate=1, by_size=True),
)
NNCODEC_MORE_SETTINGS = (
    Setting(dependent=False, by_size=True),
    Setting(dependent=True, by_size=True),
    Setting(dependent=True, rate=0.5),
    Setting(dependent=True, rate=0.5, by_size=True),
    Setting(dependent=True, rate=1, fine_qp=0, by_size=True),
)
"""Tried too where a point takes a second."""
TUNED_SETTINGS = (Setting(dependent=True), Setting(dependent=True, rate=1))
TUNED_NEAR = (0, 2)
"""Points beside the same QP from which it tunes tensor by tensor: 8 trials for each."""


class Bench:
    """Hold one model, its parts and its judge."""

    def __init__(self, model: BenchModel, seed: int, threads: int) -> None:
        self.model = model
        self.seed = seed
        self.content = model.path.read_bytes()
        self.parts = OnnxParts(self.content)
        self.judge = Judge(self.content, load_test(model.dataset), threads)

    def even_accuracy(self, weights: Weights) -> float:
        """Judge weights on the even-numbered images alone."""
        return self.judge.even_accuracy(self.parts.with_weights(weights))

    def row(
        self, peer: str, setting: str, size: int, model: bytes, *, seconds: float, **more: Any
    ) -> Row:
        """Judge one point made in ``seconds``; ``more`` overrides or adds fields."""
        scores = self.judge.score(self.judge.predict(model))
        return {
            "peer": peer,
            "setting": setting,
            "model": self.model.name,
            "bytes": size,
            "bytes_graph": len(self.parts.packed_graph),
            "original_bytes": len(self.content),
            **scores,
            "seconds": seconds,
            **more,
        }


def lossless(bench: Bench) -> Iterator[Row]:
    """Pack the float file as it is."""
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip -9": lambda content: gzip.compress(content, 9, mtime=0),
        "zstd -19": lambda content: zstandard.compress(content, 19),
    }
    for name, pack in packers.items():
        began = time.perf_counter()
        size = len(pack(bench.content))
        seconds = since(began)
        peer, setting = name.split()
        yield bench.row(peer, setting, size, bench.content, seconds=seconds, bytes_graph=0)


def int8(bench: Bench) -> Iterator[Row]:
    """Quantize with ONNX Runtime; the file is kept as the tool writes it."""
    images = calibration_images(bench.model.dataset, bench.seed).x
    name = onnx.load_from_string(bench.content).graph.input[0].name
    for narrow in (False, True):
        began = time.perf_counter()
        made = static_int8.compress(bench.content, name, images, narrow=narrow)
        seconds = since(began)
        setting = "static QDQ s8 per channel, u8" + (", reduce_range" if narrow else "")
        zstd = len(zstandard.compress(made, 19))
        yield bench.row(
            "onnxruntime-int8",
            setting,
            len(made),
            made,
            seconds=seconds,
            bytes_graph=0,
            bytes_zstd=zstd,
        )


def sharing(bench: Bench) -> Iterator[Row]:
    """Share weights in 2 to 6 bits."""
    for bits in range(2, 7):
        began = time.perf_counter()
        size, weights = kmeans_huffman.compress(bench.parts.weights, bits)
        seconds = since(began)
        model = bench.parts.with_weights(weights)
        yield bench.row("kmeans-huffman", f"{bits} bits", size, model, seconds=seconds)


def nncodec(bench: Bench) -> Iterator[Row]:
    """Search the QP of each setting, the next one from where the last one ended."""
    start = FIRST_QP[bench.model.dataset]
    ends: dict[Setting, int] = {}
    small = bench.model.name.startswith("lenet")
    for setting in NNCODEC_SETTINGS + (NNCODEC_MORE_SETTINGS if small else ()):
        points: dict[int, Row] = {}

        def passes(
            qp: int, setting: Setting = setting, points: dict[int, Row] = points
        ) -> bool:
            if qp not in points:
                points[qp] = nncodec_row(bench, setting, qp)
            return bool(points[qp]["drop_even"] <= bench.model.max_drop)

        ends[setting] = start = coarsest(passes, start)
        for offset in NEAR:
            passes(min(max(start + offset, QP_RANGE[0]), QP_RANGE[1]))
        yield from (points[qp] for qp in sorted(points))
    for setting in TUNED_SETTINGS if small else ():
        for offset in TUNED_NEAR:
            yield nncodec_row(bench, setting, ends[setting] + offset, tuned=True)


def nncodec_row(bench: Bench, setting: Setting, qp: int, *, tuned: bool = False) -> Row:
    """Encode, decode and judge at one QP, or tuned around it on the even images."""
    accuracy = bench.even_accuracy if tuned else None
    began = time.perf_counter()
    stream = nncodec_peer.encode(bench.parts.weights, setting, qp, accuracy)
    weights = nncodec_peer.decode(stream)
    seconds = since(began)
    return bench.row(
        "nncodec-ioq" if tuned else "nncodec",
        f"{setting} qp={qp}",
        len(stream),
        bench.parts.with_weights(weights),
        seconds=seconds,
        dependent=setting.dependent,
        bytes_original_names=bench.parts.original_name_bytes,
    )


def since(began: float) -> float:
    """Give the seconds since a reading of ``time.perf_counter``."""
    return round(time.perf_counter() - began, 3)


def coarsest(passes: Callable[[int], bool], start: int) -> int:
    """Find the largest QP inside the limit as if drops only grew: bracket, then halve."""
    low, high = QP_RANGE
    step = 2
    if passes(start):
        good, bad = start, high + 1
        while good + step <= high:
            if not passes(good + step):
                bad = good + step
                break
            good, step = good + step, 2 * step
    else:
        good, bad = low, start
        while bad - step > low:
            if passes(bad - step):
                good = bad - step
                break
            bad, step = bad - step, 2 * step
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if passes(middle) else (good, middle)
    return good


PEERS = {
    "lossless": lossless,
    "onnxruntime-int8": int8,
    "kmeans-huffman": sharing,
    "nncodec": nncodec,
}


def main() -> None:
    """Read the command line, print the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument("--seed", type=int, default=0, help="draws the calibration images")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    bench = Bench(MODELS[chosen.model], chosen.seed, chosen.threads)
    for peer in chosen.peers:
        for row in PEERS[peer](bench):
            emit(row)


if __name__ == "__main__":
    main()
