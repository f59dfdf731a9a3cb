"""The bytes of small arrays, for ever: what was written must stay readable."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.core.registry import CODERS

if TYPE_CHECKING:
    from penjing.core.coder import Coder
    from penjing.core.tensors import Array


def sample(shape: tuple[int, ...], dtype: str, divisor: int) -> Array:
    """Make numbers between -504 and 504, most of them small, divided by ``divisor``."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64)
    mixed = index * 2654435761 // 128 % 1009 - 504
    cubed = mixed * mixed // 504 * mixed // 504
    exact = (
        cubed / divisor if dtype.startswith("f") else np.sign(cubed) * (abs(cubed) // divisor)
    )
    return exact.reshape(shape).astype(dtype)


PINS: list[tuple[str, tuple[int, ...], str, int, str]] = [
    (
        "context_arithmetic",
        (40,),
        "i4",
        1,
        (
            "a30702fe6524819b50223de5769ddd8a386284467e24447619f44a3edd88ef6893b9d8640a61b76d"
            "7474db0b8b664756caf9"
        ),
    ),
    (
        "context_arithmetic",
        (12, 10),
        "i1",
        100,
        "02003d11b48a69027f03fbb1693ee4f7c5c86dfb644fb9dcdf64d20be236715de4443630",
    ),
    (
        "context_arithmetic",
        (30, 49),
        "i1",
        200,
        (
            "e660060515bf2eaadece0163dbfbfd932bdcd99cc20093cdee5aed45b0776ff796e98ee5dfb23d64"
            "f8abb2d2e504f0d3354050a14c52affbc1bff3e77d46f7e3cdbf6e912df7d14a975e7fb85eb6c390"
            "af26d8048c0ff957456a2139c361fda898e5decd5148a81b9a5205043b5268e9d1bb3028f0acb96b"
            "b84d59a2da9376782355d8dd8d631c64002c15fae5a2a8eaa2c132c7e168755247aca85f0406cc3f"
            "a8699328801ba18ea1c8250f8186906022a0b825be49cbb28f9cfdbd52d357457abce164b0c51e49"
            "8fac0c31f7a4eef017ecaf7484858a2d93b48de0"
        ),
    ),
    (
        "context_arithmetic",
        (4, 3, 3, 3),
        "i2",
        100,
        "2d0057e81d9e99ccce808e6601929a2a61397b8d1bc045863033d9499e19aafa67",
    ),
    ("context_arithmetic", (6, 2, 5), "i1", 150, "0e034e566ec67a48ab18ad99e8ef"),
    (
        "rans",
        (60,),
        "i1",
        100,
        "0409090c9ec4569d11c58ad8bf3393e015083a015212b596f1fa3befb54b3ea95dde832e",
    ),
    (
        "rans",
        (30,),
        "i4",
        1,
        (
            "1401271b7ed2d8b713574110cd0c1ceab256a7aebdb2eb7520c143f5cdd6b40f6d52f39671e11025"
            "0795c4f09ae405e9472500a56933f791a82e7211afd6a3e4007e8b"
        ),
    ),
    ("huffman", (60,), "i1", 100, "04090904cb3526a127a8e00637e8877ee88ff998c56c980a2a00"),
    (
        "huffman",
        (30,),
        "i4",
        1,
        (
            "1401270bcf1eee5462040b1c3eea370f6d52f39671e110250795c4f09ae405714ade7e6b5afe1a4c"
            "fb04438591453b12"
        ),
    ),
    (
        "float_split",
        (20,),
        "f4",
        64,
        "0f81010e032410ecbc3cc473e2edc868a230f8c4008070be14000028874ca000d0548c300060",
    ),
    (
        "float_split",
        (20,),
        "f2",
        64,
        "02110e032410ecbc3cc473e2edc868a230f8c4008070be14000028874ca000d0548c300060",
    ),
    ("float_split", (12,), "f8", 64, "2c810809032410ecbc3cc473e3f8c4008070be14000028874c"),
    ("zstd", (40,), "i4", 200, "000000c5000040feffffff00ff010106006e27a083807900936fd2b6035a"),
    ("raw", (3,), "i2", 1, "08fe71000400"),
]
IDS = [f"{name}-{dtype}-{'x'.join(map(str, shape))}" for name, shape, dtype, *_ in PINS]


@pytest.mark.parametrize(("name", "shape", "dtype", "divisor", "pinned"), PINS, ids=IDS)
def test_bytes_stay_readable(
    name: str, shape: tuple[int, ...], dtype: str, divisor: int, pinned: str
) -> None:
    coder: Coder = CODERS.load(name)()
    array = sample(shape, dtype, divisor)
    decoded = coder.decode(bytes.fromhex(pinned), array.shape, array.dtype)
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize(("name", "shape", "dtype", "divisor", "pinned"), PINS, ids=IDS)
def test_bytes_stay_the_same(
    name: str, shape: tuple[int, ...], dtype: str, divisor: int, pinned: str
) -> None:
    if name == "zstd":
        pytest.skip("other versions of Zstandard may find shorter frames")
    assert CODERS.load(name)().encode(sample(shape, dtype, divisor)).hex() == pinned


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "divisor", "sha256"),
    [
        (
            "context_arithmetic",
            (60, 90),
            "i1",
            150,
            "207dd9ec17e4182f41ad30234ce8d93aed6b2c35e777039b489ad0360141d54c",
        ),
        (
            "context_arithmetic",
            (16, 12, 3, 3),
            "i2",
            60,
            "42126322fa052c6f745a12fe60268484bf348ba9fe0c883d56c6098b3641ba54",
        ),
        (
            "context_arithmetic",
            (6, 4, 5, 5),
            "i1",
            250,
            "ce070d313fb145cafde7a809c3bc144d985a374f416d3aaef6d9cb4ef0056f44",
        ),
        (
            "rans",
            (80, 70),
            "i2",
            200,
            "4002bad9538299070e371e565f372cacf68120b6ea7117789d800bc9dc1e7496",
        ),
        (
            "huffman",
            (80, 70),
            "i2",
            20,
            "04cbfa6747bd3bb9b8005fc849935193fd4dfb973fed04066c3c7323c064da19",
        ),
        (
            "float_split",
            (70, 60),
            "f2",
            256,
            "1c20c1000797d03d5fce80482aca7b94a6ef39da11f877cd959adf72c1c6718a",
        ),
        (
            "float_split",
            (70, 60),
            "f4",
            256,
            "5db38a41e3c6f600fb365cb22fbb68e0e3c18a723b34b549e48f4ebe5fbe7276",
        ),
    ],
)
def test_longer_bytes_stay_the_same(
    name: str, shape: tuple[int, ...], dtype: str, divisor: int, sha256: str
) -> None:
    payload = CODERS.load(name)().encode(sample(shape, dtype, divisor))
    assert hashlib.sha256(payload).hexdigest() == sha256
