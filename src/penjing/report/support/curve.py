"""The size-accuracy curve: what every candidate weighs and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.report.support import numbers, words
from penjing.report.support.svg import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    PALE,
    PAPER,
    WARN,
    drawing,
    inline,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from penjing.core.report import CandidateRow, Report

REJECTED = frozenset({"over the limit", "not certified", "too large", "dominated"})
_HEADROOM = 4.0
_STEPS = (
    tuple(range(10, 100)),
    (10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 70, 80),
    (10, 15, 20, 30, 50, 70),
    (10, 20, 50),
    (10, 30),
    (10,),
)
"""Tenths at which a decade may have ticks, the finest first."""
_PAD = 1.09
_LETTER = 7.6
"""Pixels of an average letter, on the safe side."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to draw it: for a wide page or a narrow one."""

    prefix: str
    width: int
    height: int
    ticks: int
    left: int
    label: str
    """What stands before the chosen one's numbers, where there is room."""


WIDE = Shape("curve-wide", 1000, 430, 8, 52, "chosen: ")
NARROW = Shape("curve-narrow", 340, 370, 4, 40, "")


def draw(report: Report, shape: Shape) -> str:
    """Draw every candidate with its interval, the limits and the chosen one."""
    rows = [row for row in report.candidates if math.isfinite(row.drop.value)]
    bottom, top = _vertical_range(report, rows)
    titles = {}
    with drawing(shape.width, shape.height) as figure:
        right = 14
        area = (
            shape.left / shape.width,
            40 / shape.height,
            1 - (shape.left + right) / shape.width,
            1 - (40 + 38) / shape.height,
        )
        axes = figure.add_axes(area)
        _scales(axes, report, rows, (bottom, top), shape)
        _limits(axes, report, shape)
        for index, row in enumerate(rows):
            if row.status != "chosen":
                _point(axes, row, f"point{index}", top)
        for index, row in enumerate(rows):
            titles[f"point{index}"] = _title(row, bounded=report.metric_is_bounded)
            if row.status == "chosen":
                _point(axes, row, f"point{index}", top)
                _name_chosen(axes, row, report, shape)
        _count_outside(axes, rows, top)
        return inline(figure, shape.prefix, describe(report), names={}, titles=titles)


def describe(report: Report) -> str:
    """Say in words what the curve shows."""
    text = f"Size against drop for {len(report.candidates)} candidates."
    for row in report.candidates:
        if row.status == "chosen":
            cost = words.loss(row.drop.value, bounded=report.metric_is_bounded)
            text += f" Chosen: {numbers.size(row.size_bytes)} with {cost}."
    return text


def _title(row: CandidateRow, *, bounded: bool) -> str:
    cost = numbers.drop(row.drop.value, bounded=bounded)
    label = numbers.shorten(row.label, 80)
    size = numbers.size(row.size_bytes)
    return f"{label}: {size}, drop {numbers.with_minus(cost)}, {numbers.clean(row.status)}"


def _vertical_range(report: Report, rows: list[CandidateRow]) -> tuple[float, float]:
    """Show what is near the limit well; what is far above it is only counted."""
    kept = [row for row in rows if row.status not in REJECTED] or rows
    tops = [row.drop.value for row in kept]
    tops += [row.drop.high for row in kept if math.isfinite(row.drop.high)]
    tops += [u for row in kept if (u := row.certified_upper) is not None and math.isfinite(u)]
    lows = [row.drop.low for row in rows if math.isfinite(row.drop.low)]
    lows += [row.drop.value for row in rows]
    most = max([report.max_drop or 0.0, *tops, 1e-6])
    everything = max([most, *(row.drop.value for row in rows)])
    top = min(everything, _HEADROOM * max(report.max_drop or 0.0, most / 2)) * 1.12
    top = max(top, most * 1.12)
    bottom = min([0.0, *(max(low, -top / 2) for low in lows)])
    # The lowest strip is left free for the name of the chosen one.
    return bottom - 0.13 * (top - bottom), top


def _scales(
    axes: Axes,
    report: Report,
    rows: list[CandidateRow],
    vertical: tuple[float, float],
    shape: Shape,
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    sizes = [row.size_bytes for row in rows] + [report.after.size_bytes]
    low, high = min(sizes) / _PAD, max(sizes) * _PAD
    if high / low < 1.5:  # noqa: PLR2004  # a log axis needs some room
        middle = math.sqrt(low * high)
        low, high = middle / 1.25, middle * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(*vertical)
    axes.xaxis.set_major_locator(FixedLocator(_log_ticks(low, high, shape.ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick_size(x)))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _tick_drop(y)))
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=8)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    if vertical[0] < 0:
        axes.axhline(0, color=PALE, linewidth=1, zorder=1)
    unit = numbers.drop_unit(bounded=report.metric_is_bounded)
    over = 1 + 18 / (shape.height - 78)
    x = -(shape.left - 4) / (shape.width - shape.left - 14)
    axes.text(
        x, over, f"Drop on the search split, {unit}", transform=axes.transAxes, color=MUTED
    )


