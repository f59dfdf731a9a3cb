"""Values between the layers of a model, as further outputs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penjing.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from penjing.core.runtime import Runtime
    from penjing.core.tensors import Array


def watch(
    model: onnx.ModelProto, names: Sequence[str], runtime: Runtime
) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Give a function from inputs to values of the main graph; ``model`` is used up.

    Raises:
        UnsupportedError: the graph has no value of a name.
    """
    from onnx import helper

    given = {item.name for item in model.graph.input}
    made = {name for node in model.graph.node for name in node.output if name}
    for name in names:
        if name not in made | given:
            raise UnsupportedError(name, "is no value of the main graph")
    asked = [name for name in dict.fromkeys(names) if name not in given]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in asked)
    session = runtime.load(model.SerializeToString(), frugal=True) if asked else None

    def values(inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = session.run(inputs) if session is not None else {}
        return {name: found[name] if name in found else inputs[name] for name in names}

    return values
