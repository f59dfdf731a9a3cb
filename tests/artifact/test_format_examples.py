"""The worked examples of FORMAT.md, section 9: what the coders write and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import penjing.artifact
from penjing.coders.context_arithmetic import ContextArithmetic
from penjing.coders.float_split import FloatSplit
from penjing.coders.huffman import Huffman
from penjing.coders.rans import Rans

if TYPE_CHECKING:
    from penjing.core.coder import Coder
    from penjing.core.tensors import Array

SMALL = np.array([0, 0, 0, 0, 1, 1, -1], np.int8)


@pytest.mark.parametrize(
    ("coder", "array", "payload"),
    [
        (Rans(), SMALL, "02 01 02 05 6D A6 20 35 3A EE E9 22 03"),
        (Huffman(), SMALL, "02 01 02 02 DF 36 F0 01"),
        (
            Huffman(),
            np.array([0, 1000, -3, 0], np.int16),
            "14 00 2B 05 EF FC EB 4F 33 01 D0 0E",
        ),
        (FloatSplit(), np.array([1, 0, -0.75], np.float32), "16 7F 02 03 6B 40"),
        (ContextArithmetic(), SMALL, "23 F3 9D"),
    ],
)
def test_an_example_is_what_the_coder_writes_and_reads(
    coder: Coder, array: Array, payload: str
) -> None:
    text = Path(penjing.artifact.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
    data = bytes.fromhex(payload)
    assert f"`{payload}`" in text
    assert coder.encode(array) == data
    assert np.array_equal(coder.decode(data, array.shape, array.dtype), array)
