"""Sentences that every renderer says the same way."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from penjing.core.report import LEAST_SAVING
from penjing.report.support import numbers

if TYPE_CHECKING:
    from penjing.core.report import Offer, Report

VERDICTS = {"met": "Met", "missed": "Missed", "undecided": "Undecided"}
STATUSES = {
    "chosen": "the smallest that keeps the limits",
    "certified": "passed; a smaller one passed too",
    "over the limit": "drop too large on the search split",
    "not certified": "upper bound above the limit",
    "too large": "file above the size limit",
    "dominated": "another is smaller and no worse",
    "within the limit": "not put to the certificate",
}
_SAID_ALREADY = re.compile(
    r"the drop is within the limit with|\d+ certification samples are too few"
)
"""How reasons begin that only repeat what ``certified`` says."""
_MOST_OFFERS = 2
_USUAL = 0.95
_ACRONYMS = frozenset({"auc", "f1", "mae", "mape", "mse", "r2", "rmse"})

SAME_SPEED = 0.02
"""Differences of latency up to this share are noise, whatever their intervals say."""


def model_name(report: Report) -> str:
    """Give the last part of the model's path."""
    path = numbers.clean(report.model)
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def limits(report: Report) -> str:
    """Say what was asked for."""
    asked = []
    if report.max_drop is not None:
        allowed = numbers.limit(report.max_drop, bounded=report.metric_is_bounded)
        asked.append(f"drop at most {allowed}")
    if report.max_size_bytes is not None:
        asked.append(f"size at most {numbers.size(report.max_size_bytes)}")
    return ", ".join(asked) or "no limit"


def metric_title(name: str) -> str:
    """Write a metric's name as a title.

    >>> metric_title("mse"), metric_title("log_loss")
    ('MSE', 'Log loss')
    """
    if name in _ACRONYMS:
        return name.upper()
    return numbers.clean(name[:1].upper() + name[1:]).replace("_", " ")


def confidence(report: Report) -> str:
    """Give the confidence as ``95 %``; "about" where the method is approximate."""
    if report.confidence is None:
        return "none"
    about = "about " if report.certificate.get("approximate") else ""
    return f"{about}{100 * report.confidence:g} %"


def reason(report: Report) -> str:
    """Give the run's reason as a sentence."""
    text = numbers.clean(report.reason).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def bound(report: Report) -> float | None:
    """Give the one-sided upper bound of the drop; None where there is none.

    The certificate has it as ``upper``.  The upper end of the drop's two-sided interval is a
    bound too, only a looser one.
    """
    if report.confidence is None:
        return None
    chosen = [row.certified_upper for row in report.candidates if row.status == "chosen"]
    for value in (report.certificate.get("upper"), *chosen, report.drop.high):
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def level(report: Report) -> str:
    """Give the confidence of the intervals shown."""
    return f"{100 * (report.confidence or _USUAL):g} %"


def certified(report: Report) -> str:
    """Say in one sentence what holds, or what it would take to know."""
    bounded = report.metric_is_bounded
    estimate = loss(report.drop.value, bounded=bounded)
    if report.confidence is None:
        return f"Not certified: judged by the point estimate, {estimate}."
    if report.met == "undecided":
        return needed(report)
    if proves_limit(report) and report.max_drop is not None:
        allowed = numbers.limit(report.max_drop, bounded=bounded)
        return f"Certified with {confidence(report)} confidence: drop at most {allowed}."
    value = bound(report)
    if value is None:
        return f"No upper bound of the drop is known; the estimate is {estimate}."
    upper = numbers.upper(value, report.max_drop, bounded=bounded)
    return f"With {confidence(report)} confidence the drop is at most {upper}."


def loss(value: float, *, bounded: bool) -> str:
    """Call a drop below zero what it is.

    >>> loss(0.001, bounded=True), loss(-0.001, bounded=False)
    ('a drop of 0.10 points', 'a gain of 0.10 %')
    """
    amount = numbers.drop(abs(value), bounded=bounded)
    return f"a {'gain' if value < 0 else 'drop'} of {amount}"


def proves_limit(report: Report) -> bool:
    """Tell whether the run has proven that its limit on the drop is kept.

    Candidates are tested one after the other, and the confidence is that of the whole
    sequence: it is the limit that is proven, not the bound of the one that was chosen.
    """
    certain = report.met == "met" and report.confidence is not None
    return certain and report.max_drop is not None


