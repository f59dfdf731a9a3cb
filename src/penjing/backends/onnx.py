"""ONNX models: the reference backend.  Any graph that ONNX Runtime runs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.core.errors import MissingExtraError, ModelError
from penjing.core.model import Model, Weight
from penjing.core.registry import RUNTIMES
from penjing.core.template import Template, swap
from penjing.core.tensors import Dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx

    from penjing.backends.onnx_support.reading import Cut
    from penjing.backends.onnx_support.roles import Role
    from penjing.core.model import IntegerModel, Port, Walker
    from penjing.core.runtime import Session
    from penjing.core.tensors import Array, Tensor
    from penjing.core.training import Function

__all__ = ["Onnx"]

RUNTIME = "onnx_runtime"


@dataclass(slots=True, eq=False)
class OnnxModel:
    """An ONNX model held as a template and arrays; treated as immutable."""

    cut: Cut
    template: Template
    weights: dict[str, Weight]
    roles: dict[str, Role]
    session: Session | None = field(default=None, repr=False)


class Onnx:
    """Reads, changes and runs ONNX models."""

    name = "onnx"

    def recognises(self, native: object) -> bool:
        """Take paths ending in .onnx, bytes, and ``onnx.ModelProto`` objects."""
        if isinstance(native, str | Path):
            return Path(native).suffix.lower() == ".onnx"
        onnx = sys.modules.get("onnx")
        is_proto = onnx is not None and isinstance(native, onnx.ModelProto)
        return is_proto or isinstance(native, OnnxModel | bytes)

    def open(self, native: Any) -> Model:
        """Read a model.

        Raises:
            ModelError: it cannot be read, or ONNX Runtime cannot load it.
        """
        from penjing.backends.onnx_support.folding import fold
        from penjing.backends.onnx_support.loading import load_model
        from penjing.backends.onnx_support.reading import cut
        from penjing.backends.onnx_support.roles import find_roles

        if isinstance(native, OnnxModel):
            return Model(native, self)
        proto, size = load_model(native)
        session = _loaded(native, proto)
        fold(proto)
        pieces = cut(proto, size)
        del proto
        roles = find_roles(pieces)
        weights = {name: _weight(name, roles[name], pieces) for name in pieces.shapes}
        template = Template(
            pieces.template.skeleton,
            tuple(
                replace(slot, shape=roles[slot.name].shape, swapped=roles[slot.name].swapped)
                for slot in pieces.template.slots
            ),
        )
        return Model(OnnxModel(pieces, template, weights, roles, session), self)

    def inputs(self, native: OnnxModel) -> tuple[Port, ...]:
        """Describe the inputs."""
        return self._session(native).inputs

    def outputs(self, native: OnnxModel) -> tuple[Port, ...]:
        """Describe the outputs."""
        return self._session(native).outputs

    def read_weights(self, native: OnnxModel) -> dict[str, Weight]:
        """Give every array that lies outside the template."""
        return native.weights

    def write_weights(self, native: OnnxModel, weights: Mapping[str, Array]) -> OnnxModel:
        """Return a model with these arrays; everything else is shared, nothing is copied."""
        if not weights:
            return native
        changed = {
            name: replace(native.weights[name], tensor=Dense(array))
            for name, array in weights.items()
        }
        return OnnxModel(
            native.cut, native.template, {**native.weights, **changed}, native.roles
        )

    def predict(self, native: OnnxModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch in ONNX Runtime, on one thread."""
        return self._session(native).run(inputs)

    def walker(self, native: OnnxModel, batches: Iterable[Mapping[str, Array]]) -> Walker:
        """Prepare a walk over the layers; see ``penjing.core.model.Walker``."""
        from penjing.backends.onnx_support.walking import StagedWalker

        return StagedWalker(
            cut=native.cut,
            roles=native.roles,
            weights=native.weights,
            pieces=batches,
            ports=self.inputs(native),
            runtime=RUNTIMES.load(RUNTIME)(),
            threads=min(os.cpu_count() or 1, 8),
        )

    def function(self, native: OnnxModel) -> Function:
        """Give the model as a differentiable function; see ``Trains``."""
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "training")
        from penjing.backends.onnx_support.differentiable.function import OnnxFunction

        return OnnxFunction(native, self.outputs(native))

    def template(self, native: OnnxModel) -> Template:
        """Give the serialized model with its arrays cut out."""
        return native.template

    def original_bytes(self, native: OnnxModel) -> int:
        """Size of the file as it came, external data included."""
        return native.cut.original_bytes

    def with_integers(
        self, plain: bytes, template: Template, tensors: Mapping[str, Tensor]
    ) -> IntegerModel:
        """Put the codes of weights in place of the weights, as a QDQ model."""
        from penjing.backends.onnx_support.integers import with_integers

        return with_integers(plain, template, tensors)

    def activations(self, native: OnnxModel) -> tuple[str, ...]:
        """Name the values to quantize so that layers can be computed in integers."""
        from penjing.backends.onnx_support.activations import find_points

        return find_points(_whole(native)).ranges

    def watch(
        self, native: OnnxModel, names: Sequence[str]
    ) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """Give a function from inputs to values between layers."""
        from penjing.backends.onnx_support.watching import watch

        return watch(_whole(native), names, RUNTIMES.load(RUNTIME)())

    def with_quantized_activations(
        self, native: OnnxModel, ranges: Mapping[str, tuple[float, float]], bits: int = 8
    ) -> OnnxModel:
        """Return a model whose values pass through quantizers."""
        from penjing.backends.onnx_support.quantizing import quantize_values

        if not ranges:
            return native
        proto = _whole(native)
        quantize_values(proto, ranges, bits)
        made: OnnxModel = self.open(proto).native
        return made

    def layers(self, native: OnnxModel) -> tuple[tuple[str, ...], ...]:
        """Name the weights of each layer in the order of computation."""
        from penjing.backends.onnx_support.heads import layers

        return layers(native.cut.graph, native.roles)

    def with_head(self, native: OnnxModel, outputs: int, seed: int) -> OnnxModel:
        """Return a model whose last linear layer is new; see ``ReplacesHead``."""
        from penjing.backends.onnx_support.heads import replace_head

        proto = _whole(native)
        replace_head(proto, outputs, seed)
        made: OnnxModel = self.open(proto).native
        return made

    def _session(self, native: OnnxModel) -> Session:
        if native.session is None:
            arrays = {name: w.tensor.dense() for name, w in native.weights.items()}
            native.session = RUNTIMES.load(RUNTIME)().load(
                native.template.fill(arrays), frugal=True
            )
        return native.session


