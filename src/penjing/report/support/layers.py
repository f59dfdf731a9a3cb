"""The layers side by side: bytes, bits per weight, zeros and share of the damage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.report.support import numbers
from penjing.report.support.svg import ACCENT, INK, LINE, MUTED, WARN, drawing, inline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from penjing.core.report import LayerRow, Report

MOST_BARS = 20
_HEAD = 34
_CENTRE = 0.5


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the chart: an array, or all those that are too small for one of their own."""

    name: str
    size_bytes: int
    bits_per_weight: float
    zeros: float
    damage: float
    is_rest: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of the chart."""

    title: str
    value: Callable[[Bar], float]
    text: Callable[[float], str]
    colour: str
    full: float | None = None
    """Value of a full-length bar; otherwise the largest there is."""


COLUMNS = (
    Column("Bytes", lambda bar: bar.size_bytes, numbers.size, ACCENT),
    Column("Share of the damage", lambda bar: bar.damage, numbers.share, WARN),
    Column("Bits per weight", lambda bar: bar.bits_per_weight, lambda v: f"{v:.2f}", MUTED),
    Column("Zeros", lambda bar: bar.zeros, numbers.share, MUTED, full=1.0),
)


def bars(layers: Sequence[LayerRow]) -> list[Bar]:
    """Give the largest arrays one bar each and the others one together."""
    ranked = sorted(layers, key=lambda row: (-row.size_bytes, row.name))
    if len(ranked) <= MOST_BARS + 1:
        return [_bar(row) for row in ranked]
    return [_bar(row) for row in ranked[:MOST_BARS]] + [rest(ranked[MOST_BARS:])]


def rest(rows: Sequence[LayerRow]) -> Bar:
    """Sum up many arrays as one."""
    weights = sum(row.parameters for row in rows) or 1
    return Bar(
        f"{len(rows)} others",
        sum(row.size_bytes for row in rows),
        sum(row.bits_per_weight * row.parameters for row in rows) / weights,
        sum(row.zeros * row.parameters for row in rows) / weights,
        sum(row.damage for row in rows),
        is_rest=True,
    )


def _bar(row: LayerRow) -> Bar:
    return Bar(row.name, row.size_bytes, row.bits_per_weight, row.zeros, row.damage)


def describe(report: Report) -> str:
    """Say in words what the chart shows."""
    largest = bars(report.layers)[:3]
    named = ", ".join(
        f"{numbers.clean(bar.name)} {numbers.size(bar.size_bytes)}" for bar in largest
    )
    return f"Bytes, damage, bits per weight and zeros by array. Largest: {named}."


def draw_wide(report: Report) -> str:
    """Draw the names once and the four quantities beside them."""
    rows = bars(report.layers)
    pitch, names_width, width = 23, 250, 1000
    height = _HEAD + pitch * len(rows) + 6
    each = (width - names_width) / len(COLUMNS)
    with drawing(width, height) as figure:
        names, titles = _names(figure, rows, (pitch, _CENTRE, 36))
        for place, column in enumerate(COLUMNS):
            left = names_width + place * each
            _column(figure, column, rows, (left, each), (pitch, height, _CENTRE))
        return inline(figure, "layers-wide", describe(report), names=names, titles=titles)


def draw_narrow(report: Report) -> str:
    """Draw bytes and damage, each name above its bars."""
    rows = bars(report.layers)
    pitch, width = 42, 340
    height = _HEAD + pitch * len(rows) + 6
    with drawing(width, height) as figure:
        names, titles = _names(figure, rows, (pitch, 0.28, 46))
        for place, column in enumerate(COLUMNS[:2]):
            _column(figure, column, rows, (place * width / 2, width / 2), (pitch, height, 0.7))
        return inline(figure, "layers-narrow", describe(report), names=names, titles=titles)


def _names(
    figure: Figure, rows: Sequence[Bar], place: tuple[float, float, int]
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the names: distance of rows in pixels, where in a row, most characters."""
    pitch, middle, most = place
    height = figure.get_figheight() * 72
    short = numbers.tell_apart([bar.name for bar in rows], most)
    names, titles = {}, {}
    for index, (bar, name) in enumerate(zip(rows, short, strict=True)):
        y = 1 - (_HEAD + pitch * (index + middle)) / height
        token = f"name{index}"
        figure.text(
            0, y, token, va="center", color=MUTED if bar.is_rest else INK, gid=f"row{index}"
        )
        names[token] = name
        if name != bar.name:
            titles[f"row{index}"] = numbers.clean(bar.name)
    return names, titles


def _column(
    figure: Figure,
    column: Column,
    rows: Sequence[Bar],
    across: tuple[float, float],
    down: tuple[float, float, float],
) -> None:
    """Draw one quantity.

    Args:
        figure: Where to.
        column: What.
        rows: Of which arrays.
        across: Left edge and width, in pixels.
        down: Distance of rows and height of the figure in pixels; where in a row the bar is.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    (left, each), (pitch, height, middle) = across, down
    room = each - 76
    width_px = figure.get_figwidth() * 72
    # The sum of many arrays gets no bar: it would dwarf the others.
    longest = column.full or max(
        [column.value(bar) for bar in rows if not bar.is_rest] + [1e-12]
    )
    figure.text(left / width_px, 1 - 12 / height, column.title, va="center", color=MUTED)
    edge = left / width_px
    if middle == _CENTRE:
        # Only where names stand beside the bars: elsewhere it would run through them.
        ends = [6 / height, 1 - _HEAD / height]
        figure.add_artist(Line2D([edge, edge], ends, color=LINE, linewidth=1))
    for index, bar in enumerate(rows):
        value = column.value(bar)
        y = height - _HEAD - pitch * (index + middle)
        length = 0.0 if bar.is_rest else room * min(1.0, max(0.0, value / longest))
        if length:
            corner = (edge, (y - 5) / height)
            size = (length / width_px, 10 / height)
            figure.add_artist(Rectangle(corner, *size, color=column.colour, linewidth=0))
        figure.text(
            (left + length + 6) / width_px,
            y / height,
            column.text(value),
            va="center",
            color=INK,
        )
