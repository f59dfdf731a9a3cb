"""The header: plain JSON in one canonical form, so that equal headers are equal bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NoReturn

from penjing.core.errors import ConfigError, FormatError

MAX_NESTING = 32
_WHOLE = 2**53
"""Below, every whole number is a float."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def to_json(header: Mapping[str, Any]) -> bytes:
    """Write canonical JSON: UTF-8, keys sorted, no spaces, shortest numbers, no NaN.

    Raises:
        ConfigError: The header holds something JSON cannot.

    >>> to_json({"b": [1, 0.5], "a": None})
    b'{"a":null,"b":[1,0.5]}'
    """
    try:
        text = json.dumps(
            header, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("header", f"cannot be written as JSON: {error}") from None
    if _nesting(text) > MAX_NESTING:
        raise ConfigError("header", f"nests more than {MAX_NESTING} deep")
    return text


def from_json(text: bytes) -> dict[str, Any]:
    """Read a header back.

    Raises:
        FormatError: It is not canonical JSON, not an object, or nests too deep.
    """
    if _nesting(text) > MAX_NESTING:
        raise FormatError("header", f"nests more than {MAX_NESTING} deep")
    try:
        header = json.loads(text, parse_constant=_no_constant)
        canonical = isinstance(header, dict) and to_json(header) == text
    except (ValueError, RecursionError) as error:
        raise FormatError("header", f"is not JSON: {error}") from None
    if not canonical:
        raise FormatError("header", "is not a JSON object in canonical form")
    return dict(header)


def squeeze(value: Any, digits: int = 6) -> Any:
    """Give a smaller value that says the same: floats rounded, empty entries left out.

    Args:
        value: Anything JSON can hold; tuples become lists.
        digits: Significant digits to keep of every float.

    Numbers that are not finite become null: JSON has none.

    >>> squeeze({"drop": 0.00123456789, "notes": [], "samples": 10000.0, "why": None})
    {'drop': 0.00123457, 'samples': 10000}
    """
    if isinstance(value, Mapping):
        small = {str(key): squeeze(item, digits) for key, item in value.items()}
        return {key: item for key, item in small.items() if item not in (None, [], {}, "")}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [squeeze(item, digits) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{digits}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < _WHOLE else rounded
    return value


def _nesting(text: bytes) -> int:
    brackets = _STRING.sub(b"", text)
    return max(accumulate(_STEP.get(byte, 0) for byte in brackets), default=0)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
