"""What is printed is true: rounded, never rounded in our favour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.measure import Measurement
from penjing.report.support import numbers


@given(st.floats(-1, 1))
def test_a_printed_upper_bound_holds(bound: float) -> None:
    assert float(numbers.upper_number(bound)) >= 100 * bound - 1e-6


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_kept_limit_is_kept_in_print(first: float, second: float) -> None:
    bound, limit = sorted((first, second))
    assert float(numbers.upper_number(bound, limit)) <= 100 * limit + 1.1e-6


@given(st.integers(0, 10**14))
def test_sizes_are_short_and_within_half_a_percent(size_bytes: int) -> None:
    text = numbers.size(size_bytes)
    value, unit = text.split(" ")
    scale = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    assert abs(float(value) * scale - size_bytes) <= 0.005 * size_bytes
    assert len(text) <= 7


@given(st.text(), st.integers(3, 60))
def test_shortened_names_fit_and_are_clean(name: str, width: int) -> None:
    short = numbers.shorten(name, width)
    assert len(short) <= width
    assert short == numbers.clean(short)


@given(st.lists(st.text("ab./", min_size=1, max_size=60), min_size=1, max_size=9, unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    short = numbers.tell_apart(names, 30)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= 30


@given(st.lists(st.text("ab./", max_size=30), min_size=1), st.integers(3, 20))
def test_names_told_apart_fit(names: list[str], width: int) -> None:
    short = numbers.tell_apart(names, width)
    assert len(short) == len(names)
    assert all(len(name) <= width for name in short)


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.00001, "-0.0010"), (-1e-9, "0.0000"), (float("nan"), "unknown"), (0.5, "50.0")],
)
def test_drops_have_no_false_digits(value: float, text: str) -> None:
    assert numbers.drop_number(value) == text


def test_an_interval_has_one_unit() -> None:
    measured = Measurement(0.1, 0.0999, 0.1003, "ms")
    assert numbers.latency_interval(measured) == "99.9 µs to 0.100 ms"
    assert numbers.latency_interval(Measurement(1.0, 0.9, 1.1, "ms")) == "0.900 to 1.10 ms"
