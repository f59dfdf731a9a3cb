"""How few bits per weight do the coders need, and how fast are they, beside their peers.

    export PENJING_DATA=/path/to/data
    .venv/bin/python benchmarks/coding.py small.penjing ... [integers.npz ...]

Codes the integers of real networks, one thread, best of several runs: those in the files
named, ``.penjing`` files or ``.npz`` files of integer arrays.  Without files, the models in
PENJING_DATA are quantized first, at trade-offs near those that ``size.py`` finds.  All weights
of a model are coded array by array, small ones too, with headers.  Prints one JSON line per
row, then a table.

pcodec and constriction are compared with where they can be imported.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from common import MODELS, BenchModel, calibration_images, emit, load_test

from penjing.core.registry import CODERS
from penjing.core.tensors import Affine, Array, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Row = dict[str, Any]

GOALS = {"context_arithmetic": 40.0, "rans": 250.0}
"""Million weights per second that decoding has to reach."""
MANY = 1000
"""Integers from which an array's own frequencies are a bound that a coder can come close to: of
the few in a bias nearly all differ, and naming them costs more than telling them apart."""
TRADE_OFFS = {
    "lenet-300-100": 8e-9,
    "lenet-5": 3e-8,
    "resnet20": 5e-8,
    "resnet56": 8e-10,
}
"""Loss that one bit may save, per model."""


class Codec(NamedTuple):
    """Turns one array into bytes, or words, and back."""

    encode: Callable[[Array], Any]
    decode: Callable[[Any, Array], Array]
    """From what ``encode`` gave, and an array of the right shape and type."""
    size: Callable[[Any], int]


def main() -> None:
    """Measure every coder on every source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help=".penjing or .npz files")
    parser.add_argument("--runs", type=int, default=9, help="runs of which the best counts")
    options = parser.parse_args()
    codecs, missing = available()
    rows: list[Row] = []
    for source, arrays in sources(options.files):
        for name, codec in codecs.items():
            row = measure(source, arrays, name, codec, options.runs)
            emit(row)
            rows.append(row)
    print("\n" + table(rows))
    for note in missing:
        print(note)


def sources(files: list[Path]) -> Iterator[tuple[str, list[Array]]]:
    """Give each network's name and its integer arrays."""
    if not files:
        for model in MODELS.values():
            yield model.name, quantized(model)
    for file in files:
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                yield file.stem, [narrow(arrays[name]) for name in arrays.files]
        else:
            import penjing

            tensors = penjing.open_artifact(file).tensors
            yield file.stem, [found for name in tensors for found in codes(tensors[name])]


def quantized(model: BenchModel) -> list[Array]:
    """Quantize a model with penjing, without a search, and give its integers."""
    import penjing

    test = load_test(model.dataset).take(np.arange(0, 1200))
    step = {
        "use": "rate_distortion",
        "trade_off": TRADE_OFFS[model.name],
        "sequential": False,
    }
    result = penjing.compress(
        str(model.path),
        {"x": test.x, "y": test.y},
        calibration=calibration_images(model.dataset, 0, 512).x,
        recipe=penjing.Recipe.from_dict({"steps": [step]}),
        budget=penjing.Budget(max_drop=0.9, confidence=None),
    )
    tensors = result.artifact.tensors
    return [found for name in tensors for found in codes(tensors[name])]


def codes(tensor: Tensor) -> Iterator[Array]:
    """Find the integers that an encoding holds."""
    if isinstance(tensor, Affine):
        yield tensor.codes
        return
    for part in tensor.parts().values():
        if isinstance(part, Tensor):
            yield from codes(part)


def narrow(array: Array) -> Array:
    """Store integers in one byte each where they fit, else in four."""
    small = not array.size or np.abs(array).max() <= np.iinfo(np.int8).max
    return np.ascontiguousarray(array, np.int8 if small else np.int32)


