"""The rows of the page's tables, as text."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from penjing.report.support import numbers, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.report import LayerRow, Report

MOST_OPEN = 30
_PURPOSES = {
    "train": "retrains the weights",
    "calibration": "statistics of the inputs; labels are not used",
    "search": "compares candidates",
    "certification": "used once, after the search, for the certificate",
}
_ENTRIES = {"upper": "upper bound of the drop"}
_OVERHEAD = {
    "graph": "the graph, with arrays of under 64 bytes",
    "header": "how to decode each array, recipe, evidence",
    "container": "magic, lengths and hashes",
}


def groups(report: Report) -> dict[str, Any]:
    """Sum up the file by kind of array, graph and header."""
    stored: dict[str, int] = defaultdict(int)
    original: dict[str, int] = defaultdict(int)
    arrays: dict[str, int] = defaultdict(int)
    for row in report.layers:
        stored[row.kind] += row.size_bytes
        original[row.kind] += row.original_bytes
        arrays[row.kind] += 1
    kinds = sorted(stored, key=lambda kind: (-stored[kind], kind))
    rows = [
        {
            "name": numbers.clean(kind),
            "arrays": numbers.count(arrays[kind]),
            "before": numbers.size(original[kind]),
            "ratio": numbers.ratio(original[kind] / stored[kind]) if stored[kind] else "",
            "bytes": str(stored[kind]),
        }
        for kind in kinds
    ]
    overhead: dict[str, int] = defaultdict(int)
    for name, size in {**report.overhead, **_unaccounted(report)}.items():
        part = _part(name)
        overhead[part if part in {*_OVERHEAD, "unaccounted"} else "not weights"] += size
    empty = {"arrays": "", "before": "", "ratio": ""}
    rows += [{"name": name, "bytes": str(size), **empty} for name, size in overhead.items()]
    total = report.after.size_bytes
    for place, entry in enumerate(rows):
        stored_bytes = int(entry["bytes"])
        entry["tint"] = str(place) if place < len(kinds) else f"o{place - len(kinds)}"
        entry["size"] = numbers.size(stored_bytes)
        entry["share"] = numbers.share(stored_bytes / total)
        entry["width"] = f"{max(0.0, 100 * stored_bytes / total):.3f}"
    spoken = ", ".join(f"{entry['name']} {entry['share']}" for entry in rows)
    return {"rows": rows, "total": numbers.size(total), "label": f"Bytes of the file: {spoken}"}


def _unaccounted(report: Report) -> dict[str, int]:
    """Give what the rows do not explain; a sum that does not match is never hidden."""
    known = sum(row.size_bytes for row in report.layers) + sum(report.overhead.values())
    rest = report.after.size_bytes - known
    return {"unaccounted": rest} if rest else {}


def _part(name: str) -> str:
    """Name a part of the file; the ledger has those that are no arrays in brackets."""
    plain = name.removeprefix("<").removesuffix(">")
    return plain if plain in _OVERHEAD else numbers.clean(name)


def layers(report: Report) -> dict[str, Any]:
    """Give one row per array, in the model's order."""
    most = max([row.size_bytes for row in report.layers] + [1])
    rows = [
        {
            "name": numbers.clean(row.name),
            "kind": numbers.clean(row.kind),
            "shape": _shape(row),
            "parameters": numbers.count(row.parameters),
            "size": numbers.size(row.size_bytes),
            "length": f"{100 * row.size_bytes / most:.1f}",
            "ratio": numbers.ratio(row.original_bytes / row.size_bytes)
            if row.size_bytes
            else "",
            "bits": f"{row.bits_per_weight:.2f}",
            "zeros": numbers.share(row.zeros),
            "damage": numbers.share(row.damage),
            "share": f"{min(100.0, 100 * row.damage):.1f}",
        }
        for row in report.layers
    ]
    return {"rows": rows, "open": len(rows) <= MOST_OPEN}


def _shape(row: LayerRow) -> str:
    return " \xd7 ".join(map(str, row.shape)) or "scalar"


def ledger(report: Report) -> dict[str, Any]:
    """Account for every byte of the file: compressed by what, or left alone and why."""
    rows = [
        {
            "name": numbers.clean(row.name),
            "before": numbers.count(row.original_bytes),
            "how": f"{numbers.clean(row.encoding)}, {numbers.clean(row.coder)}",
            "reason": numbers.clean(row.reason),
            "bytes": numbers.count(row.size_bytes),
        }
        for row in report.layers
    ]
    # What was no array of the model was its graph, small arrays included.
    graph = report.before.size_bytes - sum(row.original_bytes for row in report.layers)
    for name, size in {**report.overhead, **_unaccounted(report)}.items():
        is_graph = _part(name) == "graph" and graph > 0
        rows.append(
            {
                "name": _part(name),
                "before": numbers.count(graph) if is_graph else "",
                "how": _OVERHEAD.get(_part(name), "not a weight"),
                "reason": "",
                "bytes": numbers.count(size),
            }
        )
    return {
        "rows": rows,
        "total": numbers.count(report.after.size_bytes),
        "before": numbers.count(report.before.size_bytes),
        "open": len(rows) <= MOST_OPEN,
    }


