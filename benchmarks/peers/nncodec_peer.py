"""Code weights with NNCodec 2 (ISO/IEC 15938-17) and decode them again.

``nncodec.nn.encode`` hands a dict of arrays to ``nncodec.nnc.compress`` and adds nothing
that matters here, but importing it takes PyTorch, torchvision, pandas and OpenCV. The
latter function is called directly, with empty stand-ins for the three modules that only
read models of PyTorch and TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx_parts import Weights


@dataclass(frozen=True)
class Setting:
    """Choose the tools of NNCodec; the rest is as ``nncodec.nn.encode`` sets it."""

    dependent: bool
    """Dependent (trellis-coded) quantization; its own default."""
    rate: float = 0.0
    """Weight of the rate in quantization (RDOQ), ``lambda_scale``; 0 is off, its default."""
    fine_qp: int = -75
    """QP of biases; -75 is its default. 0 asks for its other rule: the main QP less 8."""
    by_size: bool = False
    """Let it change each tensor's QP by relative size and spread, ``opt_qp``."""

    def __str__(self) -> str:
        """Name the setting as rows do."""
        tools = ["dq" if self.dependent else "urq", f"rate={self.rate:g}"]
        if self.fine_qp != -75:
            tools.append(f"fine_qp={self.fine_qp}" if self.fine_qp else "fine_qp=qp-8")
        return " ".join([*tools, "opt_qp"] if self.by_size else tools)


def encode(
    weights: Weights,
    setting: Setting,
    qp: int,
    accuracy: Callable[[Weights], float] | None = None,
) -> bytes:
    """Give the complete NNCodec bitstream of all weights.

    Args:
        weights: float32 arrays by name.
        setting: the tools to use.
        qp: the quantization parameter of tensors of rank 2 and more.
        accuracy: judges weights; given, NNCodec searches each tensor's QP within 4 of
            ``qp`` with it (its inference-optimised quantization, IOQ).
    """
    nnc = _load()
    with contextlib.redirect_stdout(sys.stderr):
        stream = nnc.compress(
            dict(weights),
            bitstream_path=None,
            qp=qp,
            nonweight_qp=setting.fine_qp,
            use_dq=setting.dependent,
            lambda_scale=setting.rate,
            opt_qp=setting.by_size,
            ioq=accuracy is not None,
            model_executer=_executer(accuracy) if accuracy else None,
            row_skipping=True,
            return_bitstream=True,
        )
    return bytes(stream)


def decode(stream: bytes) -> Weights:
    """Give the weights back from the bitstream alone."""
    nnc = _load()
    with contextlib.redirect_stdout(sys.stderr):
        weights: Weights = nnc.decompress(bytearray(stream))
    return weights


def _executer(accuracy: Callable[[Weights], float]) -> object:
    base = importlib.import_module("nncodec.nnc_core.nnr_model").ModelExecute

    def evaluate(_: object, parameters: Weights, verbose: object = None) -> dict[str, float]:
        del verbose
        return {"accuracy": accuracy(parameters)}

    answers = {"has_eval": True, "has_test": False, "has_tune_ft": False, "has_tune_lsa": False}
    methods = {name: lambda _, answer=answer: answer for name, answer in answers.items()}
    executer: object = type("Executer", (base,), {"eval_model": evaluate, **methods})()
    return executer


def _load() -> types.ModuleType:
    if "nncodec.framework" not in sys.modules:
        framework = types.ModuleType("nncodec.framework")
        framework.__path__ = []
        sys.modules[framework.__name__] = framework
        for name in ("tensorflow_model", "pytorch_model", "use_case_init"):
            module = types.ModuleType(f"nncodec.framework.{name}")
            setattr(framework, name, module)
            sys.modules[module.__name__] = module
    return importlib.import_module("nncodec.nnc")
