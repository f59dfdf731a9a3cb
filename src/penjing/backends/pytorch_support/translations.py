"""Operators that the exporter of PyTorch lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence  # noqa: TC003  # the exporter reads them
from typing import Any

import torch
from onnxscript import FLOAT, opset18

op: Any = opset18


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Give translations by operator: ``RNN``, which would be unrolled step by step."""
    aten = torch.ops.aten
    return {aten.rnn_tanh.input: rnn_tanh, aten.rnn_relu.input: rnn_relu}


def rnn_tanh(  # noqa: D103, PLR0913, PLR0917  # as the operator has them
    data: FLOAT,
    hx: FLOAT,
    params: Sequence[FLOAT],
    has_biases: bool,  # noqa: FBT001
    num_layers: int,
    dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[FLOAT, FLOAT]:
    del dropout, train
    shape = (has_biases, num_layers, bidirectional, batch_first)
    return _rnn("Tanh", data, hx, params, *shape)


def rnn_relu(  # noqa: D103, PLR0913, PLR0917  # as the operator has them
    data: FLOAT,
    hx: FLOAT,
    params: Sequence[FLOAT],
    has_biases: bool,  # noqa: FBT001
    num_layers: int,
    dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[FLOAT, FLOAT]:
    del dropout, train
    shape = (has_biases, num_layers, bidirectional, batch_first)
    return _rnn("Relu", data, hx, params, *shape)


def _rnn(  # noqa: PLR0913, PLR0917  # all that makes a recurrent layer
    activation: str,
    data: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,  # noqa: FBT001
    num_layers: int,
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[Any, Any]:
    """Make one RNN node for each layer."""
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    if batch_first:
        data = op.Transpose(data, perm=[1, 0, 2])
    last = []
    for layer in range(num_layers):
        first = layer * directions
        parts = [params[each * (first + d) : each * (first + d + 1)] for d in range(directions)]
        inputs = [_stack([part[0] for part in parts]), _stack([part[1] for part in parts])]
        if has_biases:
            joined = [op.Concat(part[2], part[3], axis=0) for part in parts]
            inputs.append(_stack(joined))
        states, end = op.RNN(
            data,
            *inputs,
            initial_h=op.Slice(hx, [first], [first + directions], axes=[0]),
            activations=[activation] * directions,
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=hx.shape[2],
        )
        # (steps, directions, samples, features) -> (steps, samples, directions * features)
        data = op.Reshape(op.Transpose(states, perm=[0, 2, 1, 3]), [0, 0, -1])
        last.append(end)
    if batch_first:
        data = op.Transpose(data, perm=[1, 0, 2])
    return data, op.Concat(*last, axis=0) if len(last) > 1 else last[0]


def _stack(arrays: Sequence[Any]) -> Any:
    rows = [op.Unsqueeze(array, [0]) for array in arrays]
    return op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]
