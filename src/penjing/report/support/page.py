"""What the page shows, as the plain values its template lays out."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from penjing.report.support import curve, layers, numbers, tables, words

if TYPE_CHECKING:
    from penjing.core.report import Report

_LABEL, _DIGIT = 48.0, 4.0
"""What the limit's label and half a 0 take of the narrowest gauge, in % of its length."""
_UNITS = r"(?=(?:B|kB|MB|GB|TB|%|points?|ms|µs|s|min|h|samples)\b|%)"


def typeset(text: str) -> str:
    r"""Give our own numbers their proper signs, and keep them with their units.

    >>> typeset("61.4x, -0.12 points") == "61.4\xd7, \u22120.12\xa0points"
    True
    """
    text = re.sub(r"(?<=\d)x\b", "\xd7", numbers.with_minus(text))
    return re.sub(rf"(?<=\d) {_UNITS}", "\xa0", text)


def view(report: Report) -> dict[str, Any]:
    """Give everything the template needs; user-supplied text is cleaned, not yet escaped."""
    path, name = numbers.clean(report.model), words.model_name(report)
    return {
        "name": name,
        "path": path if path != name else "",
        "parameters": numbers.count(report.parameters),
        "metric": numbers.clean(report.metric),
        "limits": words.limits(report),
        "confidence": words.confidence(report),
        "verdict": _verdict(report),
        "warnings": [numbers.clean(warning) for warning in report.warnings],
        "cards": [_size_card(report), _metric_card(report), _latency_card(report)],
        "curve": _curve(report),
        "offers": tables.offers(report),
        "groups": tables.groups(report),
        "layer_charts": _layer_charts(report),
        "layers": tables.layers(report),
        "ledger": tables.ledger(report),
        "candidates": tables.candidates(report),
        "splits": tables.splits(report),
        "seed": numbers.clean(report.splits.get("seed", "")),
        "certificate": tables.certificate(report),
        "tested": tables.tested(report),
        "recipe": _lines(report.recipe),
        "reproduce": _lines(report.reproduce),
        "sha256": numbers.clean(report.sha256),
        "seconds": tables.phases(report),
        "environment": [
            (numbers.clean(key), numbers.clean(value))
            for key, value in report.environment.items()
        ],
        "notes": _notes(report),
    }


def _lines(text: str) -> str:
    return "\n".join(numbers.clean(line) for line in text.strip("\n").split("\n"))


def _verdict(report: Report) -> dict[str, str]:
    known = report.met in words.VERDICTS
    return {
        "kind": report.met if known else "undecided",
        "word": words.VERDICTS.get(report.met, numbers.clean(report.met)),
        "reason": words.reason(report),
        "certified": words.certified(report),
        "details": words.details(report),
    }


def _notes(report: Report) -> list[str]:
    """Say what drops mean here."""
    metric = numbers.clean(report.metric)
    if report.metric_is_bounded:
        notes = [f"Drops are in points: {metric} from 90 % to 89 % is a drop of 1 point."]
    else:
        way = "fall" if report.higher_is_better else "rise"
        notes = [f"A drop is the {way} of {metric}, in % of the original's value."]
    if report.confidence is not None:
        notes.append("The bound is one-sided, so it may lie inside the interval.")
    notes.append(f"Intervals have {words.level(report)} confidence. 1 kB is 1000 bytes.")
    return notes


_SPLIT_DIFFERENTLY = {
    "no drop": ("No drop", ""),
    "drop unknown": ("\u2013", "drop unknown"),
    "no measurable difference": ("Same", "within the intervals"),
    "as fast": ("As fast", "as before"),
    "not measured": ("\u2013", "not measured"),
}


def _headline(change: str) -> tuple[str, str]:
    """Split a change into what is set large and what is set small."""
    if change in _SPLIT_DIFFERENTLY:
        return _SPLIT_DIFFERENTLY[change]
    figure, _, rest = change.partition(" ")
    if rest.startswith("% "):
        return f"{figure} %", rest.removeprefix("% ")
    return figure, rest


def _size_card(report: Report) -> dict[str, Any]:
    before, after = report.before.size_bytes, report.after.size_bytes
    factor = report.ratio if report.ratio >= 1 else 1 / report.ratio
    return {
        "title": "Size",
        "figure": numbers.ratio(factor),
        "unit": "smaller" if report.ratio >= 1 else "larger",
        "rows": [
            _row("before", numbers.size(before), "", before / max(before, after)),
            _row("after", numbers.size(after), "", after / max(before, after)),
        ],
        "gauge": None,
        "foot": f"{numbers.count(after)} bytes written"
        + (
            f", limit {numbers.size(report.max_size_bytes)}"
            if report.max_size_bytes is not None
            else ""
        ),
    }


