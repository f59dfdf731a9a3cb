"""Quantize a model to int8 with ONNX Runtime's own tool."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

_BATCH = 64


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base class
    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        starts = range(0, len(images), _BATCH)
        self._left: Iterator[dict[str, NDArray[np.uint8]]] = iter(
            [{name: images[start : start + _BATCH]} for start in starts]
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._left, None)


def compress(
    model: bytes, input_name: str, images: NDArray[np.uint8], *, narrow: bool
) -> bytes:
    """Give the QDQ file: s8 weights per channel, u8 activations, MinMax calibration.

    Args:
        model: the float ONNX file.
        input_name: the name of its input.
        images: calibration images.
        narrow: 7-bit weights, which ONNX Runtime advises for CPUs without VNNI.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize_static(
            source,
            target,
            _Reader(input_name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=narrow,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()
