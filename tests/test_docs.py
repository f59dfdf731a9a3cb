"""Pages that are written from the code say what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_techniques_is_up_to_date() -> None:
    generate = runpy.run_path(str(DOCS / "generate.py"))
    written = (DOCS / "techniques.md").read_text(encoding="utf-8")
    assert generate["page"]() == written, "run 'make docs'"


def test_the_page_of_results_is_up_to_date() -> None:
    results = runpy.run_path(str(DOCS / "results.py"))
    read = results["cases"]()
    assert read, "no rows in benchmarks/results"
    written = (DOCS / "results.md").read_text(encoding="utf-8")
    assert results["page"](read) == written, "run 'make docs'"