def entropy(arrays: list[Array]) -> float:
    """Add up the bits of an ideal coder that knows each array's frequencies."""
    bits = 0.0
    for array in arrays:
        counts = np.unique(array, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return bits


def measure(source: str, arrays: list[Array], name: str, codec: Codec, runs: int) -> Row:
    """Code all arrays of one network with one coder; check that nothing is lost."""
    weights = sum(array.size for array in arrays)
    encode_seconds, payloads = best(lambda: [codec.encode(a) for a in arrays], min(runs, 3))
    pairs = list(zip(payloads, arrays, strict=True))
    decode_seconds, decoded = best(lambda: [codec.decode(p, a) for p, a in pairs], runs)
    for array, back in zip(arrays, decoded, strict=True):
        np.testing.assert_array_equal(back, array)
    sizes = [8 * codec.size(payload) for payload in payloads]
    large = [place for place, array in enumerate(arrays) if array.size >= MANY]
    at_large = entropy([arrays[place] for place in large])
    size_bits = sum(sizes)
    return {
        "source": source,
        "coder": name,
        "weights": weights,
        "bits_per_weight": size_bits / weights,
        "entropy_bits_per_weight": entropy(arrays) / weights,
        "over_entropy_percent": 100 * (size_bits / entropy(arrays) - 1),
        "over_entropy_percent_large": 100 * (sum(sizes[p] for p in large) / at_large - 1),
        "encode_million_per_second": weights / encode_seconds / 1e6,
        "decode_million_per_second": weights / decode_seconds / 1e6,
        "decode_goal": GOALS.get(name),
    }


def best(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Give the shortest time of several runs, and the result."""
    shortest, result = float("inf"), None
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest, result


def available() -> tuple[dict[str, Codec], list[str]]:
    """List our coders of integers and the peers that are installed."""
    codecs = {}
    for name in ("context_arithmetic", "rans", "huffman", "zstd"):
        coder = CODERS.load(name)()
        codecs[name] = Codec(
            coder.encode, lambda p, a, coder=coder: coder.decode(p, a.shape, a.dtype), len
        )
    missing = []
    for name, make in (("pcodec", pcodec), ("constriction", constriction)):
        try:
            codecs[name] = make(importlib.import_module(name))
        except ModuleNotFoundError:
            missing.append(f"{name} is not installed here: left out")
    return codecs, missing


def pcodec(module: Any) -> Codec:
    """Compress 16 or 32-bit integers at pcodec's best level."""
    standalone = importlib.import_module("pcodec.standalone")
    config = module.ChunkConfig(compression_level=8)

    def encode(array: Array) -> Any:
        wide = np.int16 if array.itemsize == 1 else np.int32
        return standalone.simple_compress(array.ravel().astype(wide), config)

    def decode(payload: Any, array: Array) -> Array:
        flat = standalone.simple_decompress(payload)
        back: Array = np.asarray(flat).astype(array.dtype).reshape(array.shape)
        return back

    return Codec(encode, decode, len)


def constriction(module: Any) -> Codec:
    """Code with constriction's ANS and each array's own frequencies, 16 bits per symbol."""
    ans, models = module.stream.stack.AnsCoder, module.stream.model

    def model(low: int, counts: Array) -> Any:
        return models.Categorical(counts / counts.sum(), perfect=False), low

    def encode(array: Array) -> Any:
        low = int(array.min())
        symbols = array.ravel().astype(np.int32) - low
        counts = np.bincount(symbols).astype(np.float64)
        coder = ans()
        if counts.size > 1:
            coder.encode_reverse(symbols, model(low, counts)[0])
        return coder.get_compressed(), counts, low

    def decode(payload: Any, array: Array) -> Array:
        words, counts, low = payload
        if counts.size == 1:
            return np.full(array.shape, low, array.dtype)
        symbols = ans(words).decode(model(low, counts)[0], array.size)
        back: Array = (symbols + low).astype(array.dtype).reshape(array.shape)
        return back

    return Codec(encode, decode, lambda payload: 4 * len(payload[0]) + 2 * len(payload[1]))


def table(rows: list[Row]) -> str:
    """Lay out the rows for people."""
    head = f"{'source':30}{'coder':20}{'bits/weight':>12}{'vs entropy':>12}{'large ones':>12}"
    lines = [f"{head}{'encode M/s':>12}{'decode M/s':>12}  goal"]
    for row in rows:
        goal = row["decode_goal"]
        reached = goal is not None and row["decode_million_per_second"] >= goal
        verdict = "" if goal is None else f"{goal:.0f} {'met' if reached else 'MISSED'}"
        lines.append(
            f"{row['source']:30}{row['coder']:20}{row['bits_per_weight']:12.4f}"
            f"{row['over_entropy_percent']:+11.2f}%{row['over_entropy_percent_large']:+11.2f}%"
            f"{row['encode_million_per_second']:12.1f}"
            f"{row['decode_million_per_second']:12.1f}  {verdict}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
