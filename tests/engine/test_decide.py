"""Deciding: certification data are touched in an order that they cannot change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import penjing
from penjing.core.measure import Verdict
from penjing.core.tensors import Dense
from penjing.engine import decide
from penjing.engine.candidate import GIVEN
from penjing.engine.decide import LONGEST_LADDER, Decider, Decision
from penjing.engine.evidence import ZeroOne
from penjing.engine.judging import Judgement
from penjing.engine.search import HOPELESS, TIME_IS_UP

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.engine.candidate import Candidate
    from penjing.engine.search import Search

SAMPLES = 2000


@dataclass
class FakeProof:
    """Says what it is told to say, and notes every question."""

    lost: Callable[[int], int]
    """How many samples the nth candidate asked about loses."""
    samples: int = SAMPLES
    asked: int = 0

    @property
    def part(self) -> range:
        return range(self.samples)

    def judge(self, model: object) -> Judgement:
        del model
        lost = self.lost(self.asked)
        self.asked += 1
        share = lost / self.samples
        return Judgement(ZeroOne(lost, 0, self.samples), 0.9 - share, 0.0, share)


@pytest.fixture(scope="module")
def done(searching: Callable[..., Search]) -> Search:
    """A finished search; nobody changes it."""
    search = searching(max_drop=0.02)
    search.run()
    return search


def decided(search: Search, proof: object, **budget: Any) -> tuple[Decision, list[Candidate]]:
    """Decide, and give the candidates in the order they were judged."""
    search = replace(search, candidates=list(search.candidates))  # it may grow
    if budget:
        search = replace(search, budget=penjing.Budget(**budget))
    decider = Decider(search, proof)  # type: ignore[arg-type]  # it asks for no more than a judge
    order: list[Candidate] = []
    judged = decider.judged

    def noting(candidate: Candidate) -> Judgement:
        if candidate not in order:
            order.append(candidate)
        return judged(candidate)

    decider.judged = noting  # type: ignore[method-assign]
    return decider.decide(), order


def test_candidates_are_tested_from_the_safest_to_the_boldest(done: Search) -> None:
    decision, order = decided(done, FakeProof(lambda _: 0))
    sizes = [c.size_bytes for c in order]
    assert len(order) > 3
    assert sizes == sorted(sizes, reverse=True)
    assert decision.verdict is Verdict.MET
    assert decision.chosen is order[-1]
    assert decision.certificate is not None
    assert [t.label for t in decision.certificate.tested] == [c.label for c in order]


def test_a_proof_that_passes_everything_goes_on_to_bolder_ones(done: Search) -> None:
    tried = {c.label for c in done.candidates}
    decision, order = decided(done, FakeProof(lambda _: 0))
    assert decision.chosen.label not in tried
    assert decision.chosen.size_bytes < min(c.size_bytes for c in order if c.label in tried)
    assert done.excess(decision.chosen) <= HOPELESS
    _, failed = decided(done, FakeProof(lambda n: SAMPLES // 4 if n == 1 else 0))
    assert {c.label for c in failed} <= tried, "made only when their turn comes"


def test_a_long_ladder_keeps_rungs_at_even_distances(
    done: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = Decider(done, FakeProof(lambda _: 0))._ladder()  # type: ignore[arg-type]  # noqa: SLF001
    monkeypatch.setattr(decide, "LONGEST_LADDER", 4)
    some = Decider(done, FakeProof(lambda _: 0))._ladder()  # type: ignore[arg-type]  # noqa: SLF001
    assert len(everyone) > 4
    assert 3 <= len(some) <= 4
    assert (some[0], some[-1]) == (everyone[0], everyone[-1])
    sizes = [c.size_bytes for c in some]
    widest = max(a / b for a, b in pairwise(sizes))
    assert widest < (sizes[0] / sizes[-1]) ** 0.75


def test_gaps_of_a_ladder_are_filled_with_what_is_about_as_safe(done: Search) -> None:
    last = done.candidates[-1]

    def fake(size: int, moved: float) -> Candidate:
        judgement = replace(last.judgement, divergence=moved)
        artifact = SimpleNamespace(size_bytes=size)
        return replace(last, judgement=judgement, artifact=artifact)  # type: ignore[arg-type]

    safe, bold = fake(2000, 0.001), fake(1500, 0.010)
    near, far, close = fake(1600, 0.011), fake(1700, 0.020), fake(1950, 0.010)
    search = replace(done, candidates=[bold, near, far, close, safe])
    decider = Decider(search, FakeProof(lambda _: 0))  # type: ignore[arg-type]
    assert decider._without_gaps([safe, bold]) == [safe, near, bold]  # noqa: SLF001


def test_what_a_recipe_of_the_user_makes_is_kept_whatever_the_verdict(
    searching: Callable[..., Search],
) -> None:
    search = searching(max_drop=0.02)
    recipe = penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest", "bits": 4}]})
    given = search.attempt(recipe, GIVEN)
    cases = [
        (0, Verdict.MET),
        (SAMPLES // 4, Verdict.MISSED),
        (SAMPLES // 50, Verdict.UNDECIDED),
    ]
    for lost, verdict in cases:
        decision, order = decided(search, FakeProof(lambda _, lost=lost: lost))  # type: ignore[misc]
        assert decision.chosen is given
        assert order == [given], "one test, nothing else"
        assert decision.verdict is verdict
    none, _ = decided(search, FakeProof(lambda _: SAMPLES // 4), max_drop=0.02, confidence=None)
    assert (none.chosen, none.verdict) == (given, Verdict.MISSED)


def test_weights_that_did_not_change_need_no_samples(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.02)
    recipe = penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest", "bits": 4}]})
    given = search.attempt(recipe, GIVEN)
    assert not given.is_exact
    same = {name: Dense(w.tensor.dense()) for name, w in search.model.weights().items()}
    exact = replace(given, model=search.model.with_weights(same))
    assert exact.is_exact
    search.candidates[-1] = exact
    for limit in (0.02, 0.0):
        proof = FakeProof(lambda _: 0, samples=5)  # too few for any other file
        decision, _ = decided(search, proof, max_drop=limit)
        assert (decision.chosen, decision.verdict) == (exact, Verdict.MET)
        assert decision.evidence() == {"upper": 0.0, "method": "same weights"}


def test_a_size_limit_judges_a_recipe_of_the_user(searching: Callable[..., Search]) -> None:
    for limit, verdict in ((10**6, Verdict.MET), (300, Verdict.MISSED)):
        search = searching(max_size_bytes=limit)
        recipe = penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest", "bits": 4}]})
        given = search.attempt(recipe, GIVEN)
        decision, _ = decided(search, FakeProof(lambda _: SAMPLES // 4))
        assert (decision.chosen, decision.verdict) == (given, verdict)


def test_a_recipe_that_may_lose_is_not_kept_where_nothing_may_be_lost(
    searching: Callable[..., Search],
) -> None:
    for confidence in (0.95, None):
        search = searching(max_drop=0.0, confidence=confidence)
        recipe = penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest", "bits": 8}]})
        search.attempt(recipe, GIVEN)
        decision, _ = decided(search, FakeProof(lambda _: 0))
        assert not decision.chosen.recipe.steps
        assert "more than nothing" in decision.reason


class InterruptedProof(FakeProof):
    """Stops before a given question."""

    def judge(self, model: object) -> Judgement:
        if self.asked == self.samples_before:
            raise KeyboardInterrupt
        return super().judge(model)

    samples_before = 3


def test_an_interrupt_keeps_what_is_proven(done: Search) -> None:
    search = replace(done, candidates=list(done.candidates))
    decider = Decider(search, InterruptedProof(lambda _: 0))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        decider.decide()
    decision = decider.interrupted()
    ladder = Decider(search, FakeProof(lambda _: 0))._ladder()  # type: ignore[arg-type]  # noqa: SLF001
    assert (decision.chosen, decision.verdict) == (ladder[2], Verdict.MET)
    assert decision.certificate is not None
    assert len(decision.certificate.tested) == 3


def test_an_interrupt_before_any_test_is_undecided(done: Search) -> None:
    decision = Decider(done, FakeProof(lambda _: 0)).interrupted()  # type: ignore[arg-type]
    assert decision.verdict is Verdict.UNDECIDED
    assert decision.chosen.recipe.steps


def test_an_interrupted_search_makes_nothing_bolder(done: Search) -> None:
    search = replace(done, candidates=list(done.candidates), stopped="interrupted")
    decided(search, FakeProof(lambda _: 0))
    assert len(search.candidates) == len(done.candidates)


def test_the_reason_says_that_the_time_limit_ended_the_search(done: Search) -> None:
    search = replace(done, stopped=TIME_IS_UP)
    decision, _ = decided(search, FakeProof(lambda n: SAMPLES // 4 if n == 1 else 0))
    assert TIME_IS_UP in decision.reason


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_outcomes_end_the_sequence_but_never_change_it(failing: int, done: Search) -> None:
    _, everyone = decided(done, FakeProof(lambda _: 0))
    decision, order = decided(done, FakeProof(lambda n: SAMPLES // 4 if n == failing else 0))
    assert order == everyone[: failing + 1], "nothing after the first failure is looked at"
    assert decision.chosen is order[failing - 1]
    assert decision.verdict is Verdict.MET
    assert decision.outcome is not None
    assert decision.outcome.upper <= 0.02


def test_a_candidate_is_judged_on_the_proof_at_most_once(done: Search) -> None:
    proof = FakeProof(lambda n: n % 3)
    _, order = decided(done, proof)
    assert proof.asked == len(order)


def test_candidates_with_one_label_are_judged_apart(done: Search) -> None:
    search = replace(done, candidates=[replace(c, label="same") for c in done.candidates])
    proof = FakeProof(lambda _: 0)
    _, order = decided(search, proof)
    assert proof.asked == len(order) > 1


def test_too_few_samples_leave_it_undecided_and_say_how_many_would_do(done: Search) -> None:
    proof = FakeProof(lambda _: 0, samples=40)
    decision, _ = decided(done, proof)
    assert decision.verdict is Verdict.UNDECIDED
    assert decision.outcome is not None
    assert decision.outcome.samples_needed is not None
    assert decision.outcome.samples_needed > 40
    assert "40 certification samples are too few" in decision.reason
    assert str(decision.outcome.samples_needed) in decision.reason
    passing = [c for c in done.candidates if c.recipe.steps and done.estimates.within(c, 0.02)]
    assert decision.chosen is min(passing, key=lambda c: c.size_bytes)


def test_what_passes_after_a_failure_is_no_proof(done: Search) -> None:
    decision, _ = decided(done, FakeProof(lambda n: SAMPLES // 4 if n == 0 else 0))
    assert decision.verdict is Verdict.UNDECIDED
    assert "proves nothing" in decision.reason


def test_a_drop_over_the_limit_is_missed(done: Search) -> None:
    decision, _ = decided(done, FakeProof(lambda _: SAMPLES // 4))
    assert decision.verdict is Verdict.MISSED
    assert decision.outcome is not None
    assert decision.outcome.drop.low > 0.02


def test_without_confidence_one_candidate_is_looked_at(done: Search) -> None:
    for lost, verdict in ((0, Verdict.MET), (SAMPLES // 4, Verdict.MISSED)):
        proof = FakeProof([lost].__getitem__)  # there is no second question
        decision, order = decided(done, proof, max_drop=0.02, confidence=None)
        assert len(order) == 1
        assert decision.verdict is verdict
        assert decision.outcome is None
        assert decision.evidence() == {}


def test_no_drop_allowed_is_lossless(done: Search) -> None:
    for confidence in (0.95, None):
        decision, _ = decided(done, FakeProof(lambda _: 0), max_drop=0.0, confidence=confidence)
        assert not decision.chosen.recipe.steps
        assert decision.verdict is Verdict.MET
        if confidence:
            assert decision.evidence() == {"upper": 0.0, "method": "same weights"}


def test_a_size_limit_alone_takes_the_model_that_moved_least(done: Search) -> None:
    sizes = sorted(c.size_bytes for c in done.candidates)
    limit = sizes[len(sizes) // 2] + 1000
    for confidence in (0.95, None):
        decision, order = decided(
            done, FakeProof(lambda _: 100), max_size_bytes=limit, confidence=confidence
        )
        fitting = [c for c in done.candidates if c.size_bytes + 300 <= limit]
        assert decision.chosen is min(fitting, key=lambda c: c.judgement.divergence)
        assert decision.verdict is Verdict.MET
        assert len(order) == 1
        if confidence:
            assert 0.05 < decision.evidence()["upper"] < 0.07


def test_a_size_nobody_reaches_keeps_the_smallest(done: Search) -> None:
    decision, _ = decided(done, FakeProof(lambda _: 0), max_size_bytes=5)
    assert decision.chosen is min(done.candidates, key=lambda c: c.size_bytes)
    assert decision.verdict is Verdict.MISSED


def test_both_limits_must_hold(done: Search) -> None:
    tight, roomy = (
        decided(done, FakeProof(lambda _: 0), max_drop=0.02, max_size_bytes=limit)[0]
        for limit in (500, 100_000)
    )
    assert tight.verdict is Verdict.MISSED
    assert "larger than 500 bytes" in tight.reason
    assert roomy.verdict is Verdict.MET
    assert tight.chosen.recipe == roomy.chosen.recipe


def test_nothing_larger_than_lossless_packing_is_kept(done: Search) -> None:
    lossless = done.candidates[0]
    inflated = [
        lossless,
        *(
            replace(c, artifact=lossless.artifact.with_header({"padding": c.label * 100}))
            for c in done.candidates[1:]
        ),
    ]
    assert all(c.size_bytes > lossless.size_bytes for c in inflated[1:])
    search = replace(done, candidates=inflated)
    for confidence in (0.95, None):
        decision, _ = decided(
            search, FakeProof(lambda _: 0), max_drop=0.02, confidence=confidence
        )
        assert decision.chosen is lossless
        assert "smaller" in decision.reason
        assert decision.verdict is Verdict.MET


def test_the_safest_rung_stays_on_a_long_ladder(done: Search) -> None:
    _, order = decided(replace(done, candidates=done.candidates), FakeProof(lambda _: 0))
    lossy = [c for c in done.candidates if c.recipe.steps]
    assert order[0].judgement.divergence == min(c.judgement.divergence for c in lossy)
    assert len(order) <= LONGEST_LADDER
