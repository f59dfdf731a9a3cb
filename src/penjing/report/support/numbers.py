"""Numbers as people read them: rounded, with their unit, never with false digits.

kB is 1000 bytes.  Drops are in points where the metric lies in [0, 1] and in % of the
original's value elsewhere.  Upper bounds are rounded up, so that what is printed holds too.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penjing.core.measure import Measurement

UNKNOWN = "unknown"
_KILO = 1000
_MINUTE = 60
_LARGE = 10
_SMALL = 0.01
_MOST_DECIMALS = 6


def clean(text: object) -> str:
    """Replace what could act on the reader's screen: control, bidi and surrogate characters.

    >>> clean("fc1" + chr(27) + "[2J")
    'fc1\ufffd[2J'
    """
    marks = (char if _harmless(char) else "\ufffd" for char in str(text))
    return "".join(marks)


def _harmless(char: str) -> bool:
    return not unicodedata.category(char).startswith("C")


def with_minus(text: str) -> str:
    r"""Give numbers below zero their proper sign.

    >>> with_minus("-0.25 to 1-2") == "\u22120.25 to 1-2"
    True
    """
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\u2212", text)


def shorten(text: object, width: int) -> str:
    """Cut out the middle: names of arrays differ at both ends.

    >>> shorten("encoder.layers.11.attention.weight", 20)
    'encoder…ntion.weight'
    """
    whole = clean(text)
    if len(whole) <= width:
        return whole
    head = (width - 1) * 2 // 5
    return whole[:head] + "…" + whole[len(whole) - (width - 1 - head) :]


def tell_apart(names: Sequence[str], width: int) -> list[str]:
    """Shorten names where they are too long, first by what they have in common.

    >>> tell_apart(["encoder.layers.0.fc.weight", "encoder.layers.1.fc.weight", "head"], 16)
    ['…0.fc.weight', '…1.fc.weight', 'head']
    """
    whole = [clean(name) for name in names]
    long = [name for name in whole if len(name) > width]
    if not long:
        return whole
    common = _common(long)
    first = min(long)
    shared = 1 + max(first[:common].rfind(mark) for mark in "./:")
    start = first[:shared]
    cut = [
        "…" + name[shared:] if shared > 1 and name.startswith(start) else name for name in whole
    ]
    return _distinct(cut, [shorten(name, width) for name in cut], width)


def _common(names: Sequence[str]) -> int:
    """Count the characters with which all names begin; none where one begins all others."""
    # What the first and the last in order have in common, all have.
    pairs = enumerate(zip(min(names), max(names), strict=False))
    return next((place for place, pair in pairs if pair[0] != pair[1]), 0)


def _distinct(names: Sequence[str], short: Sequence[str], width: int) -> list[str]:
    """Show, of different names shortened to the same text, where they differ; else number them.

    >>> _distinct(["a" * 9 + "1" + "b" * 9, "a" * 9 + "2" + "b" * 9], ["a…b", "a…b"], 6)
    ['…1bbb…', '…2bbb…']
    """
    found = list(short)
    for text in {each for each in short if list(short).count(each) > 1}:
        places = [place for place, each in enumerate(short) if each == text]
        group = [names[place] for place in places]
        common = _common(group)
        cut = [f"…{name[common : common + width - 2]}…" for name in group]
        if len(set(cut)) < len(set(group)):
            cut = [shorten(f"{number}: {text}", width) for number in range(1, len(group) + 1)]
        for place, each in zip(places, cut, strict=True):
            found[place] = each
    return found


def significant(value: float, digits: int = 3) -> str:
    """Round to significant digits without an exponent where people would write none.

    >>> significant(28104), significant(0.41237), significant(9.996)
    ('28,100', '0.412', '10.0')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else UNKNOWN
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    if decimals > _MOST_DECIMALS:
        return f"{value:.{digits - 1}e}"
    return f"{rounded:,.{max(0, decimals)}f}"


def size(size_bytes: float) -> str:
    """Give bytes in B, kB, MB or GB.

    >>> size(999), size(28_104), size(1_725_320)
    ('999 B', '28.1 kB', '1.73 MB')
    """
    if size_bytes < _KILO:
        return f"{size_bytes:.0f} B"
    value, unit = size_bytes / _KILO, "kB"
    for larger in ("MB", "GB", "TB"):
        # 999.7 kB would round to a four-digit number of the smaller unit.
        if float(f"{value:.2e}") < _KILO:
            break
        value, unit = value / _KILO, larger
    return f"{significant(value)} {unit}"


def count(number: float) -> str:
    """Give a whole number with separators."""
    return f"{number:,.0f}"


def ratio(value: float) -> str:
    """Give a factor: 61.4x.

    >>> ratio(61.38), ratio(1.0), ratio(1234.5)
    ('61.4x', '1.00x', '1,230x')
    """
    return f"{significant(value)}x"


def share(value: float) -> str:
    """Give a share of a whole in %.

    >>> share(0.4321), share(0.004), share(0.0002), share(0.0), share(1.0)
    ('43 %', '0.4 %', '<0.1 %', '0 %', '100 %')
    """
    if not math.isfinite(value):
        return UNKNOWN
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if percent < 0.1:  # noqa: PLR2004  # one decimal is shown
        return "<0.1 %"
    return f"{percent:.1f} %" if percent < _LARGE - 0.05 else f"{percent:.0f} %"


