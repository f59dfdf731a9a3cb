"""The terminal says it all in 80 columns, with or without colour."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from penjing.core.measure import Measurement
from penjing.core.report import Offer, Report
from penjing.report.terminal import Terminal


def shown(
    report: Report, *, width: int = 80, encoding: str = "utf-8", colour: bool = False
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
    )
    Terminal().show(report, console)
    file.flush()
    return raw.getvalue().decode(encoding)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_it_goes_to_standard_output(
    ordinary: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    ordinary.show()
    captured = capsys.readouterr()
    assert "19.9x smaller" in captured.out
    assert not captured.err


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_it_fits_and_is_plain_without_colour(report: Report, width: int, encoding: str) -> None:
    text = shown(report, width=width, encoding=encoding)
    assert all(len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text


def test_colour_adds_no_information(report: Report) -> None:
    coloured = re.sub(r"\x1b\[[\d;]*m", "", shown(report, colour=True))
    assert coloured == shown(report)


def test_no_color_is_honoured(ordinary: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(ordinary, colour=True)
    # Bold and dim may stay; colours are 30 to 38 and 40 to 48.
    assert not re.search(r"\x1b\[(?:\d+;)*[34]\d", text)


def test_a_met_limit_is_certified(ordinary: Report) -> None:
    text = flat(shown(ordinary))
    assert "Met Certified with 95 % confidence: drop at most 0.5 points." in text
    assert "Bound for this file alone: 0.43 points." in text
    assert "at most 0.5 points (95 %)" in text
    assert "Asked:" not in text


def test_what_only_repeats_the_verdict_is_left_out(ordinary: Report) -> None:
    again = "the drop is within the limit with 95 % confidence"
    assert again not in flat(shown(replace(ordinary, reason=again))).lower()


def test_a_long_reason_is_shown_in_full(ordinary: Report) -> None:
    why = "lossless packing: " + "every step of the recipe loses more than was allowed, " * 6
    assert f"L{why[1:].strip()}." in flat(shown(replace(ordinary, reason=why)))


def test_hints_are_looser_limits_that_give_smaller_files(ordinary: Report) -> None:
    size = ordinary.after.size_bytes
    given = ((0.001, size // 2), (0.002, size * 2), (0.01, size * 9 // 10), (0.02, size - 9))
    offers = tuple(Offer(limit, count) for limit, count in given)
    text = flat(shown(replace(ordinary, offers=offers)))
    assert "or less by estimate, not certified" in text
    assert "--max-drop 1%:" in text
    assert text.count("--max-drop") == 1
    assert "- or " not in text


def test_a_gain_is_no_negative_drop(ordinary: Report) -> None:
    gain = Measurement(-0.001, -0.001, -0.001, "")
    text = flat(shown(replace(ordinary, drop=gain, confidence=None)))
    assert "judged by the point estimate, a gain of 0.10 points." in text


def test_what_is_as_fast_is_not_called_faster(ordinary: Report) -> None:
    before = replace(ordinary.before, latency_ms=Measurement(1.002, 1.0015, 1.0025, "ms"))
    after = replace(ordinary.after, latency_ms=Measurement(1.0, 0.9995, 1.0005, "ms"))
    text = flat(shown(replace(ordinary, before=before, after=after)))
    assert "as fast" in text
    assert "1.00x" not in text


def test_an_undecided_limit_says_what_it_takes(undecided: Report) -> None:
    text = flat(shown(undecided))
    assert "About 12,400 certification samples would decide; this run had 1,000." in text
    assert "- judge point estimates" in text
    assert text.count("Warning") == len(undecided.warnings)
    assert "114 others" in text


@pytest.mark.parametrize("needed", [12_400, None])
def test_an_undecided_limit_is_explained_once(undecided: Report, needed: int | None) -> None:
    few = "1000 certification samples are too few to prove the limit"
    why = few + (f"; about {needed} would decide" if needed else "")
    text = flat(shown(replace(undecided, reason=why, samples_needed=needed)))
    assert few not in text
    assert text.count("would decide") == (needed is not None)
    assert text.count("itself is too close to or over the limit") == (needed is None)


def test_another_reason_for_being_undecided_is_given_alone(undecided: Report) -> None:
    why = "a safer candidate failed its test first"
    text = flat(shown(replace(undecided, reason=why, samples_needed=None)))
    assert text.lower().count(why) == 1
    assert "too close" not in text


@pytest.mark.parametrize(
    "name", ["[bold red]w[/]", "\x1b[2Jw", "w\rx", "盆景" * 40, ":smile:"], ids=ascii
)
def test_names_do_not_steer_the_terminal(ordinary: Report, name: str) -> None:
    layers = tuple(replace(row, name=name) for row in ordinary.layers)
    text = shown(replace(ordinary, layers=layers, model=name, warnings=(name,)))
    assert not re.search("[\x00-\x09\x0b-\x1f]", text)
    assert name[:1] == "\x1b" or name[:2].replace("\r", "\ufffd") in text