def details(report: Report) -> str:
    """Say what ``certified`` has left out: the file's own bound and the reason, if any."""
    told = []
    value = bound(report)
    if proves_limit(report) and value is not None:
        upper = numbers.upper(value, report.max_drop, bounded=report.metric_is_bounded)
        told.append(f"Bound for this file alone: {upper}.")
    why = reason(report)
    if why != certified(report) and not _SAID_ALREADY.match(report.reason):
        told.append(why)
    return " ".join(told)


def needed(report: Report) -> str:
    """Say why it is undecided: how many certification samples would decide, or why none."""
    rows = split_rows(report.splits.get("certification"))
    given = f"; this run had {numbers.count(rows)}" if rows is not None else ""
    if report.samples_needed is not None:
        wanted = numbers.count(report.samples_needed)
        return f"About {wanted} certification samples would decide{given}."
    if report.reason and not _SAID_ALREADY.match(report.reason):
        return reason(report)
    on = f" (on {numbers.count(rows)} certification samples)" if rows is not None else ""
    return f"The estimate itself is too close to or over the limit{on}."


def change_of_metric(report: Report) -> str:
    """Say which way the metric went."""
    value = report.drop.value
    if not math.isfinite(value):
        return "drop unknown"
    amount = numbers.drop(abs(value), bounded=report.metric_is_bounded)
    if float(numbers.drop_number(value)) == 0:
        return "no drop"
    if value < 0:
        return f"{amount} better"
    return f"{amount} {'drop' if report.higher_is_better else 'worse'}"


def change_of_size(report: Report) -> str:
    """Say how much smaller the file is, honestly where it is not."""
    if report.ratio >= 1:
        return f"{numbers.ratio(report.ratio)} smaller"
    return f"{numbers.ratio(1 / report.ratio)} larger"


def change_of_latency(report: Report) -> str:
    """Compare latencies, but only where their intervals are apart."""
    before, after = report.before.latency_ms, report.after.latency_ms
    if not (_positive(before.value) and _positive(after.value)):
        return "not measured"
    if before.low <= after.high and after.low <= before.high:
        return "no measurable difference"
    factor = before.value / after.value
    if abs(factor - 1) <= SAME_SPEED:
        return "as fast"
    if factor >= 1:
        return f"{numbers.ratio(factor)} faster"
    return f"{numbers.ratio(1 / factor)} slower"


def hints(report: Report) -> list[str]:
    """Say what to do next, the most useful first."""
    found = []
    if report.met == "undecided" and report.samples_needed is not None:
        wanted = numbers.count(report.samples_needed)
        found.append(
            f"give about {wanted} certification samples that no run has used: --test FILE, or "
            "more --data"
        )
    by_estimate = report.max_drop is None or report.drop.value <= report.max_drop
    if report.met == "undecided" and report.confidence is not None and by_estimate:
        found.append("judge point estimates instead of proving: --confidence none")
    if report.met == "missed" and report.max_drop is not None:
        found.append("allow a larger drop (--max-drop), or ask less of a recipe of your own")
    if report.met == "missed" and report.max_size_bytes is not None:
        found.append("allow a larger file (--max-size)")
    looser = [o for o in offers(report) if o.size_bytes < report.after.size_bytes]
    for offer in looser[:_MOST_OFFERS] if report.max_drop is not None else []:
        allowed, size = f"{round(100 * offer.limit, 6):g}%", numbers.size(offer.size_bytes)
        found.append(
            f"--max-drop {allowed}: {size} or less by estimate, not certified (a proof needs "
            "fresh samples: --test FILE)"
        )
    return found


def offers(report: Report) -> list[Offer]:
    """Give the offers of use, the tightest first.

    A looser limit is of use where it buys a file that is clearly smaller, a tighter one where
    it costs a larger one.
    """
    asked, size = report.max_drop, report.after.size_bytes
    useful = [
        offer
        for offer in report.offers
        if asked is None
        or (offer.limit > asked and offer.size_bytes <= (1 - LEAST_SAVING) * size)
        or (offer.limit < asked and offer.size_bytes > size)
    ]
    return sorted(useful, key=lambda offer: offer.limit)


def split_rows(split: Any) -> int | None:
    """Read the number of rows of one split, stored alone or beside its source."""
    rows = split.get("rows") if isinstance(split, dict) else split
    return rows if isinstance(rows, int) else None


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
