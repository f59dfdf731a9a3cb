"""The report as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penjing.report.support import numbers, words

if TYPE_CHECKING:
    from penjing.core.report import Report

__all__ = ["Terminal"]

_COLOURS = {"met": "green", "missed": "red", "undecided": "yellow"}
_MOST_LAYERS = 6
_BAR = 12
_NAME = 30


class Terminal:
    """Prints a report: before and after, the verdict, where the bytes are, what to do next.

    It fits in 80 columns, and says nothing by colour alone.
    """

    def show(self, report: Report, console: Console | None = None) -> None:
        """Print to standard output, or to the console given."""
        out = console or Console(highlight=False)
        _Printer(out, report).everything()


class _Printer:
    """Holds the console, because its encoding decides which characters may be used."""

    def __init__(self, out: Console, report: Report) -> None:
        self.out, self.report = out, report

    def everything(self) -> None:
        report = self.report
        name = numbers.shorten(words.model_name(report), 46)
        self.line((name, "bold"), (f"  {numbers.count(report.parameters)} parameters", "dim"))
        self.out.print()
        self.before_after()
        self.out.print()
        self.verdict()
        for warning in report.warnings:
            self.entry("Warning", "yellow", numbers.clean(warning))
        self.out.print()
        self.bytes()
        hints = words.hints(report)
        if hints:
            self.out.print()
            self.line(("What next", "bold"))
            for hint in hints:
                self.out.print(Padding.indent(self.text((f"- {hint}", "")), 2))

    def before_after(self) -> None:
        report, bounded = self.report, self.report.metric_is_bounded
        before, after = report.before, report.after
        table = Table(box=None, padding=(0, 3, 0, 0), show_edge=False, header_style="dim")
        for title in ("", "before", "after", "change"):
            table.add_column(self.text((title, "")), overflow="fold")
        rows = [
            (
                "size",
                (numbers.size(before.size_bytes), ""),
                (numbers.size(after.size_bytes), ""),
                words.change_of_size(report),
                "",
            )
        ]
        sides = [
            (
                numbers.metric(side.metric.value, side.metric.unit, bounded=bounded),
                numbers.metric_interval(side.metric, bounded=bounded),
            )
            for side in (before, after)
        ]
        label = numbers.shorten(report.metric, 16)
        rows.append((label, sides[0], sides[1], words.change_of_metric(report), self.bound()))
        times = [
            (numbers.latency(side.latency_ms.value), numbers.latency_interval(side.latency_ms))
            for side in (before, after)
        ]
        rows.append(("latency", times[0], times[1], words.change_of_latency(report), ""))
        for name, first, second, change, more in rows:
            table.add_row(
                self.text((name, "")),
                self.stacked(*first),
                self.stacked(*second, style="bold"),
                self.stacked(change, more, style="bold"),
            )
        self.out.print(Padding.indent(table, 2))

    def bound(self) -> str:
        report, value = self.report, words.bound(self.report)
        if report.confidence is None:
            return "not certified"
        if value is None:
            return ""
        if words.proves_limit(report) and report.max_drop is not None:
            upper = f"{round(100 * report.max_drop, 6):g}"
        else:
            upper = numbers.upper_number(value, report.max_drop)
        unit = numbers.drop_unit(bounded=report.metric_is_bounded)
        return f"at most {upper} {unit} ({words.confidence(report)})"

    def verdict(self) -> None:
        report = self.report
        word = words.VERDICTS.get(report.met, numbers.clean(report.met))
        colour = _COLOURS.get(report.met, "yellow")
        self.entry(word, f"bold {colour}", words.certified(report))
        more = words.details(report)
        if more:
            self.entry("", "", more)
        if not words.proves_limit(report) or report.max_size_bytes is not None:
            self.entry("", "", f"Asked: {words.limits(report)}.")

    def entry(self, label: str, style: str, text: str) -> None:
        """Print a label and a paragraph beside it that keeps its indent."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=9, no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(self.text((label, style)), self.text((text, "")))
        self.out.print(Padding.indent(table, 2))

    def bytes(self) -> None:
        report = self.report
        ranked = sorted(report.layers, key=lambda row: (-row.size_bytes, row.name))
        # One more rather than a line for "1 others".
        most = _MOST_LAYERS + (len(ranked) == _MOST_LAYERS + 1)
        top, others = ranked[:most], ranked[most:]
        short = numbers.tell_apart([row.name for row in top], _NAME)
        rows = [
            (name, row.size_bytes, f"{row.bits_per_weight:.2f} bits")
            for name, row in zip(short, top, strict=True)
        ]
        if others:
            rows.append((f"{len(others)} others", sum(row.size_bytes for row in others), ""))
        rest = report.after.size_bytes - sum(row.size_bytes for row in ranked)
        rows.append(("graph, header", rest, ""))
        table = Table.grid(padding=(0, 2, 0, 0))
        for place in ("left", "right", "right", "left", "right"):
            table.add_column(justify=place, no_wrap=True, overflow="crop")
        largest = max(size for _, size, _ in rows)
        for name, size, bits in rows:
            bar = self.mark() * max(1 if size else 0, round(_BAR * size / max(1, largest)))
            share = numbers.share(size / report.after.size_bytes)
            cells = ((name, ""), (numbers.size(size), ""), (share, ""), (bar, "green"))
            table.add_row(*(self.text(cell) for cell in (*cells, (bits, "dim"))))
        self.line(("Where the bytes are", "bold"))
        self.out.print(Padding.indent(table, 2))

    def mark(self) -> str:
        return "#" if self.out.options.ascii_only else "\N{BLACK SQUARE}"

    def stacked(self, value: str, more: str, *, style: str = "") -> Text:
        lines = [(value, style), *([("\n" + more, "dim")] if more else [])]
        return self.text(*lines)

    def line(self, *parts: tuple[str, str]) -> None:
        self.out.print(self.text(*parts))

    def text(self, *parts: tuple[str, str]) -> Text:
        """Make plain text: no markup is read from it, and the console can write it."""
        encoding = self.out.encoding
        if self.out.options.ascii_only:
            parts = tuple((part.replace("…", "..."), style) for part, style in parts)
        return Text.assemble(
            *(
                (part.encode(encoding, "replace").decode(encoding), style)
                for part, style in parts
            )
        )