def _metric_card(report: Report) -> dict[str, Any]:
    bounded = report.metric_is_bounded
    before, after = report.before.metric, report.after.metric
    figure, unit = _headline(words.change_of_metric(report))
    return {
        "title": words.metric_title(report.metric),
        "figure": figure,
        "unit": unit,
        "rows": [
            _row(
                "before",
                numbers.metric(before.value, before.unit, bounded=bounded),
                numbers.metric_interval(before, bounded=bounded),
            ),
            _row(
                "after",
                numbers.metric(after.value, after.unit, bounded=bounded),
                numbers.metric_interval(after, bounded=bounded),
            ),
        ],
        "gauge": _gauge(report),
        "foot": _spoken_drop(report),
    }


def _spoken_drop(report: Report) -> str:
    """Give the drop, its bound and its interval."""
    bounded, value = report.metric_is_bounded, words.bound(report)
    text = words.loss(report.drop.value, bounded=bounded).removeprefix("a ").replace(" of", "")
    if value is not None:
        text += f", bound {numbers.upper_number(value, report.max_drop)}"
    interval = numbers.drop_interval(report.drop)
    return f"{text}, interval {interval}" if interval else text


def _gauge(report: Report) -> dict[str, Any] | None:
    """Place the drop, its bound and the limit on a line, in % of its length."""
    drop, limit, bounded = report.drop, report.max_drop, report.metric_is_bounded
    bound = words.bound(report)
    ends = drop.low, drop.value, drop.high if bound is None else bound
    if limit is None or not all(map(math.isfinite, ends)) or ends[0] >= ends[2]:
        return None
    low, high = min(0.0, drop.low), max(ends[2], limit)
    span = (high - low) * 1.08
    places = [100 * (end - low) / span for end in (*ends, limit, 0.0)]
    allowed = numbers.limit(limit, bounded=bounded)
    ends_there = places[3] > 50  # noqa: PLR2004  # half of the line
    label = places[3] - _LABEL * ends_there, places[3] + _LABEL * (not ends_there)
    return {
        "low": f"{places[0]:.2f}",
        "value": f"{places[1]:.2f}",
        "width": f"{places[2] - places[0]:.2f}",
        "limit": f"{places[3]:.2f}",
        "zero": None
        if label[0] - _DIGIT < places[4] < label[1] + _DIGIT
        else f"{places[4]:.2f}",
        "end": ends_there,
        "limit_text": f"limit {allowed}",
        "label": f"{_spoken_drop(report)}, limit {allowed}",
    }


def _latency_card(report: Report) -> dict[str, Any]:
    before, after = report.before.latency_ms, report.after.latency_ms
    figure, unit = _headline(words.change_of_latency(report))
    known = [value for value in (before.value, after.value) if math.isfinite(value)]
    longest = max([*known, 1e-12])
    return {
        "title": "Latency",
        "figure": figure,
        "unit": unit,
        "rows": [
            _row(
                name,
                numbers.latency(side.value),
                numbers.latency_interval(side),
                side.value / longest if math.isfinite(side.value) else None,
            )
            for name, side in (("before", before), ("after", after))
        ],
        "gauge": None,
        "foot": "medians, timed interleaved" if known else "",
    }


def _row(name: str, value: str, interval: str, length: float | None = None) -> dict[str, Any]:
    bar = None if length is None else f"{max(0.4, 100 * length):.2f}"
    return {"name": name, "value": value, "interval": interval, "bar": bar}


def _curve(report: Report) -> dict[str, Any] | None:
    """Draw the curve; with one candidate there is none."""
    if len(report.candidates) < 2:  # noqa: PLR2004  # one point is no curve
        return None
    statuses = {row.status for row in report.candidates}
    return {
        "wide": curve.draw(report, curve.WIDE),
        "narrow": curve.draw(report, curve.NARROW),
        "chosen": "chosen" in statuses,
        "certified": "certified" in statuses,
        "within": "within the limit" in statuses,
        "level": words.level(report),
        "rejected": bool(statuses & curve.REJECTED),
        "bounds": any(row.certified_upper is not None for row in report.candidates),
    }


def _layer_charts(report: Report) -> dict[str, Any] | None:
    if not report.layers:
        return None
    shown = len(layers.bars(report.layers))
    return {
        "wide": layers.draw_wide(report),
        "narrow": layers.draw_narrow(report),
        "note": f"The {layers.MOST_BARS} largest of {len(report.layers)} arrays."
        if shown < len(report.layers)
        else "",
    }
