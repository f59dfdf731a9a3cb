"""What text of an exported program may say: torch.export evaluates some of it as Python."""

from __future__ import annotations

import ast
import json
import keyword
import re
from functools import cache
from typing import Any

import torch

LONGEST_EXPRESSION = 8000
DEEPEST = 60
LARGEST = 2**64
HIGHEST_POWER = 8
"""Powers of numbers explode: 9**9**9 has 369 million digits."""
SYMBOL = re.compile(r"(?:s|u|zf|zuf)[0-9]{1,6}")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}")
PART = re.compile(r"[A-Za-z0-9_]{1,512}")
PLAIN = re.compile(r"[A-Za-z0-9_ ,.>+-]{0,200}")
"""Arguments of operators, such as 'floor' or 'bij,bjk->bik'."""
FLOAT = re.compile(r"-?[0-9.]{1,40}(?:e[+-]?[0-9]{1,3})?")
DUNDER = re.compile(r"__(?:and|or|xor|lshift|rshift)__")
"""Operators of aten that are called as methods of Python are."""
OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.([A-Za-z0-9_]{1,80})\.([A-Za-z0-9_]{1,80})")
COMPARISONS = "eq ne le ge lt gt"
SYMBOLIC = {
    *(f"_operator.{name}" for name in f"{COMPARISONS} neg pos mul add sub floordiv".split()),
    *(f"_operator.{name}" for name in ("mod", "pow", "truediv", "and_", "or_")),
    *(f"torch.sym_{name}" for name in ("not", "int", "float", "ite", "max", "min", "sqrt")),
    "math.trunc",
}
"""Arithmetic of sizes."""
HIGHER = {f"torch.ops.higher_order.{name}" for name in ("cond", "wrap_with_set_grad_enabled")}
"""Operators that take graphs, which are checked like the graph around them."""
SETTINGS = {
    *("UPLO", "approximate", "assert_msg", "driver", "equation", "indexing", "interpolation"),
    *("mode", "norm", "ord", "p", "pad_mode", "padding", "padding_side", "reduce"),
    *("rounding_mode", "side"),
}
"""What arguments that are text are called where they are settings, not names of files."""
FUNCTIONS = {
    *("Add", "Mul", "Integer", "Rational", "Max", "Min", "Mod", "PythonMod", "FloorDiv"),
    *("CleanDiv", "CeilDiv", "ModularIndexing", "Where", "CeilToInt", "FloorToInt"),
    *("TruncToInt", "IntTrueDiv", "FloatTrueDiv", "ToFloat", "TruncToFloat", "RoundToInt"),
    *("Identity", "And", "Or", "Not", "Equality", "Unequality", "GreaterThan", "LessThan"),
    *("StrictGreaterThan", "StrictLessThan", "Eq", "Ne", "Ge", "Le", "Gt", "Lt"),
}
POWERS = {"Pow", "PowByNatural"}
ASSUMPTIONS = {
    *("integer", "positive", "nonnegative", "negative", "nonpositive", "nonzero", "zero"),
    *("real", "finite", "even", "odd"),
}
OPERATIONS = ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod
RELATIONS = ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE
CONTAINERS = {"builtins.tuple", "builtins.list"}
MAPPINGS = {"builtins.dict", "collections.OrderedDict"}


class Refused(ValueError):  # noqa: N818  # it becomes a ModelError that names the file
    """Something that is not on the list of what exported programs hold."""


@cache
def expression(text: str) -> str:
    """Check arithmetic of sizes, and write it anew.

    It is parsed, never run: a tree of numbers, sizes such as ``s0``, operators, and calls
    of a few functions of sympy.

    Raises:
        Refused: it is anything else.

    >>> expression("Mul(Integer(2), Symbol('s0', integer=True))")
    "Mul(Integer(2), Symbol('s0', integer=True))"
    """
    tree = None
    if len(text) <= LONGEST_EXPRESSION:
        try:
            tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            tree = None
    if tree is None or not _sound(tree, 0, powers=True):
        raise Refused(f"the expression {text[:80]!r} is no arithmetic of sizes")
    return ast.unparse(tree)


def _sound(  # noqa: C901, PLR0911  # one case for each kind of node
    node: ast.AST, depth: int, *, powers: bool
) -> bool:
    """Check a tree; ``powers`` says whether a power may still come."""
    if depth > DEEPEST:
        return False

    def inner(*nodes: ast.AST) -> bool:
        return all(_sound(each, depth + 1, powers=powers) for each in nodes)

    match node:
        case ast.Constant(value=bool()):
            return True
        case ast.Constant(value=int() | float() as number):
            return -LARGEST <= number <= LARGEST
        case ast.Name(id=name):
            return name in {"true", "false"} or SYMBOL.fullmatch(name) is not None
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return inner(operand)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return powers and _is_power(base, exponent, depth)
        case ast.BinOp(left=left, op=operation, right=right):
            return isinstance(operation, OPERATIONS) and inner(left, right)
        case ast.Compare(left=left, ops=[relation], comparators=[right]):
            return isinstance(relation, RELATIONS) and inner(left, right)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return inner(*args)
        case ast.Call(func=ast.Name(id=name), args=[base, exponent], keywords=[]):
            return powers and name in POWERS and _is_power(base, exponent, depth)
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(text))], keywords=k):
            return _is_leaf(name, text, k)
    return False


