"""Matplotlib figures as inline SVG that takes its colours and fonts from the page."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.figure import Figure

INK, MUTED, LINE = "#010101", "#010102", "#010103"
ACCENT, PALE, WARN, PAPER = "#010104", "#010105", "#010106", "#010107"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    ACCENT: "--accent",
    PALE: "--pale",
    WARN: "--warn",
    PAPER: "--card",
}
TEXT_PX = 12.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "penjing",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": TEXT_PX,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 1.0,
    "axes.unicode_minus": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.dash_capstyle": "butt",
    "path.simplify": False,
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of this many CSS pixels: at 72 dpi a point is a pixel."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # The page's fonts draw the text; what matplotlib's own font lacks is no loss.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def inline(
    figure: Figure,
    prefix: str,
    label: str,
    *,
    names: Mapping[str, str],
    titles: Mapping[str, str],
) -> str:
    """Write the figure as an ``<svg>`` to be pasted into a page.

    Colours that stand for a role (``INK`` and the others above: near-blacks nobody would
    choose) become the page's custom properties, so that one drawing serves the light and the
    dark scheme.  Text stays text, in the page's font.  Ids get a prefix, because all drawings
    of a page share one space of ids.  The same figure gives the same text, always.

    Args:
        figure: Made within ``drawing``, and written within it.
        prefix: Unique in the page.
        label: What the drawing shows, for those who do not see it.
        names: What to write in place of each text drawn as the key: matplotlib never sees
            what users have written.
        titles: By gid of an artist, what to show while the pointer is on it.
    """
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", "\n", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    # Before matplotlib 3.11 size and family are one property.
    text = re.sub(r"font: ((?:\w+ )?[\d.]+px) [^;\"]*", r"font: \1 var(--sans)", text)
    text = re.sub(r"(\.\d\d)\d+", r"\1", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"\bid=\"", f'id="{prefix}-', text)
    text = re.sub(r"(url\(#|xlink:href=\"#)", rf"\1{prefix}-", text)
    text = text.replace("xlink:href", "href")
    for token, name in names.items():
        text = text.replace(f">{token}<", f">{escape(name)}<")
    for gid, title in titles.items():
        opening = f'<g id="{prefix}-{gid}">'
        text = text.replace(opening, f"{opening}<title>{escape(title)}</title>")
    box = re.search(r"viewBox=\"([^\"]*)\"", text)
    assert box is not None, "matplotlib writes a view box"
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}">'
    return head + text[text.index(">") + 1 :]
