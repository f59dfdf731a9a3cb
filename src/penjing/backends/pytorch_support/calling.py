"""How a module is called: which example input is which parameter, and what comes out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from penjing.core.errors import ModelError

ROWS = 2
"""Samples of an example: with one, exporters take sizes for constants."""
LABELS = "y"
KINDS = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the code of a module, or an exporter that looks at it, may raise."""
LONGEST_MESSAGE = 300
MOST_TRIED = 6
"""Inputs of whole numbers up to which every choice of types is tried."""


class Call(nn.Module):
    """A module that takes and gives tensors in a row, whatever structure it has itself."""

    def __init__(self, module: nn.Module, leaves: list[Any], spec: Any) -> None:
        super().__init__()
        self.module = module
        self.leaves = leaves
        """The inputs; those that are tensors are given anew in each call."""
        self.spec = spec

    def forward(self, *tensors: torch.Tensor) -> tuple[Any, ...]:
        """Call the module."""
        given = iter(tensors)
        leaves = [
            next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return tuple(pytree.tree_leaves(self.module(*args, **kwargs)))


@dataclass(frozen=True, slots=True, eq=False)
class Called:
    """A module that has been run on its example."""

    call: Call
    inputs: list[torch.Tensor]
    names: list[str]
    batched: list[bool]
    """Of each input: whether its first axis counts samples."""
    outputs: list[str]


def reason(error: BaseException) -> str:
    """Give the first line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = next((line for line in lines if line and not line.startswith("#")), "")
    return (said or type(error).__name__)[:LONGEST_MESSAGE]


def arrange(module: nn.Module, inputs: Any) -> tuple[Any, Any]:
    """Give positional and keyword arguments of ``forward()``.

    Args:
        module: whose ``forward()`` is to be called.
        inputs: as in ``WithExample``, or an ``Example`` drawn from data; an array ``y`` is
            left out where no parameter is called so: these are labels.

    Raises:
        ModelError: they do not fit the parameters of ``forward()``.
    """
    if not isinstance(inputs, Mapping):
        return (tuple(inputs) if isinstance(inputs, tuple) else (inputs,)), {}
    known = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in known if each.kind in KINDS]
    needed = [each.name for each in known if each.kind in KINDS and each.default is each.empty]
    left_out = {LABELS} - set(names)
    given = {name: value for name, value in inputs.items() if name not in left_out}
    if set(needed) <= set(given) <= set(names):
        return (), {name: given[name] for name in names if name in given}
    if len(needed) == 1 or (not needed and names):
        (only,) = given.values() if len(given) == 1 else (given,)
        return (only,), {}
    raise ModelError(
        type(module).__name__,
        f"its forward() takes {', '.join(needed) or 'nothing by name'}; "
        f"the example inputs are {', '.join(map(str, given)) or 'none'}",
        "name the arrays as the parameters of forward() are named",
    )


def run(module: nn.Module, args: Any, kwargs: Any) -> Called:
    """Run a module once, in the mode it is in.

    Raises:
        ModelError: it does not run, or gives something else than tensors.
    """
    where = type(module).__name__
    leaves, spec = pytree.tree_flatten((args, kwargs))
    names = _input_names(module, args, kwargs)
    failed = None
    for chosen in _typed(module, leaves):
        call = Call(module, chosen, spec).train(module.training)
        tensors = [leaf for leaf in chosen if isinstance(leaf, torch.Tensor)]
        if not tensors:
            raise ModelError(where, "takes no tensors", "give example inputs as tensors")
        rows = next((t.shape[0] for t in tensors if t.ndim), 0)
        batched = [t.ndim > 0 and t.shape[0] == rows for t in tensors]
        tensors = [_few_rows(t) if b else t for t, b in zip(tensors, batched, strict=True)]
        try:
            with torch.no_grad():
                args, kwargs = pytree.tree_unflatten(_put(chosen, tensors), spec)
                given = module(*args, **kwargs)
        except FAILURES as error:
            failed = failed or error
            continue
        return Called(call, tensors, names, batched, output_names(where, given, names))
    assert failed is not None
    raise ModelError(
        where,
        f"does not run on its example inputs: {reason(failed)}",
        "do the data fit the module? penjing.WithExample(module, inputs) gives it others",
    ) from failed


def _put(leaves: list[Any], tensors: list[torch.Tensor]) -> list[Any]:
    given = iter(tensors)
    return [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def _few_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Give two samples, or one twice: a size of one would be taken for a constant."""
    rows = torch.arange(ROWS) % max(tensor.shape[0], 1)
    return tensor[rows].contiguous()


def _typed(module: nn.Module, leaves: list[Any]) -> Iterator[list[Any]]:
    """Turn arrays into tensors, in every type that a module may want them in."""
    floats = [p.dtype for p in module.parameters() if p.is_floating_point()]
    real = floats[0] if floats else torch.get_default_dtype()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    choices: list[list[Any]] = []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            choices.append([leaf.detach().to(device)])
        elif isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
            kinds = {"f": [real], "b": [torch.bool, real, torch.int64]}
            tensor = torch.from_numpy(np.array(leaf[:ROWS] if leaf.ndim else leaf)).to(device)
            wanted = kinds.get(leaf.dtype.kind, [torch.int64, real])
            choices.append([tensor.to(dtype) for dtype in wanted])
        elif isinstance(leaf, np.ndarray):
            raise ModelError(
                type(module).__name__,
                f"cannot take an input of {leaf.dtype}: tensors hold numbers",
                "encode texts as numbers first",
            )
        else:
            choices.append([leaf])
    if len([each for each in choices if len(each) > 1]) > MOST_TRIED:
        choices = [each[:1] for each in choices]
    for chosen in product(*choices):
        yield list(chosen)


def _input_names(module: nn.Module, args: Any, kwargs: Any) -> list[str]:
    known = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in known if each.kind in KINDS]
    names += [f"input_{index}" for index in range(len(names), len(args))]
    by_name = dict(zip(names, args, strict=False)) | kwargs
    single = len(by_name) == 1
    found = []
    for name, value in by_name.items():
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            if isinstance(leaf, (torch.Tensor, np.ndarray)):
                inner = [_step(key) for key in path]
                is_dict = single and isinstance(value, Mapping)
                found.append("_".join(inner if is_dict else [name, *inner]))
    return _distinct(found)


def output_names(where: str, given: Any, taken: list[str]) -> list[str]:
    """Name outputs: the keys of a dict, else ``output``, numbered where there are several.

    Raises:
        ModelError: something else than tensors is among them.
    """
    found = []
    for path, leaf in pytree.tree_flatten_with_path(given)[0]:
        if not isinstance(leaf, torch.Tensor):
            raise ModelError(
                where,
                f"gives {type(leaf).__name__} among its outputs",
                "wrap it in a module whose forward() gives tensors only",
            )
        inner = [_step(key) for key in path]
        has_names = bool(path) and isinstance(path[0], pytree.MappingKey)
        found.append("_".join(inner if has_names else ["output", *inner]))
    if not found:
        raise ModelError(where, "gives no tensor", "its forward() must give its outputs")
    return _distinct(found, taken)


def _step(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _distinct(names: list[str], taken: list[str] | None = None) -> list[str]:
    made: list[str] = []
    for name in names:
        unique, count = name or "value", 1
        while unique in made or unique in (taken or []):
            count += 1
            unique = f"{name}_{count}"
        made.append(unique)
    return made
