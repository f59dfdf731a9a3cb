"""Headers have one form, and small ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.artifact.header import from_json, squeeze, to_json
from penjing.core.errors import ConfigError, FormatError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), PLAIN))
def test_headers_come_back(header: dict[str, Any]) -> None:
    try:
        text = to_json(header)
    except ConfigError:  # lone surrogates in keys that hypothesis nests
        return
    assert from_json(text) == header
    assert to_json(from_json(text)) == text


@pytest.mark.parametrize(
    "header", [{"a": float("nan")}, {"a": {1, 2}}, {"a": b"x"}, {"a": "\ud800"}, {1: 2, "1": 2}]
)
def test_what_json_cannot_say_is_refused(header: Any) -> None:
    with pytest.raises(ConfigError):
        to_json(header)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"null", b"{", b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1}\n',
        b'{"a":1,"a":1}',
        b'{"a":NaN}', b'{"a":1e999}', b'{"a":1.0e0}', b'{"a":"\\u0041"}', b'{"a":"\xff"}',
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_other_forms_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        from_json(text)


def test_squeezing_keeps_what_is_said() -> None:
    before = {"drop": 0.00123456789, "n": 1e4, "why": "", "bad": float("inf"), "r": (1, 2.5)}
    assert to_json(squeeze(before, 3)) == b'{"drop":0.00123,"n":10000,"r":[1,2.5]}'
    assert squeeze({"met": False, "zero": 0, "none": None}) == {"met": False, "zero": 0}
