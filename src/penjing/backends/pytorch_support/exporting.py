"""From a module to an ONNX model, without leaving a trace on the module."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from penjing.backends.pytorch_support.calling import (
    FAILURES,
    Called,
    output_names,
    reason,
    run,
)
from penjing.backends.pytorch_support.tidying import tidy
from penjing.core.errors import MissingExtraError, ModelError
from penjing.core.registry import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

    from penjing.core.model import Model

BATCH = "batch"
TOLERANCE = 1e-3
"""How far, relative to the largest output, an ONNX model may be from its module."""
TINY = 1e-6
WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module"}
WRAPPERS |= {"DistributedDataParallel": "module", "FullyShardedDataParallel": "module"}
"""Classes around a module, and the attribute that holds it."""
TRAINING = {"dropout": 2, "batch_norm": 5, "instance_norm": 5, "feature_dropout": 2}
"""Operators that act otherwise in training, and the argument that says so."""


def unwrapped(module: Any) -> Any:
    """Give the module inside ``torch.compile`` and the parallel wrappers."""
    while type(module).__name__ in WRAPPERS:
        module = getattr(module, WRAPPERS[type(module).__name__])
    return module


def copied(module: nn.Module) -> nn.Module:
    """Copy a module to the CPU; the original stays as it is.

    Raises:
        ModelError: it cannot be copied, or is not built yet.
    """
    where = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            where,
            "is compiled TorchScript, which cannot be exported",
            "give the module that it was made of",
        )
    if any(nn.parameter.is_lazy(each) for each in module.parameters()):
        raise ModelError(
            where, "has lazy layers that have seen no input", "run it once on its inputs"
        )
    # Tensors that were computed, such as by weight_norm, refuse to be copied.
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        made = copy.deepcopy(module, computed)
    except FAILURES as error:
        raise ModelError(
            where,
            f"cannot be copied: {reason(error)}",
            "leave loggers, locks and open files out of the module",
        ) from error
    return made.cpu()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Put a module that refuses to be copied into evaluation mode, and back."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield module.eval()
    finally:
        for part, mode in modes.items():
            part.training = mode


def call(module: nn.Module, args: Any, kwargs: Any) -> Called:
    """Copy a module and run it for evaluation.

    Raises:
        ModelError: it cannot be copied, does not run, or gives something else than tensors.
    """
    return run(copied(module).eval(), args, kwargs)


def export(called: Called, where: str) -> onnx.ModelProto:
    """Export a module that has been run, with a free number of samples.

    Raises:
        ModelError: it cannot be exported.
        MissingExtraError: onnxscript is not installed.
    """
    batch = torch.export.Dim(BATCH)
    shapes = tuple({0: batch} if free else None for free in called.batched)
    with _silent():
        try:
            program = torch.export.export(
                called.call, tuple(called.inputs), dynamic_shapes=(shapes,), strict=False
            )
        except FAILURES as error:
            raise _objection(where, error) from error
    return _converted(program, where, called.names, called.outputs, called.call)


def convert(program: Any, where: str) -> onnx.ModelProto:
    """Convert an exported program as it is.

    Raises:
        ModelError: it was exported for training, or has no ONNX form.
        MissingExtraError: onnxscript is not installed.
    """
    for node in program.graph.nodes:
        name = getattr(node.target, "_opname", "")
        at = TRAINING.get(name, TRAINING.get(name.removesuffix("_"), 99))
        if len(node.args) > at and node.args[at] is True:
            raise ModelError(
                where,
                f"was exported for training: {name} is on",
                "call eval() of the module, then torch.export.export() again",
            )
    signature = program.graph_signature
    inputs = [str(name) for name in signature.user_inputs]
    spec = program.call_spec.out_spec
    dummies = [torch.empty(0)] * spec.num_leaves
    outputs = output_names(where, pytree.tree_unflatten(dummies, spec), inputs)
    return _converted(program, where, inputs, outputs, program.module())


def opened(proto: onnx.ModelProto, called: Called | None, where: str) -> Model:
    """Open an exported model, and check it against the module it was made of, if it is there.

    Raises:
        ModelError: it does not run, or computes something else.
    """
    try:
        model: Model = BACKENDS.load("onnx")().open(proto)
    except ModelError as error:
        raise ModelError(
            where, f"its ONNX form cannot be used: {error.problem}", error.hint
        ) from error
    if called is not None:
        fault = difference(model, called)
        if fault:
            raise ModelError(
                where,
                f"its ONNX form gives other values for output {fault!r}",
                "does forward() draw random numbers, or depend on the number of samples?",
            )
    return model


def difference(model: Model, called: Called) -> str:
    """Name the first output that differs from the module's, on one sample more than before."""
    tensors = [
        tensor[torch.arange(len(tensor) + 1) % len(tensor)] if batched else tensor
        for tensor, batched in zip(called.inputs, called.batched, strict=True)
    ]
    with torch.no_grad():
        wanted = dict(zip(called.outputs, called.call(*tensors), strict=True))
    ports = {port.name for port in model.backend.inputs(model.native)}
    feed = dict(zip(called.names, tensors, strict=True))
    given = model.predict({n: t.cpu().numpy() for n, t in feed.items() if n in ports})
    for name, tensor in wanted.items():
        found, right = given[name], tensor.cpu().numpy()
        size = float(np.abs(right[np.isfinite(right)]).max(initial=0))
        if found.shape != right.shape or not np.allclose(
            found, right, rtol=0, atol=TOLERANCE * size + TINY, equal_nan=True
        ):
            return name
    return ""


def _converted(
    program: Any, where: str, inputs: Sequence[str], outputs: Sequence[str], module: Any
) -> onnx.ModelProto:
    try:
        from penjing.backends.pytorch_support.translations import translations
    except ImportError as error:
        raise MissingExtraError("torch", "exporting PyTorch modules") from error
    with _silent():
        try:
            made = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=list(outputs),
                custom_translation_table=translations(),
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            proto = made.model_proto
        except FAILURES as error:
            raise _objection(where, error) from error
    tidy(proto, module)
    return proto


def _objection(where: str, error: BaseException) -> ModelError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    said = reason(cause)
    if (BATCH in said and "onstraint" in str(cause)) or "specialized" in str(cause):
        return ModelError(
            where,
            "works for one number of samples only",
            "forward() must not fix the first axis, such as by x.view(8, -1) or a loop over it",
        )
    if "data-dependent" in str(cause) or "DataDependent" in type(cause).__name__:
        return ModelError(
            where,
            f"decides by values of its inputs what to compute: {said}",
            "an exported graph is the same for all inputs: use torch.where, or torch.cond",
        )
    return ModelError(
        where,
        f"cannot be exported to ONNX: {said}",
        "torch.export.export() must work on it; or export it yourself and give the .onnx file",
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the exporter says of itself from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    loggers += [logging.getLogger("torch.onnx._internal.exporter._registration")]
    loggers += [logging.getLogger("torch.fx"), logging.getLogger("onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # about how the exporter calls PyTorch
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
