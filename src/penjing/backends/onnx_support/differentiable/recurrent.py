"""LSTM, GRU and RNN: by PyTorch's own kernels where they compute the same.

ONNX and PyTorch order the gates differently, and ONNX knows a GRU that resets before it
multiplies (``linear_before_reset`` 0, as in Cho et al., arXiv:1406.1078); that one is a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site

ORDERS: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where PyTorch's gates are in ONNX: input, forget, cell, output; reset, update, new."""
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "LSTM": ("sigmoid", "tanh", "tanh"),
    "GRU": ("sigmoid", "tanh"),
    "RNN": ("tanh",),
}
LENGTHS, START_CELL, PEEPHOLES = 4, 6, 7
"""Numbers of inputs."""


class _Call(NamedTuple):
    """What a layer is called with: steps first; one direction or both."""

    x: Tensor
    w: Tensor
    r: Tensor
    bias: Tensor | None
    start: tuple[Tensor, ...]


Kernel = Callable[[_Call], tuple[Tensor, ...]]
"""Gives all states as (steps, directions, batch, size), and the last ones."""


def _recurrent(site: Site) -> Operation:
    kernel, op = _kernel(site), site.node.op
    is_reverse = site.get("direction", "forward") == "reverse"
    batch_first, count = bool(site.get("layout", 0)), len(site.node.outputs)

    def run(x: Tensor, w: Tensor, r: Tensor, *more: Tensor | None) -> Any:
        given = [*more, *[None] * (START_CELL - 2 - len(more))]
        bias, states = given[0], given[2:]
        if batch_first:
            x = x.transpose(0, 1)
            states = [None if s is None else s.transpose(0, 1) for s in states]
        zeros = x.new_zeros(len(r), x.shape[1], r.shape[-1])
        start = tuple(zeros if s is None else s for s in states[: 2 if op == "LSTM" else 1])
        y, *last = kernel(_Call(x.flip(0) if is_reverse else x, w, r, bias, start))
        y = y.flip(0) if is_reverse else y
        if batch_first:
            y = y.permute(2, 0, 1, 3)
            last = [s.transpose(0, 1) for s in last]
        return (y, *last)[:count] if count > 1 else y

    return run


def _kernel(site: Site) -> Kernel:
    """Choose what runs a layer.

    Raises:
        UnsupportedError: nothing here computes it.
    """
    op, activations = site.node.op, _activations(site)
    for index, what in ((LENGTHS, "sequence_lens"), (PEEPHOLES, "peepholes")):
        if site.has(index):
            raise site.refusal(f"with {what}")
    for name in ("clip", "input_forget"):
        if site.get(name):
            raise site.refusal(f"with {name}")
    if op == "GRU" and not site.get("linear_before_reset", 0):
        return _gru_that_resets_first
    functions: Mapping[str, Any] = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}
    function = torch.rnn_relu if activations == ("relu",) else functions[op]
    return partial(_by_torch, function, ORDERS[op])


def _activations(site: Site) -> tuple[str, ...]:
    """Check the activations; give those of one direction."""
    op = site.node.op
    usual = ACTIVATIONS[op]
    given = tuple(name.lower() for name in site.get("activations", ()))
    size = len(usual)
    parts = [given[at : at + size] for at in range(0, len(given), size)] or [usual]
    allowed = {usual, ("relu",)} if op == "RNN" else {usual}
    if parts[0] not in allowed or any(part != parts[0] for part in parts):
        raise site.refusal(f"with activations {', '.join(site.get('activations'))}")
    return parts[0]


def _by_torch(function: Any, order: Sequence[int], call: _Call) -> tuple[Tensor, ...]:
    """Run a kernel of PyTorch."""
    parameters = []
    for way in range(len(call.w)):
        biases = () if call.bias is None else call.bias[way].chunk(2)
        parameters += [_ordered(a, order) for a in (call.w[way], call.r[way], *biases)]
    states = tuple(s.contiguous() for s in call.start)
    y, *last = function(
        call.x,
        states if len(states) > 1 else states[0],
        parameters,
        call.bias is not None,
        1,  # layer
        0.0,  # dropout
        torch.is_grad_enabled(),
        len(call.w) > 1,
        False,  # batch first  # noqa: FBT003  # positional in PyTorch
    )
    return (y.unflatten(2, (len(call.w), -1)).transpose(1, 2), *last)


def _ordered(gates: Tensor, order: Sequence[int]) -> Tensor:
    if len(order) == 1:
        return gates
    parts = gates.chunk(len(order))
    return torch.cat([parts[index] for index in order])


def _gru_that_resets_first(call: _Call) -> tuple[Tensor, ...]:
    found = []
    for way, h in enumerate(call.start[0]):
        bias = None if call.bias is None else call.bias[way]
        x = call.x.flip(0) if way else call.x
        y, last = _gru_loop(x, call.w[way], call.r[way], bias, h)
        found.append((y.flip(0) if way else y, last))
    return torch.stack([y for y, _ in found], 1), torch.stack([last for _, last in found])


def _gru_loop(
    x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None, h: Tensor
) -> tuple[Tensor, Tensor]:
    """Run one direction: h = z h + (1 - z) tanh(W x + R (r h) + b)."""
    size = r.shape[-1]
    whole = None if bias is None else bias[: 3 * size] + bias[3 * size :]
    fed = functional.linear(x, w, whole)
    gates, new = r[: 2 * size].t(), r[2 * size :].t()
    found = []
    for step in fed:
        update, reset = torch.sigmoid(step[:, : 2 * size] + h @ gates).chunk(2, 1)
        fresh = torch.tanh(step[:, 2 * size :] + (reset * h) @ new)
        h = fresh + update * (h - fresh)
        found.append(h)
    return torch.stack(found), h


RECURRENT: Mapping[str, Maker] = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}
