"""Write docs/results.md and its picture from the rows in benchmarks/results (``make docs``)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

HERE = Path(__file__).parent
ROWS = HERE.parent / "benchmarks" / "results"
PAGE = HERE / "results.md"
PICTURES = HERE / "images"
Row = dict[str, Any]

TEMPLATE = """\
# Results of training

Written by `make docs` from rows that `make results` (`benchmarks/training.py`) has left. Trained on training images
only, chosen on the even-numbered test images, reported on the odd-numbered ones; sizes are those of whole files, against the
float ONNX file.

## Size

| what | model | seeds | ratio (each seed) | bytes | error before -> after, % | drop, points (each seed) | minutes |
|---|---|---|---|---|---|---|---|
{% for case in sizes -%}
| {{ case.what }} | {{ case.model }} | {{ case.seeds }} | **{{ "%.1f" | format(case.ratio) }}x** ({{ case.ratios }}) | {{ case.bytes }} | {{ "%.2f -> %.2f" | format(case.error_before, case.error) }} | {{ case.drops }} | {{ "%.0f" | format(case.seconds / 60) }} |
{% endfor %}
{% if curves -%}
Every candidate of these runs, by size and drop on the even-numbered images:

![size against drop](images/training-curves.svg)
{% endif %}
{% if gains -%}
## Accuracy

| what | model | seeds | without | with | gain, points (each seed) | minutes |
|---|---|---|---|---|---|---|
{% for case in gains -%}
| {{ case.what }} | {{ case.model }} | {{ case.seeds }} | {{ "%.2f" | format(case.without) }} | {{ "%.2f" | format(case.with) }} | {{ case.gains }} | {{ "%.0f" | format(case.seconds / 60) }} |
{% endfor %}
{%- endif %}"""  # noqa: E501  # a table is a line a row


def cases() -> dict[str, list[Row]]:
    """Read the rows, by case, in the order of seeds."""
    found: dict[str, list[Row]] = {}
    for path in sorted(ROWS.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(row["case"], []).append(row)
    return found


def page(known: dict[str, list[Row]]) -> str:
    """Give the page as it should be."""
    sizes = [_size(rows) for rows in known.values() if "ratio" in rows[0]]
    gains = [_gain(rows) for rows in known.values() if "gain" in rows[0]]
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701  # Markdown
    made = environment.from_string(TEMPLATE).render(
        sizes=sizes, gains=gains, curves=bool(sizes)
    )
    return made.rstrip() + "\n"


def _size(rows: list[Row]) -> Row:
    keys = ("ratio", "bytes", "error_before", "error", "seconds")
    return {
        **_told(rows),
        **{key: median(row[key] for row in rows) for key in keys},
        "bytes": f"{round(median(row['bytes'] for row in rows)):,}",
        "ratios": ", ".join(f"{row['ratio']:.1f}" for row in rows),
        "drops": ", ".join(f"{row['drop']:.2f}" for row in rows),
    }


def _gain(rows: list[Row]) -> Row:
    before, after = (
        ("alone", "taught") if "taught" in rows[0] else ("from_scratch", "transferred")
    )
    return {
        **_told(rows),
        "without": median(row[before] for row in rows),
        "with": median(row[after] for row in rows),
        "gains": ", ".join(f"{row['gain']:+.2f}" for row in rows),
        "seconds": median(row["seconds"] for row in rows),
    }


def _told(rows: list[Row]) -> Row:
    return {key: rows[0][key] for key in ("what", "model")} | {"seeds": len(rows)}


def draw(known: dict[str, list[Row]], target: Path) -> None:
    """Plot size against drop for every candidate of every run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "penjing", "svg.fonttype": "none"})
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    for name, rows in known.items():
        points = [point for row in rows for point in row.get("curve", ())]
        if points:
            sizes, drops = zip(*points, strict=True)
            axes.scatter([size / 1000 for size in sizes], drops, s=14, label=name)
    axes.set_xscale("log")
    axes.set_ylim(-0.5, 3)
    axes.set_xlabel("kB of the whole file")
    axes.set_ylabel("drop, points of accuracy")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(target, format="svg", metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    read = cases()
    if read:
        PAGE.write_text(page(read), encoding="utf-8")
        draw(read, PICTURES / "training-curves.svg")
