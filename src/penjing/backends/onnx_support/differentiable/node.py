"""Nodes of a graph as the makers of operations see them.

An operator is a function that looks at a ``Site`` once and gives the operation that runs there:
a function of the node's input tensors, ``None`` for those left out.  What can be known before
anything runs is parsed then; it must keep no tensors, for those may be needed on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from penjing.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Operation = Callable[..., Any]
"""Gives a tensor, or a tuple of them for nodes with several outputs."""
Maker = Callable[["Site"], Operation]
HINT = (
    "techniques that do not train still take it; to train it, export it without this operator"
)

TORCH_TYPES: Mapping[str, torch.dtype] = {
    "float": torch.float32,
    "double": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    # PyTorch can do little with these: the next larger ones hold all their values, or nearly.
    "uint16": torch.int32,
    "uint32": torch.int64,
    "uint64": torch.int64,
    "int4": torch.int8,
    "uint4": torch.uint8,
}
"""Number types by ONNX name, in small letters."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node of the graph."""

    op: str
    """Name of the operator, behind its domain unless that is the standard one."""
    label: str
    """How errors call the node."""
    inputs: tuple[str, ...]
    """Names of values; empty for those left out."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    """Numbers, strings, lists, NumPy arrays."""
    opset: int

    def refusal(self, detail: str = "") -> UnsupportedError:
        """Give the error that says that this node cannot be trained."""
        what = f"operator {self.op}{' ' if detail else ''}{detail}"
        return UnsupportedError(f"node {self.label!r}", f"{what} cannot be trained", HINT)


class Constants:
    """Values that never change, on the CPU; those of the model are read when asked for."""

    def __init__(self, names: Collection[str], load: Callable[[str], Tensor]) -> None:
        """Remember which arrays of the model never change, and how to read one."""
        self._names, self._load = names, load
        self._held: dict[str, Tensor] = {}

    def knows(self, name: str) -> bool:
        """Tell whether a value never changes."""
        return name in self._held or name in self._names

    def get(self, name: str) -> Tensor | None:
        """Give a value; None if it may change."""
        if name not in self._held:
            if name not in self._names:
                return None
            self._held[name] = self._load(name)
        return self._held[name]

    def add(self, name: str, value: Tensor) -> None:
        """Note one more."""
        if name:
            self._held[name] = value


class Site:
    """A node together with what is known about its inputs."""

    def __init__(self, node: Node, constants: Constants, kinds: Mapping[str, str]) -> None:
        """Look at a node.

        Args:
            node: the node.
            constants: values that never change.
            kinds: ONNX names of number types, of the values whose type is known.
        """
        self.node, self.opset, self.refusal = node, node.opset, node.refusal
        self._constants, self._kinds = constants, kinds

    def get(self, name: str, default: Any = None) -> Any:
        """Give an attribute."""
        return self.node.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Tell whether an input is there."""
        return len(self.node.inputs) > index and bool(self.node.inputs[index])

    def gives(self, index: int) -> bool:
        """Tell whether an output is asked for."""
        return len(self.node.outputs) > index and bool(self.node.outputs[index])

    def constant(self, index: int) -> Tensor | None:
        """Give an input that never changes; None for any other."""
        return self._constants.get(self.node.inputs[index]) if self.has(index) else None

    def kind(self, index: int) -> str:
        """Name the number type of an input; empty where it is not known."""
        return self._kinds.get(self.node.inputs[index], "") if self.has(index) else ""

    def number(self, index: int) -> Any:
        """Give the one number of an input that never changes; None for any other."""
        known = self.constant(index)
        return known.item() if known is not None and known.numel() == 1 else None


def listed(site: Site, operation: Callable[..., Any], first: int = 1) -> Operation:
    """Give an operation whose inputs from ``first`` on are lists of numbers; None if left out.

    Lists that never change are made here, once.
    """
    places = range(first, max(len(site.node.inputs), first))
    fixed = [site.constant(index) for index in places]
    if all(
        known is not None or not site.has(index)
        for index, known in zip(places, fixed, strict=True)
    ):
        lists = [None if known is None else numbers(known) for known in fixed]
        return lambda *inputs: operation(*inputs[:first], *lists)

    def changing(*inputs: Tensor | None) -> Any:
        lists = [None if given is None else numbers(given) for given in inputs[first:]]
        return operation(*inputs[:first], *lists)

    return changing


def numbers(tensor: Tensor) -> list[Any]:
    """Give the numbers of a tensor of whatever shape in one list."""
    found: list[Any] = tensor.reshape(-1).tolist()
    return found
