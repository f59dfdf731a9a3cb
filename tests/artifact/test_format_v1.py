"""Version 1, byte by byte: files written today must be readable for ever."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

import penjing.artifact
from penjing.artifact import Artifact, dictionary, text
from penjing.artifact.container import Kind, unpack
from penjing.artifact.leaves import number_of
from penjing.artifact.limits import Limits
from penjing.core.structures import Bitmask
from penjing.core.template import Form, Slot, Template
from penjing.core.tensors import Affine, Cast, Dense

GOLDEN = bytes.fromhex(
    """
    89706e6a0d0a1a0a01000300010100001b000000507624652d3c5e02f31f9b9ad6a4c2981221695a5d6de7aaab5d
    8d84fbb4c849020100003c00000031491c97d68ba5ea01b61789d538e689a54258b55b119dac7f2a9f0b0d7ab653
    030100002900000011ad6aadbcbef7adf9630155cfe7278945110c23bac2caaeaa54ea1f250064862016b100007b
    2261223a6e756c6c2c2262223a5b312c302e355d7d2050bd0100a2830a10b0a903ccc74bd215dca22cb1616b32c9
    e3c84bb6a181cf8bfe26e7615972f90bdaf29b0a965652a95d030035e51831d5e59a78fd00010200ff003f403f00
    00003e803ec03e003f203f403f603f803f05fb803e500700000000000000
    """
)


def pinned() -> Artifact:
    """Give an artifact whose file is known; raw leaves, so that only this layer is pinned."""
    codes = np.array([[-3, 0, 1], [2, 0, -1]])
    values = Affine.encode(np.array([5, -5]), 0.25)
    tensors = {
        "w": Affine.encode(codes, np.array([[0.5], [0.75]], np.float32)),
        "b": Cast.encode(np.arange(9, dtype=np.float32) / 8, "bfloat16"),
        "m": Bitmask(values, np.packbits(np.array([0, 1, 0, 1], bool)), (2, 2)),
        "n": Dense(np.array([7], np.int64)),
    }
    slots = (
        Slot("w", 2, (2, 3), "float32", swapped=1),
        Slot("b", 4, (9,), "float32", Form.TAGGED),
        Slot("m", 6, (2, 2), "float32"),
        Slot("w", 6, (2, 3), "float32"),
        Slot("n", 7, (1,), "int64"),
    )
    return Artifact(Template(b"w:b:m:n", slots), tensors, {"b": [1, 0.5], "a": None}, "raw")


def test_files_of_version_1_can_be_read() -> None:
    back = Artifact.from_bytes(GOLDEN)
    assert back.onnx_bytes() == pinned().onnx_bytes()
    assert back.header == {"a": None, "b": [1, 0.5]}
    assert back.template == pinned().template


def test_files_of_version_1_are_written_byte_for_byte() -> None:
    assert pinned().to_bytes().hex() == GOLDEN.hex()


def test_tables_of_version_1_are_what_the_specification_says() -> None:
    chunks = unpack(GOLDEN, Limits())
    slots = "05 02100101010a020203 020101010a0109 020001010a020202 002000 01000001070101"
    affine = "000101 000a02 000500"
    records = f"24 0201 {affine} 0101 000402 0402 0200 {affine} 000201 00 000708"
    graph = bytes.fromhex("07") + b"w:b:m:n" + bytes.fromhex(slots + records)
    assert text.decompress(chunks[Kind.GRAPH], "graph") == graph
    halves = "0000 003e 803e c03e 003f 203f 403f 603f 803f"
    weights = f"fd0001 0200ff 003f403f {halves} 05fb 803e 50 0700000000000000"
    assert bytes(chunks[Kind.WEIGHTS]) == bytes.fromhex(weights)


def test_the_numbers_of_coders_never_change() -> None:
    names = ["raw", "context_arithmetic", "rans", "huffman", "float_split", "zstd"]
    assert [number_of(name) for name in names] == list(range(6))


def test_the_specification_names_the_dictionary() -> None:
    page = (Path(penjing.artifact.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
    found = re.search(r"([\d,]+) bytes with SHA-256\s+`([0-9a-f]{64})`", page)
    assert found is not None
    content = dictionary.build()
    assert int(found[1].replace(",", "")) == len(content)
    assert found[2] == hashlib.sha256(content).hexdigest() == dictionary.SHA256
