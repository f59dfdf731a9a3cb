"""Small artifacts that need no model framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.artifact import Artifact
from penjing.core.structures import Bitmask
from penjing.core.template import Form, Slot, Template
from penjing.core.tensors import Affine, Codebook, Dense, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Make = Callable[[Mapping[str, Tensor]], Artifact]


def make_artifact(tensors: Mapping[str, Tensor], **settings: str) -> Artifact:
    """Give an artifact whose skeleton holds each name before its slot, as ONNX files do."""
    skeleton, slots = b"\x08\x08:", []
    for name, tensor in tensors.items():
        skeleton += b"B" + bytes([len(name)]) + name.encode() + b"J\x10"
        slots.append(Slot(name, len(skeleton), tensor.shape, tensor.dtype.name))
    template = Template(skeleton + b"Z\x05", tuple(slots))
    return Artifact(template, tensors, {"recipe": {"seed": 0}}, **settings)


@pytest.fixture
def make() -> Make:
    return make_artifact


@pytest.fixture(scope="session")
def small() -> Artifact:
    """Give a small artifact with several encodings, a shared tensor and every kind of slot."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-3, 4, (6, 10))
    sparse = Bitmask.encode(np.where(rng.random((5, 8)) < 0.3, codes[:5, :8], 0).astype("f4"))
    tensors: dict[str, Tensor] = {
        "fc.weight": Affine.encode(codes, 0.125),
        "fc.bias": Dense(rng.normal(size=6).astype(np.float32)),
        "table": Codebook(
            rng.integers(0, 4, (3, 4)).astype(np.uint8), Dense(np.arange(4, dtype=np.float32))
        ),
        "sparse": sparse.map_values(lambda kept: Affine.encode(kept.astype(np.int32), 0.5)),
        "shape": Dense(np.array([-1, 60], np.int64)),
    }
    skeleton = b"<fc.weight fc.bias table sparse shape>"
    slots = (
        Slot("fc.weight", 10, (6, 10), "float32", swapped=1),
        Slot("fc.bias", 18, (6,), "float32", Form.TAGGED),
        Slot("table", 24, (3, 4), "float32"),
        Slot("fc.weight", 24, (6, 10), "float32"),
        Slot("sparse", 31, (5, 8), "float32"),
        Slot("shape", 38, (2,), "int64"),
    )
    return Artifact(Template(skeleton, slots), tensors, {"recipe": {"seed": 0, "steps": []}})
