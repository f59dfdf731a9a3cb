"""The page is complete, self-contained, harmless and always the same."""

import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from penjing.core.errors import MissingExtraError, OutputError
from penjing.core.measure import Measurement
from penjing.core.registry import REPORTS
from penjing.core.report import Offer, Report
from penjing.report.html import Html
from penjing.report.support import curve
from penjing.report.support.tables import ledger

VOID = {"meta", "link", "path", "use"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg></style><b>",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{2}$ \\notacommand",
    "\x1b[2J\x00\u202egnp.\ud800",
    '#010101 id="a" url(#b) &amp; --> 盆景 🌲',
    "",
    "n" * 5000,
)


class Page(HTMLParser):
    """Reads a page and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def hostile(report: Report, text: str) -> Report:
    """Put the text wherever users or their files may have put theirs."""
    layers = tuple(replace(row, name=text, encoding=text, reason=text) for row in report.layers)
    rows = tuple(replace(row, label=text) for row in report.candidates)
    return replace(
        report,
        model=text,
        metric=text,
        reason=text,
        layers=layers,
        candidates=rows,
        recipe=text,
        reproduce=text,
        sha256=text,
        warnings=(text, text),
        environment={"penjing": text},
        splits={"search": {"rows": 3, "source": text}, "seed": text},
        certificate={"method": text, "tested": [{"label": text}]},
    )


def few(report: Report) -> Report:
    """Keep little, so that drawing is quick."""
    return replace(report, layers=report.layers[:3], candidates=report.candidates[6:9])


def test_the_plug_ins_are_found_by_name() -> None:
    assert {"html", "terminal"} <= set(REPORTS.names())
    assert REPORTS.load("html") is Html


def test_the_page_is_well_formed_and_accessible(page: str) -> None:
    parsed = Page(page)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert set(parsed.values("aria-labelledby")) <= set(ids)
    assert {href[1:] for href in parsed.values("href") if href.startswith("#")} <= set(ids)
    assert parsed.tags.count("caption") == parsed.tags.count("table")
    assert parsed.tags.count("h1") == 1
    svgs = parsed.tags.count("svg")
    assert parsed.values("role").count("img") >= svgs
    assert all(parsed.values("aria-label"))


def test_the_page_asks_for_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "iframe", "object", "img"} & set(parsed.tags)
    assert "default-src 'none'" in page
    assert all(link.startswith(("#", "data:")) for link in parsed.values("href"))
    assert not parsed.values("src")
    assert not re.search(r"@import|url\((?!#)", page)
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]


def test_the_page_is_small(page: str) -> None:
    assert len(page.encode()) < 300_000


def test_charts_take_every_colour_from_the_page(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}|#[0-9a-fA-F]{3}\b(?=[;\"])", drawn)
    assert "DejaVu" not in drawn


def test_the_same_report_gives_the_same_page_in_another_process(ordinary: Report) -> None:
    code = (
        "import pickle, sys; from penjing.report.html import Html;"
        "sys.stdout.buffer.write(Html().render(pickle.load(sys.stdin.buffer)).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(ordinary),
        capture_output=True,
        check=True,
        env=environment,
    )
    assert done.stdout.decode() == Html().render(ordinary)


@pytest.fixture
def tame(ordinary: Report) -> Page:
    """Give the page of a report that wishes no harm."""
    return Page(Html().render(hostile(few(ordinary), "tame")))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_no_name_becomes_markup(ordinary: Report, tame: Page, text: str) -> None:
    page_text = Html().render(hostile(few(ordinary), text))
    page = Page(page_text)
    # A model with an empty or cut name has a title or a second line more or less.
    optional = {"title", "p", "small"}
    assert [t for t in page.tags if t not in optional] == [
        t for t in tame.tags if t not in optional
    ]
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", page_text)
    assert "49" not in page.words


def test_what_users_wrote_is_shown_as_they_wrote_it(ordinary: Report) -> None:
    text = '<b>"#010101" & $x$</b>'
    page = Page(Html().render(hostile(ordinary, text)))
    assert sum(text in words for words in page.words) > len(ordinary.layers)


def test_the_ledger_sums_to_the_file(report: Report, page: str) -> None:
    ledger = page[page.index('id="ledger"') : page.index('id="candidates"')]
    cells = re.findall(r'<td class="n">([\d,]+)</td></tr>', ledger)
    *entries, total = (int(cell.replace(",", "")) for cell in cells)
    assert len(entries) == len(report.layers) + len(report.overhead)
    assert sum(entries) == total == report.after.size_bytes


def test_the_ledger_sums_to_the_model_as_it_was(report: Report) -> None:
    arrays = sum(row.original_bytes for row in report.layers)
    whole = replace(report, before=replace(report.before, size_bytes=arrays + 4321))
    found = ledger(whole)
    before = [int(row["before"].replace(",", "") or 0) for row in found["rows"]]
    assert sum(before) == arrays + 4321
    assert 4321 in before


def test_bytes_nobody_explains_are_not_hidden(ordinary: Report) -> None:
    overhead = {**ordinary.overhead, "<graph>": ordinary.overhead["<graph>"] - 7}
    text = Html().render(replace(ordinary, overhead=overhead))
    assert re.search(r"unaccounted</th>.*>7</td>", text)
    assert "unaccounted" not in Html().render(ordinary)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"met": "met"}, "Certified with 95\xa0% confidence: drop at most 0.5\xa0points."),
        ({"met": "met"}, "Bound for this file alone: 0.43\xa0points."),
        ({"confidence": None}, "Not certified: judged by the point estimate"),
        ({"met": "missed"}, "With 95\xa0% confidence the drop is at most 0.43\xa0points."),
        (
            {"met": "undecided", "samples_needed": 12_400},
            "About 12,400 certification samples would decide; this run had 5,000.",
        ),
        (
            {"met": "undecided", "reason": "9 certification samples are too few"},
            "The estimate itself is too close to or over the limit",
        ),
        (
            {"max_drop": None, "max_size_bytes": 70_000},
            "With 95\xa0% confidence the drop is at most 0.43\xa0points.",
        ),
        ({"certificate": {"approximate": True}}, "Certified with about 95\xa0% confidence"),
        (
            {"certificate": {}, "candidates": (), "max_drop": 0.01},
            "Bound for this file alone: 0.51\xa0points.",
        ),
    ],
    ids=[
        "met",
        "own bound",
        "point estimate",
        "missed",
        "undecided",
        "never",
        "no drop limit",
        "approximate",
        "interval only",
    ],
)
def test_the_verdict_claims_what_was_shown(
    ordinary: Report, changes: dict[str, object], sentence: str
) -> None:
    text = Html().render(replace(ordinary, **changes))  # type: ignore[arg-type]  # test table
    assert sentence in text


def test_offers_cost_or_buy_something(ordinary: Report) -> None:
    size = ordinary.after.size_bytes
    given = ((0.001, size // 2), (0.002, size * 2), (0.03, size * 9 // 10), (0.04, size - 9))
    offers = tuple(Offer(limit, count) for limit, count in given)
    text = Html().render(replace(ordinary, offers=offers))
    table = text[text.index('id="offers"') : text.index('id="bytes"')]
    assert re.findall(r'row">([\d.]+)', table) == ["0.2", "3"]
    assert "2.00\xd7 as large" in table


def test_numbers_below_zero_have_one_sign(page: str) -> None:
    told = re.sub(r"<style>.*?</style>|<pre.*?</pre>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert re.findall(r"(?<![\w.,-])-[\d.]+", told) == []


def test_intervals_that_go_on_outside_are_marked(ordinary: Report) -> None:
    wide = Measurement(0.001, 0.0, 0.9, "")
    first, *others = ordinary.candidates
    longer = (replace(first, drop=wide, status="over the limit"), *others)
    marks = [
        curve.draw(replace(ordinary, candidates=rows), curve.WIDE).count("<use")
        for rows in (ordinary.candidates, longer)
    ]
    assert marks[1] > marks[0]


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(-0.0019, 0.0051, True), (-0.006, 0.001, False)]
)
def test_the_zero_makes_way_for_the_limit(
    ordinary: Report, low: float, high: float, *, shown: bool
) -> None:
    drop = Measurement((low + high) / 2, low, high, "")
    text = Html().render(replace(ordinary, drop=drop))
    assert ('class="zero"' in text) == shown


@pytest.mark.parametrize("count", [0, 1, 2, 120])
def test_any_number_of_candidates_can_be_drawn(ordinary: Report, count: int) -> None:
    rows = (ordinary.candidates * 8)[:count]
    Page(Html().render(replace(ordinary, candidates=rows)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.4, 0.0, 0.9])
def test_any_drop_can_be_drawn(ordinary: Report, value: float) -> None:
    drop = Measurement(value, -math.inf, math.inf, "")
    rows = tuple(replace(row, drop=drop, certified_upper=value) for row in ordinary.candidates)
    changed = replace(ordinary, candidates=rows, drop=drop)
    text = Html().render(changed)
    assert not re.search(r"[\s>](nan|inf)\b", " ".join(Page(text).words))


def test_a_model_without_weights_has_a_page(ordinary: Report) -> None:
    left = sum(ordinary.overhead.values())
    side = replace(ordinary.after, size_bytes=left)
    Page(Html().render(replace(ordinary, layers=(), parameters=0, after=side, candidates=())))


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(
    ordinary: Report, tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    ordinary.save(target)
    assert target.read_text("utf-8") == Html().render(ordinary)
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_save_keeps_what_was_there(
    ordinary: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "report.html"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        Html().save(ordinary, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "where",
    [lambda folder: folder, lambda folder: folder / "missing" / "report.html"],
    ids=["a folder", "no folder"],
)
def test_an_unusable_path_is_an_output_error(
    ordinary: Report, tmp_path: Path, where: Callable[[Path], Path]
) -> None:
    with pytest.raises(OutputError, match=re.escape(str(tmp_path))):
        Html().save(ordinary, where(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link(ordinary: Report, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    Html().save(ordinary, tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").stat().st_size > 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_is_written_to_and_not_replaced(ordinary: Report) -> None:
    Html().save(ordinary, os.devnull)
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(
    ordinary: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"penjing\[report\]"):
        Html().save(ordinary, tmp_path / "report.html")


def test_the_plug_in_loads_without_the_extra() -> None:
    code = (
        "import sys; from penjing.core.registry import REPORTS; REPORTS.load('html');"
        "sys.exit(bool({'jinja2', 'matplotlib'} & set(sys.modules)))"
    )
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