def _whole(native: OnnxModel) -> onnx.ModelProto:
    """Give a model with its arrays inside."""
    import onnx

    arrays = {name: weight.tensor.dense() for name, weight in native.weights.items()}
    return onnx.load_model_from_string(native.template.fill(arrays))


def _loaded(native: Any, proto: Any) -> Session:
    """Load a model into the runtime as it came: from its file, which takes less memory."""
    is_path = isinstance(native, str | Path)
    source = Path(native) if is_path else proto.SerializeToString()
    try:
        session: Session = RUNTIMES.load(RUNTIME)().load(source, frugal=True)
    except ModelError as error:
        where = str(native) if is_path else error.where
        raise ModelError(where, error.problem, error.hint) from error
    return session


def _weight(name: str, role: Role, pieces: Cut) -> Weight:
    """Take an array out of ``pieces``, laid out as techniques see it."""
    array = pieces.arrays.pop(name)
    if role.swapped:
        into, out, *kernel = role.shape[1], role.shape[0], *role.shape[2:]
        stored = (role.swapped * into, out // role.swapped, *kernel)
        array = swap(array.reshape(stored), role.swapped)
    tensor = Dense(array.reshape(role.shape))
    return Weight(name, role.kind, tensor, role.groups, role.layer, role.divides)
