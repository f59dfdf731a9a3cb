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
            "e66006050c08e57afe6e86732924522135bef0e2f69837a5bf1701a96945ea57b716fd429055cc48"
            "44201a9df64ae9275bef78a90176d55afb1bd2246d980826c4229a3b2e961e61e782e893be8d80a2"
            "6ffad7ed048ef40d28ceef12123313effc55046f86f99019f6f980883af3b6ef3d6d5b7e9b7a6c0b"
            "7f9f76ae040c929b84d56b1a16ab48982543d4433b14008292e423d2a9279b30ed0606916833057a"
            "7242fd6f1aa3351ffb1f2df5854d2dd2b353d259e1a0a4cceacb4cb2a7956637422ef86bb82978ba"
            "bc725944db77"
        ),
    ),
    (
        "context_arithmetic",
        (4, 3, 3, 3),
        "i2",
        100,
        "64001114180ebdb057a4976d14acb5f0f79b2d9f044eecaa5e7ceb32beb519ebec",
    ),
    ("context_arithmetic", (6, 2, 5), "i1", 150, "060123d53b156195c200b618fc6c1c"),
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
            "6dd74581448205b91c70e0f8e53106932279e82b052b6124be96ed2a38c830c3",
        ),
        (
            "context_arithmetic",
            (16, 12, 3, 3),
            "i2",
            60,
            "baa86ac3104d6cbb38afb011c5e0788f7897bd33662084228b9b83a2a520edd5",
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
