"""The JSON of an exported program, checked place by place against what may stand there."""

from __future__ import annotations

import dataclasses
import types
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from torch._export.serde import schema
from torch._export.serde.union import _Union as Tagged

from penjing.backends.pytorch_support.grammar import (
    LARGEST,
    Refused,
    argument,
    expression,
    identifier,
    path,
    plain,
    same_expression,
    structure,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FLOATS = {"Infinity", "-Infinity", "NaN"}
DIALECTS = ("ATEN", "TRAINING")
CPU = {"type": "cpu", "index": None}
CHECKS = "torch.ops.aten._assert"
"""Operators that stop a program with a message."""


def _among(*known: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in known:
            raise Refused(f"{text[:80]!r} is none of {', '.join(known)}")
        return text

    return check


def _module(text: str) -> str:
    """Check the name of a module; a second call of it is called ``name@1``."""
    if text:
        path(text.replace("@", "_"))
    return text


def _nothing(_: str) -> str:
    """Leave text out that is told, never used."""
    return ""


TEXT: dict[tuple[str, str], Callable[[str], str]] = {
    ("SymExpr", "expr_str"): expression,
    ("ExportedProgram", "range_constraints"): same_expression,
    ("ExportedProgram", "opset_version"): identifier,
    ("ExportedProgram", "verifiers"): _among(*DIALECTS),
    ("ExportedProgram", "torch_version"): _nothing,
    ("TensorArgument", "name"): identifier,
    ("SymIntArgument", "as_name"): identifier,
    ("SymFloatArgument", "as_name"): identifier,
    ("SymBoolArgument", "as_name"): identifier,
    ("GraphArgument", "name"): identifier,
    ("Graph", "tensor_values"): identifier,
    ("Graph", "sym_int_values"): identifier,
    ("Graph", "sym_bool_values"): identifier,
    ("Graph", "sym_float_values"): identifier,
    ("NamedArgument", "name"): argument,
    ("Node", "name"): identifier,
    ("Node", "target"): target,
    ("Argument", "as_string"): plain,
    ("Argument", "as_strings"): plain,
    ("InputToConstantInputSpec", "name"): identifier,
    ("InputToParameterSpec", "parameter_name"): path,
    ("InputToBufferSpec", "buffer_name"): path,
    ("InputToTensorConstantSpec", "tensor_constant_name"): path,
    ("BufferMutationSpec", "buffer_name"): path,
    ("ModuleCallEntry", "fqn"): _module,
    ("ModuleCallSignature", "in_spec"): structure,
    ("ModuleCallSignature", "out_spec"): structure,
    ("ModuleCallSignature", "forward_arg_names"): identifier,
    ("PayloadConfig", "config"): path,
    ("PayloadMeta", "path_name"): path,
}
"""Of every place of text, what checks it; text in any other place is refused."""
DROPPED: dict[tuple[str, str], Any] = {
    ("ExportedProgram", "guards_code"): [],
    ("GraphModule", "metadata"): {},
    ("GraphModule", "treespec_namedtuple_fields"): {},
    ("Node", "metadata"): {},
}
"""What programs do without: Python code that checks inputs, and notes on nodes."""


def exported_program(value: Any) -> dict[str, Any]:
    """Give what programs consist of, of parsed JSON, and nothing else.

    Raises:
        Refused: something else stands there, or text that is not on the list.
    """
    return _record(schema.ExportedProgram, value)


def payloads(value: Any) -> dict[str, Any]:
    """Give the description of each tensor by its name.

    Raises:
        Refused: something else stands there.
    """
    found: dict[str, Any] = _record(schema.PayloadConfig, value)["config"]
    return found


def _checked(  # noqa: PLR0911  # one for each kind of type
    kind: Any, value: Any, place: tuple[str, str]
) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _checked(inner[0], value, place)
    if origin in {Union, types.UnionType}:
        return None if value is None else _checked(inner[0], value, place)
    if origin is list and isinstance(value, list):
        return [_checked(inner[0], each, place) for each in value]
    if origin is dict and isinstance(value, dict):
        return {
            _text(key, place): _checked(inner[1], each, place) for key, each in value.items()
        }
    if kind is schema.Device:
        return CPU  # a program that was exported elsewhere runs here
    if isinstance(kind, type) and issubclass(kind, Tagged):
        return _tagged(kind, value)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value)
    if kind is str and isinstance(value, str):
        return _text(value, place)
    if _is_number(kind, value):
        return value
    raise Refused(f"{place[0]}.{place[1]} is {str(value)[:80]!r}")


def _text(value: str, place: tuple[str, str]) -> str:
    if place not in TEXT:
        raise Refused(f"{'.'.join(place)} is {value[:80]!r}, which is not read from files")
    return TEXT[place](value)


def _is_number(kind: Any, value: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is float and isinstance(value, str):
        return value in FLOATS
    if kind is float and isinstance(value, float):
        return True
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return whole and value in set(kind)
    return kind in {int, float} and whole


@cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, globalns=vars(schema), include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@cache
def _required(kind: Any) -> frozenset[str]:
    missing = dataclasses.MISSING
    return frozenset(
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    )


def _tagged(kind: Any, value: Any) -> dict[str, Any]:
    name = kind.__name__
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= set(_fields(kind)):
        raise Refused(f"{name} is {str(value)[:80]!r}")
    ((tag, given),) = value.items()
    return {tag: _checked(_fields(kind)[tag], given, (name, tag))}


def _record(kind: Any, value: Any) -> dict[str, Any]:
    name = kind.__name__
    if not isinstance(value, dict):
        raise Refused(f"{name} is {str(value)[:80]!r}")
    found = {}
    for field, inner in _fields(kind).items():
        if (name, field) in DROPPED:
            found[field] = DROPPED[name, field]
        elif field in value:
            given = value[field]
            if name == "Node" and field == "inputs":
                given = _without_messages(value.get("target"), given)
            found[field] = _checked(inner, given, (name, field))
        elif field in _required(kind):
            raise Refused(f"{name} has no {field!r}")
    return found


def _without_messages(called: Any, inputs: Any) -> Any:
    if not str(called).startswith(CHECKS) or not isinstance(inputs, list):
        return inputs
    return [
        {**each, "arg": {"as_string": ""}}
        if isinstance(each, dict) and each.get("name") == "assert_msg"
        else each
        for each in inputs
    ]
