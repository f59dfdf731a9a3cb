"""A model whose weights are made, in each step, from the arrays that are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from penjing.core.training import Moment, Parametrization, to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from penjing.core.tensors import Array
    from penjing.core.training import Function, Plan

Values = dict[str, torch.Tensor]


class Learner(nn.Module):
    """Runs a function with weights made by parametrizations; holds what these hold."""

    def __init__(self, function: Function, plan: Plan) -> None:
        super().__init__()
        self.function, self.plan = function, plan
        # In an order of their own: sums do not depend on how a model lists its weights.
        boxes = {name: _Box(each) for name, each in sorted(plan.parametrizations.items())}
        self.boxes = nn.ModuleList(boxes.values())
        self.named = dict(
            sorted(boxes.items(), key=lambda each: each[1].parametrization.beside in boxes)
        )
        """Boxes by weight; those that depend on another come after all that do not."""

    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        moment: Moment,
        watch: Collection[str] = (),
        detach: Collection[str] = (),
    ) -> tuple[Values, torch.Tensor | None]:
        """Give outputs and watched values, and the sum of all penalties."""
        weights: Values = {}
        penalties = []
        for name, box in self.named.items():
            held = self._held(box, weights)
            weights[name] = box.parametrization.weight(held)
            penalty = box.parametrization.penalty(held, moment)
            if penalty is not None:
                penalties.append(penalty)
        outputs = self.function(weights, inputs, watch=watch, detach=detach)
        return outputs, torch.stack(penalties).sum() if penalties else None

    @torch.no_grad()
    def shrink(self, moment: Moment, pace: Callable[[nn.Parameter], torch.Tensor]) -> None:
        """Let numbers pay what they cost: the proximal step of a weighted L1 penalty.

        References:
            Parikh & Boyd, "Proximal Algorithms", 2014, section 6.5.2.
        """
        for box in self.boxes:
            assert isinstance(box, _Box)
            if not box.costs:
                continue
            for name, slope in box.parametrization.slopes(box.held(), moment).items():
                parameter = box.get_parameter(name)
                left = (parameter.abs() - pace(parameter) * slope).clamp_min(0)
                parameter.copy_(torch.sign(parameter) * left)

    @torch.no_grad()
    def update(self, moment: Moment) -> None:
        """Let parametrizations change what they hold, after a step."""
        for box in self.named.values():
            if box.updates:
                box.put(box.parametrization.update(self._held(box), moment))
        if self.plan.joint is not None:
            changes = self.plan.joint(self.held(), moment)
            for name, box in self.named.items():
                box.put(changes.get(name, {}))

    def held(self) -> dict[str, Mapping[str, Any]]:
        """Give what every parametrization holds, by weight."""
        return {name: self._held(box) for name, box in self.named.items()}

    def _held(self, box: _Box, made: Mapping[str, torch.Tensor] | None = None) -> Values:
        """Give what a parametrization holds, with the weight that it depends on, if any.

        Args:
            box: of the parametrization.
            made: weights that are there already; the one asked for is made otherwise.
        """
        held, name = box.held(), box.parametrization.beside
        if name not in self.named:
            return held
        if made is None:
            other = self.named[name]
            return {**held, "beside": other.parametrization.weight(other.held())}
        return {**held, "beside": made[name]}

    def magnitude(self) -> torch.Tensor:
        """Sum the magnitudes of all matrices that are trained: of what may decay."""
        found = [
            parameter.abs().sum()
            for box in self.boxes
            if isinstance(box, _Box)
            for name, parameter in box.named_parameters()
            if parameter.ndim > 1 and name not in box.parametrization.undecayed()
        ]
        return torch.stack(found).sum() if found else torch.zeros(())

    def arrays(self) -> dict[str, dict[str, Array]]:
        """Give what every parametrization holds, as NumPy arrays of their own."""
        return {
            name: {key: np.array(to_numpy(value)) for key, value in held.items()}
            for name, held in self.held().items()
        }

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Sort parameters by learning rate and decay, for an optimizer.

        Vectors and steps do not decay.
        """
        found: dict[tuple[float, float], list[nn.Parameter]] = {}
        for box in self.boxes:
            assert isinstance(box, _Box)
            rates = box.parametrization.rates()
            spared = box.parametrization.undecayed()
            for name, parameter in box.named_parameters():
                rate = learning_rate * rates.get(name, 1.0)
                decay = weight_decay if name not in spared and parameter.ndim > 1 else 0.0
                found.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": members, "lr": rate, "weight_decay": decay}
            for (rate, decay), members in sorted(found.items(), key=lambda item: item[0])
        ]


class _Box(nn.Module):
    """The arrays of one parametrization, as parameters and buffers."""

    def __init__(self, parametrization: Parametrization) -> None:
        super().__init__()
        self.parametrization = parametrization
        self.costs = type(parametrization).slopes is not Parametrization.slopes
        self.updates = type(parametrization).update is not Parametrization.update
        for name, array in parametrization.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.tensor(array)))
        for name, array in parametrization.buffers().items():
            self.register_buffer(name, torch.tensor(array))

    def held(self) -> Values:
        """Give parameters and buffers by name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def put(self, changes: Mapping[str, Any]) -> None:
        """Write new values."""
        held = self.held()
        for name, value in changes.items():
            held[name].copy_(torch.as_tensor(value))