def _is_power(base: ast.AST, exponent: ast.AST, depth: int) -> bool:
    text = ast.unparse(exponent)
    found = re.fullmatch(r"(?:Integer\()?(-?[0-9]{1,2})\)?|Rational\(1, 2\)", text)
    if found is None or abs(int(found.group(1) or 0)) > HIGHEST_POWER:
        return False
    return _sound(base, depth + 1, powers=False)


def _is_leaf(name: str, text: str, keywords: list[ast.keyword]) -> bool:
    """Tell whether this is ``Symbol('s0', integer=True)`` or ``Float('0.5', precision=53)``."""
    if name == "Symbol" and SYMBOL.fullmatch(text):
        return all(
            each.arg in ASSUMPTIONS
            and isinstance(each.value, ast.Constant)
            and isinstance(each.value.value, bool)
            for each in keywords
        )
    return (
        name == "Float"
        and FLOAT.fullmatch(text) is not None
        and [(each.arg, ast.unparse(each.value)) for each in keywords] == [("precision", "53")]
    )


def same_expression(text: str) -> str:
    """Check an expression that is a name: it stays as it is spelled."""
    expression(text)
    return text


def identifier(text: str) -> str:
    """Check a name that is written into the code that ``torch.fx`` makes of a graph.

    Raises:
        Refused: it is no name of Python.
    """
    if IDENTIFIER.fullmatch(text) is None or keyword.iskeyword(text) or text == "self":
        raise Refused(f"{text[:80]!r} is no name of a value")
    return text


def argument(text: str) -> str:
    """Check what an operator calls an argument, such as ``self``; it may have no name.

    Raises:
        Refused: it is no name.
    """
    if text and IDENTIFIER.fullmatch(text) is None:
        raise Refused(f"{text[:80]!r} is no name of an argument")
    return text


def path(text: str) -> str:
    """Check the name of a parameter, with dots between the modules around it.

    Raises:
        Refused: it is no such name.
    """
    parts = text.split(".")
    if not all(PART.fullmatch(each) and not each.startswith("__") for each in parts):
        raise Refused(f"{text[:80]!r} is no name of a parameter")
    return text


def plain(text: str) -> str:
    """Check text that an operator takes.

    Raises:
        Refused: it holds more than words and signs that such settings are made of.
    """
    if PLAIN.fullmatch(text) is None:
        raise Refused(f"the text {text[:80]!r} is no setting of an operator")
    return text


@cache
def target(text: str) -> str:
    """Check which operator a node calls: one of PyTorch's own, that touches no file.

    Raises:
        Refused: it is another, or no operator at all.

    >>> target("torch.ops.aten.relu.default")
    'torch.ops.aten.relu.default'
    """
    if text in SYMBOLIC | HIGHER or _is_operator(text):
        return text
    raise Refused(f"the operator {text[:80]!r} is not one of PyTorch's operators on tensors")


def _is_operator(text: str) -> bool:
    found = OPERATOR.fullmatch(text)
    if found is None:
        return False
    namespace, name, overload = found.groups()
    if "__" in overload or ("__" in name and not DUNDER.fullmatch(name)):
        return False
    packet = getattr(getattr(torch.ops, namespace), name, None)
    called = getattr(packet, overload, None)
    if not isinstance(called, torch._ops.OpOverload):  # noqa: SLF001  # there is no other name
        return False
    schema: Any = called._schema  # noqa: SLF001  # how operators tell their arguments
    return schema.name == f"{namespace}::{name}" and all(
        argument.name in SETTINGS
        for argument in schema.arguments
        if "str" in re.findall(r"\w+", str(argument.type))
    )


def structure(text: str) -> str:
    """Check how inputs or outputs are nested, and write it anew.

    Raises:
        Refused: there is more than tuples, lists and dicts; enumerations and defaultdicts
            would be imported by the names that the file gives.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, list) or len(given) != 2 or given[0] != 1:  # noqa: PLR2004
        raise Refused("the structure of its inputs or outputs cannot be read")
    return json.dumps([1, _nested(given[1], 0)])


def _nested(given: Any, depth: int) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != {"type", "context", "children_spec"}:
        raise Refused("the structure of its inputs or outputs cannot be read")
    kind, context, children = given["type"], given["context"], given["children_spec"]
    known = isinstance(kind, str | None) and isinstance(children, list) and depth <= DEEPEST
    if known and kind is None:
        known = context is None and not children
    elif known and kind in CONTAINERS:
        known = context == "null"
    elif known and kind in MAPPINGS:
        known = isinstance(context, str) and len(_keys(context)) == len(children)
        context = json.dumps(_keys(context)) if known else None
    else:
        known = False
    if not known:
        raise Refused(f"its inputs or outputs are nested in {str(kind)[:80]!r}")
    inner = [_nested(child, depth + 1) for child in children]
    return {"type": kind, "context": context, "children_spec": inner}


def _keys(context: str) -> list[str]:
    try:
        keys = json.loads(context)
    except (ValueError, RecursionError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
        raise Refused("the keys of its inputs or outputs are no names")
    return [identifier(each) for each in keys]
