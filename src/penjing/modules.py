"""What goes in and out as a module of PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.artifact.artifact import Artifact
from penjing.core.errors import ConfigError, ModelError
from penjing.core.example import WithExample
from penjing.core.files import as_path
from penjing.core.registry import BACKENDS
from penjing.engine.job import Result

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["from_state_dict", "to_module"]


def to_module(compressed: Result | Artifact | str | Path, module: Any) -> Any:
    """Give a copy of a PyTorch module that carries compressed weights.

    It computes what the file computes, which is checked on inputs drawn at random, or on the
    example.  A BatchNorm that was multiplied into the layer before it only adds a bias.

    >>> result = penjing.compress(module, loader)  # doctest: +SKIP
    >>> small = penjing.to_module(result, module)  # doctest: +SKIP

    Args:
        compressed: what ``compress`` gave, or the path of the file.
        module: that was compressed, or ``WithExample(module, inputs)``; it stays as it is.

    Raises:
        ModelError: the file is not there, or the module cannot be exported.
        UnsupportedError: the weights have no place in this module.
        FormatError: the file is damaged, hostile or newer.
    """
    given = compressed.artifact if isinstance(compressed, Result) else compressed
    artifact = given if isinstance(given, Artifact) else Artifact.load(as_path(given))
    return BACKENDS.load("pytorch")().with_weights_of(module, artifact.onnx_bytes())


def from_state_dict(
    constructor: Callable[[], Any], path: str | Path, example_inputs: Any = None
) -> Any:
    """Build a PyTorch module and load its parameters from a file, running no code in it.

    >>> model = penjing.from_state_dict(lambda: Net(10), "net.pt")  # doctest: +SKIP
    >>> penjing.compress(model, loader)  # doctest: +SKIP

    Args:
        constructor: makes the module; its class, or any function without arguments.
        path: of a .pt, .pth or .safetensors file that holds a state dict, alone or under a key
            such as ``state_dict``; prefixes such as ``module.`` are taken off.
        example_inputs: for models whose data do not show their inputs; see ``WithExample``.

    Returns:
        The module, or with example inputs a ``WithExample`` of it.

    Raises:
        ConfigError: the constructor is none, or the path no path.
        ModelError: the file cannot be read safely, or its parameters are not the module's.
        MissingExtraError: PyTorch is not installed.
    """
    if not isinstance(path, str | Path):
        raise ConfigError(
            "path", f"must be the path of a file, got {type(path).__name__}", "give it second"
        )
    if not Path(path).is_file():
        raise ModelError(str(path), "no such file")
    module = BACKENDS.load("pytorch")().from_state_dict(constructor, Path(path))
    return module if example_inputs is None else WithExample(module, example_inputs)