def drop_unit(*, bounded: bool) -> str:
    """Give the unit of drops."""
    return "points" if bounded else "%"


def _decimals(percent: float) -> int:
    size_of = abs(percent)
    if size_of >= _LARGE:
        return 1
    return 2 if size_of == 0 or size_of >= _SMALL else 4


def drop_number(value: float) -> str:
    """Give a drop without its unit.

    >>> drop_number(0.00123), drop_number(0.0), drop_number(0.4), drop_number(0.000012)
    ('0.12', '0.00', '40.0', '0.0012')
    """
    if not math.isfinite(value):
        return UNKNOWN
    percent = 100 * value
    text = f"{percent:.{_decimals(percent)}f}"
    return text.lstrip("-") if float(text) == 0 else text


def drop(value: float, *, bounded: bool) -> str:
    """Give a drop with its unit.

    >>> drop(0.00123, bounded=True), drop(0.00123, bounded=False)
    ('0.12 points', '0.12 %')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return f"{drop_number(value)} {drop_unit(bounded=bounded)}"


def limit(value: float, *, bounded: bool) -> str:
    """Give a limit as it was stated, without padding.

    >>> limit(0.005, bounded=True), limit(0.01, bounded=True)
    ('0.5 points', '1 point')
    """
    text = f"{round(100 * value, 6):g} {drop_unit(bounded=bounded)}"
    return "1 point" if text == "1 points" else text


def upper_number(value: float, kept: float | None = None) -> str:
    """Round an upper bound up, with digits enough that it stays inside a limit it keeps.

    >>> upper_number(0.00421), upper_number(0.004), upper_number(0.0049991, 0.0049995)
    ('0.43', '0.40', '0.49991')
    """
    if not math.isfinite(value):
        return UNKNOWN
    percent = 100 * value
    decimals = _decimals(percent)
    while True:
        raised = _raised(percent, decimals)
        inside = kept is None or value > kept or raised <= 100 * kept + 1e-9
        if inside or decimals >= _MOST_DECIMALS:
            return f"{raised:.{decimals}f}"
        decimals += 1


def _raised(percent: float, decimals: int) -> float:
    # The small term forgives the last bit of the product with 100; the zero, a sign before 0.
    scale = 10.0**decimals
    return math.ceil(percent * scale - 1e-7) / scale + 0.0


def upper(value: float, kept: float | None = None, *, bounded: bool) -> str:
    """Give an upper bound of a drop with its unit, rounded up."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{upper_number(value, kept)} {drop_unit(bounded=bounded)}"


def drop_interval(measured: Measurement) -> str:
    """Give the ends of a drop's interval without unit; empty where there is none.

    >>> from penjing.core.measure import Measurement
    >>> drop_interval(Measurement(0.002, -0.00002, 0.004, ""))
    '0.00 to 0.40'
    """
    if not _has_interval(measured):
        return ""
    low, high = 100 * measured.low, 100 * measured.high
    decimals = _decimals(max(abs(low), abs(high)))
    text = f"{low:.{decimals}f}"
    text = text.lstrip("-") if float(text) == 0 else text
    return f"{text} to {_raised(high, decimals):.{decimals}f}"


def metric(value: float, unit: str, *, bounded: bool) -> str:
    """Give a metric's value: in % where it lies in [0, 1].

    >>> metric(0.98417, "", bounded=True), metric(12.3456, "", bounded=False)
    ('98.42 %', '12.35')
    """
    if not math.isfinite(value):
        return UNKNOWN
    if bounded:
        return f"{100 * value:.2f} %"
    return f"{significant(value, 4)} {unit}".strip()


def metric_interval(measured: Measurement, *, bounded: bool) -> str:
    """Give the ends of a metric's interval; empty where there is none."""
    if not _has_interval(measured):
        return ""
    if bounded:
        return f"{100 * measured.low:.2f} to {100 * measured.high:.2f} %"
    ends = f"{significant(measured.low, 4)} to {significant(measured.high, 4)}"
    return f"{ends} {measured.unit}".strip()


def latency(value_ms: float) -> str:
    """Give milliseconds, or microseconds where those read better.

    >>> latency(0.4123), latency(0.0042)
    ('0.412 ms', '4.20 µs')
    """
    if not math.isfinite(value_ms):
        return "not measured"
    if 0 < value_ms < 0.1:  # noqa: PLR2004  # below this, microseconds have fewer zeros
        return f"{significant(value_ms * _KILO)} µs"
    return f"{significant(value_ms)} ms"


def latency_interval(measured: Measurement) -> str:
    """Give the ends of a latency's interval; empty where there is none."""
    if not _has_interval(measured):
        return ""
    low, high = latency(measured.low), latency(measured.high)
    unit = high[-3:]
    return f"{low.removesuffix(unit)} to {high}"


def seconds(duration: float) -> str:
    """Give a duration.

    >>> seconds(0.0321), seconds(7.25), seconds(134.2)
    ('32 ms', '7.2 s', '2 min 14 s')
    """
    if not math.isfinite(duration):
        return UNKNOWN
    if duration < 1:
        return f"{duration * _KILO:.0f} ms"
    if duration < _MINUTE:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _has_interval(measured: Measurement) -> bool:
    ends = measured.low, measured.high
    return all(map(math.isfinite, ends)) and measured.low < measured.high