def candidates(report: Report) -> list[dict[str, str]]:
    """Give every candidate, the smallest first, with why it was taken or not."""
    unit = numbers.drop_unit(bounded=report.metric_is_bounded)
    rows = []
    for row in sorted(report.candidates, key=lambda row: (row.size_bytes, row.label)):
        bound = row.certified_upper
        kept = report.max_drop if row.status in {"chosen", "certified"} else None
        rows.append(
            {
                "label": numbers.clean(row.label),
                "size": numbers.size(row.size_bytes),
                "ratio": numbers.ratio(report.before.size_bytes / row.size_bytes),
                "drop": numbers.drop_number(row.drop.value),
                "interval": numbers.drop_interval(row.drop),
                "upper": "" if bound is None else numbers.upper_number(bound, kept),
                "unit": unit,
                "divergence": numbers.significant(row.divergence, 2),
                "seconds": numbers.seconds(row.seconds),
                "status": numbers.clean(row.status),
                "kind": "chosen" if row.status == "chosen" else "",
                "why": _why(report, row.status),
            }
        )
    return rows


def _why(report: Report, status: str) -> str:
    if status == "chosen" and report.met == "missed":
        return "the best there is; a limit is missed"
    if status == "chosen" and report.met == "undecided":
        return "the best estimate; not certified"
    return words.STATUSES.get(status, "")


def offers(report: Report) -> list[dict[str, str]]:
    """Give what other limits would have bought, the tightest first."""
    after = report.after.size_bytes
    rows = []
    for offer in words.offers(report):
        factor = offer.size_bytes / after
        change = factor - 1
        way = "larger" if change > 0 else "smaller"
        told = f"{numbers.share(abs(change))} {way}" if change else "the same"
        if factor >= 2:  # noqa: PLR2004  # per cent beyond 100 are hard to read
            told = f"{numbers.ratio(factor)} as large"
        rows.append(
            {
                "limit": numbers.limit(offer.limit, bounded=report.metric_is_bounded),
                "size": numbers.size(offer.size_bytes),
                "ratio": numbers.ratio(report.before.size_bytes / offer.size_bytes),
                "change": told,
            }
        )
    return rows


def splits(report: Report) -> list[dict[str, str]]:
    """Give the data each phase has seen."""
    rows = []
    for name, split in report.splits.items():
        if name == "seed":
            continue
        count = words.split_rows(split)
        source = split.get("source", "") if isinstance(split, dict) else ""
        if count is None and not isinstance(split, dict):
            source = str(split)
        rows.append(
            {
                "name": numbers.clean(name),
                "rows": "" if count is None else numbers.count(count),
                "source": numbers.clean(source or ""),
                "purpose": _PURPOSES.get(name, ""),
            }
        )
    return rows


def certificate(report: Report) -> list[tuple[str, str]]:
    """Give the certificate's plain entries."""
    shown = []
    for key, value in report.certificate.items():
        if value is None or isinstance(value, dict | list | tuple) or key == "chosen":
            continue
        name = _ENTRIES.get(key, numbers.clean(key).replace("_", " "))
        shown.append((name, _entry(report, key, value)))
    return shown


def _entry(report: Report, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "confidence" and isinstance(value, float):
        return f"{100 * value:g} %"
    if key == "limit" and isinstance(value, float):
        return numbers.limit(value, bounded=report.metric_is_bounded)
    if key == "upper" and isinstance(value, float):
        return numbers.upper(value, report.max_drop, bounded=report.metric_is_bounded)
    return numbers.significant(value) if isinstance(value, float) else numbers.clean(value)


def tested(report: Report) -> list[dict[str, str]]:
    """Give the candidates put to the certificate, in the order of testing."""
    outcomes = report.certificate.get("tested")
    if not isinstance(outcomes, list | tuple):
        return []
    bounded = report.metric_is_bounded
    rows = []
    for outcome in outcomes:
        if not isinstance(outcome, dict):
            continue
        drop = outcome.get("drop")
        value = _number((drop if isinstance(drop, dict) else {}).get("value"))
        passed = outcome.get("verdict") == "met"
        kept = report.max_drop if passed else None
        samples = outcome.get("samples")
        rows.append(
            {
                "label": numbers.clean(outcome.get("label", "")),
                "drop": numbers.drop(value, bounded=bounded),
                "upper": numbers.upper(_number(outcome.get("upper")), kept, bounded=bounded),
                "p_value": _p_value(outcome),
                "samples": numbers.count(samples) if isinstance(samples, int) else "",
                "verdict": "passed" if passed else "not passed",
            }
        )
    return rows


def _p_value(outcome: Mapping[str, Any]) -> str:
    value = _number(outcome.get("p_value"))
    if not math.isfinite(value):
        return ""
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"  # noqa: PLR2004  # four decimals


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def phases(report: Report) -> list[dict[str, str]]:
    """Give the time of each phase, the total last."""
    longest = max([*report.seconds.values(), 1e-12])
    rows = [
        {
            "name": numbers.clean(name),
            "time": numbers.seconds(value),
            "length": f"{100 * value / longest:.1f}",
            "kind": "total" if name == "total" else "",
        }
        for name, value in report.seconds.items()
    ]
    return sorted(rows, key=lambda row: row["kind"] == "total")
