"""State dicts from files, without running anything in them."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from penjing.core.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "ema")
"""Keys under which checkpoints keep a state dict."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before each name."""
LONGEST_HEADER = 100 << 20
"""Bytes, as in the reference implementation of safetensors."""
LENGTH_BYTES = 8
MOST_LISTED = 6
DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    pickle.UnpicklingError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
)
"""What PyTorch raises for files that are damaged or hold more than tensors."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load_into(constructor: Callable[[], Any], path: Path) -> nn.Module:
    """Make a module and give it the parameters in a file.

    Raises:
        ConfigError: the constructor is none.
        ModelError: the file cannot be read safely, or holds other parameters.
    """
    where = str(path)
    if isinstance(constructor, nn.Module) or not callable(constructor):
        raise ConfigError(
            "constructor",
            f"must make the module, got {type(constructor).__name__}",
            "give the class of the module, or a function: lambda: Net(10)",
        )
    module = constructor()
    if not isinstance(module, nn.Module):
        raise ModelError(
            where,
            f"the constructor gives {type(module).__name__}, no torch.nn.Module",
            "give the class of the module, or a function that makes one",
        )
    read = _safetensors if path.suffix.lower() == ".safetensors" else _checkpoint
    found = _unwrapped(read(path), set(module.state_dict()), where)
    try:
        missing, unexpected = module.load_state_dict(found, strict=False)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ModelError(
            where,
            f"does not fit {type(module).__name__}: {lines[min(1, len(lines) - 1)].strip()}",
            "is it built with the sizes that it was trained with?",
        ) from error
    if missing or unexpected:
        said = [f"lacks {_listed(missing)}"] if missing else []
        said += [f"has {_listed(unexpected)} besides"] if unexpected else []
        raise ModelError(
            where,
            f"holds not quite the parameters of {type(module).__name__}: {'; '.join(said)}",
            "is it the state dict of another version of the module?",
        )
    return module


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _checkpoint(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        unsafe = "weights" in str(error).lower() and "only" in str(error).lower()
        raise ModelError(
            str(path),
            "holds Python objects beside tensors, which are never loaded here"
            if unsafe
            else "is no file of PyTorch, or damaged",
            "save the parameters alone: torch.save(module.state_dict(), path)",
        ) from error


def _unwrapped(given: Any, wanted: set[str], where: str) -> dict[str, torch.Tensor]:
    """Find the state dict in a checkpoint, and take off prefixes that the module lacks."""
    while isinstance(given, Mapping) and not wanted & set(given):
        inner = next((given[k] for k in INSIDE if isinstance(given.get(k), Mapping)), None)
        if inner is None:
            break
        given = inner
    if not isinstance(given, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in given.values()
    ):
        raise ModelError(
            where,
            "holds no state dict",
            "save the parameters alone: torch.save(module.state_dict(), path)",
        )
    found = {str(name): tensor for name, tensor in given.items()}
    changed = True
    while changed and not wanted & set(found):
        changed = False
        for prefix in PREFIXES:
            if found and all(name.startswith(prefix) for name in found):
                found = {name.removeprefix(prefix): value for name, value in found.items()}
                changed = True
    return found


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read https://github.com/huggingface/safetensors."""
    where = str(path)
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    start = LENGTH_BYTES + length
    found = {}
    try:
        if len(data) < start or length > LONGEST_HEADER:
            raise ValueError("its header is cut off")  # noqa: TRY301  # all end the same way
        for name, entry in json.loads(data[LENGTH_BYTES:start]).items():
            if name == "__metadata__":
                continue
            dtype, shape = DTYPES[entry["dtype"]], [int(size) for size in entry["shape"]]
            first, last = (start + int(offset) for offset in entry["data_offsets"])
            size = prod(shape) * dtype.itemsize
            if not start <= first <= last <= len(data) or last - first != size:
                raise ValueError(f"{name} lies outside")  # noqa: TRY301
            tensor = torch.empty(shape, dtype=dtype)
            if size:
                flat = torch.frombuffer(data, dtype=torch.uint8, offset=first, count=size)
                tensor = flat.clone().view(dtype).reshape(shape)
            found[name] = tensor
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            where,
            f"is no safetensors file, or damaged: {error}",
            "was it cut off while copied?",
        ) from error
    return found