def _tick_size(size_bytes: float) -> str:
    value, unit = numbers.size(size_bytes).split(" ")
    return f"{float(value.replace(',', '')):g} {unit}"


def _tick_drop(drop: float) -> str:
    return numbers.with_minus(f"{round(100 * drop, 6) + 0:g}")


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Give round sizes, no more than will fit side by side."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for steps in _STEPS:
        ticks = [step * 10.0 ** (decade - 1) for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)]


def _limits(axes: Axes, report: Report, shape: Shape) -> None:
    if report.max_drop is not None:
        axes.axhline(report.max_drop, color=WARN, linewidth=1.5, dashes=(5, 3), zorder=2)
        allowed = numbers.limit(report.max_drop, bounded=report.metric_is_bounded)
        offset = 6 / (shape.height - 78)
        bottom, top = axes.get_ylim()
        place = (report.max_drop - bottom) / (top - bottom) + offset
        text = axes.text(
            1, place, f"limit {allowed}", transform=axes.transAxes, color=WARN, ha="right"
        )
        text.set(zorder=6, gid="halo-drop")
    low, high = axes.get_xlim()
    if report.max_size_bytes is not None and low < report.max_size_bytes < high:
        axes.axvline(report.max_size_bytes, color=WARN, linewidth=1.5, dashes=(5, 3), zorder=2)
        share = math.log(report.max_size_bytes / low) / math.log(high / low)
        left = share > 0.5  # noqa: PLR2004  # the wider side
        text = axes.text(
            share + (-1 if left else 1) * 6 / shape.width,
            0.95,
            f"limit {numbers.size(report.max_size_bytes)}",
            transform=axes.transAxes,
            color=WARN,
            ha="right" if left else "left",
        )
        text.set(zorder=6, gid="halo-size")


def _point(axes: Axes, row: CandidateRow, gid: str, top: float) -> None:
    chosen, pale = row.status == "chosen", row.status in REJECTED
    colour = ACCENT if chosen or row.status == "certified" else PALE if pale else INK
    order = 5 if chosen else 3 if pale else 4
    x, y = row.size_bytes, row.drop.value
    foot, _ = axes.get_ylim()
    if y > top:
        axes.plot(x, top, "^", color=PALE, markersize=6, zorder=order, gid=gid, clip_on=False)
        return
    ends = [end if math.isfinite(end) else y for end in (row.drop.low, row.drop.high)]
    axes.plot([x, x], ends, color=colour, linewidth=2 if chosen else 1.25, zorder=order)
    for end, sign, beyond in ((top, "^", ends[1] > top), (foot, "v", ends[0] < foot)):
        if beyond:  # the interval goes on outside
            axes.plot(x, end, sign, color=colour, markersize=5, zorder=order, clip_on=False)
    upper = row.certified_upper
    if upper is not None and math.isfinite(upper) and upper <= top:
        axes.plot(
            x, upper, "v", color=PAPER, markeredgecolor=colour, markersize=8, zorder=order + 1,
            markeredgewidth=1.5,
        )  # fmt: skip
    filled = chosen or pale
    axes.plot(
        x,
        y,
        "o",
        color=colour if filled else PAPER,
        markeredgecolor=colour if filled and not chosen else PAPER if chosen else colour,
        markeredgewidth=2 if chosen else 1.6,
        markersize=13 if chosen else 6 if pale else 7,
        zorder=order + 1,
        gid=gid,
    )


def _name_chosen(axes: Axes, row: CandidateRow, report: Report, shape: Shape) -> None:
    """Name the chosen one at the foot of a line, where no interval reaches."""
    from matplotlib.transforms import blended_transform_factory

    low, high = axes.get_xlim()
    foot, _ = axes.get_ylim()
    place = math.log(row.size_bytes / low) / math.log(high / low)
    limit = report.max_size_bytes
    cost = numbers.drop(row.drop.value, bounded=report.metric_is_bounded)
    name = numbers.with_minus(f"{shape.label}{numbers.size(row.size_bytes)}, {cost}")
    room = (len(name) + 2) * _LETTER / shape.width
    crowded = limit is not None and row.size_bytes <= limit < high and place > room
    left = crowded or (place > 1 - room and place > 0.5)  # noqa: PLR2004  # the wider side
    axes.plot([row.size_bytes] * 2, [foot, row.drop.value], color=ACCENT, linewidth=1, zorder=2)
    axes.annotate(
        name,
        (row.size_bytes, 0),
        xycoords=blended_transform_factory(axes.transData, axes.transAxes),
        xytext=(-8 if left else 8, 7),
        textcoords="offset points",
        ha="right" if left else "left",
        color=ACCENT,
        fontweight="bold",
        zorder=8,
        gid="halo-chosen",
    )


def _count_outside(axes: Axes, rows: list[CandidateRow], top: float) -> None:
    outside = sum(row.drop.value > top for row in rows)
    if outside:
        text = f"{outside} above this range"
        axes.text(1, 1.045, text, transform=axes.transAxes, color=MUTED, ha="right")
