"""The loop keeps what its settings promise, whatever comes in between."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from penjing.core.errors import ConfigError, PenjingWarning, TrainingError
from penjing.training.loop import LOWEST

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.training.rows import Rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:the loss is no number:penjing.PenjingWarning"),
    pytest.mark.filterwarnings("ignore:the GPU's memory is full:penjing.PenjingWarning"),
]
Fit = Any
Line = Any


def test_training_learns(fit: Fit) -> None:
    """The loop finds the line that the rows lie beside."""
    done = fit(epochs=40)
    wanted = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3])
    assert torch.allclose(done.parameters, wanted, atol=0.1)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_same_seed_same_bits(fit: Fit, optimizer: str) -> None:
    """Two runs give the same numbers, whatever random numbers were drawn before."""
    one = fit(optimizer=optimizer)
    torch.rand(3)
    assert torch.equal(one.parameters, fit(optimizer=optimizer).parameters)
    assert not torch.equal(one.parameters, fit(optimizer=optimizer, seed=1).parameters)


def test_cosine_falls_to_almost_nothing(fit: Fit, line: Line) -> None:
    """It begins at the largest rate and ends at a thousandth of it, never rising."""
    rates = fit(line(), schedule="cosine", epochs=10).line.rates
    assert rates[0] == pytest.approx(0.05)
    assert all(one > two for one, two in pairwise(rates))
    half = 0.05 * (LOWEST + (1 - LOWEST) / 2)
    assert rates[len(rates) // 2] == pytest.approx(half)
    assert rates[-1] < 0.05 * 0.01


def test_one_cycle_rises_and_falls(fit: Fit) -> None:
    """It begins low, is largest at three tenths of the run, and ends near nothing."""
    rates = fit(schedule="one_cycle", epochs=10).line.rates
    top = rates.index(max(rates))
    assert top == round(0.3 * len(rates))
    assert rates[top] == pytest.approx(0.05)
    assert rates[0] == pytest.approx(0.04 * 0.05)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_constant_stays(fit: Fit) -> None:
    """It is the same rate in every step."""
    assert set(fit(schedule="constant").line.rates) == {0.05}


def test_gradients_are_cut_to_the_norm(fit: Fit) -> None:
    """With clip_norm no gradient is longer; without, some are."""
    assert max(fit().line.norms) > 1
    assert max(fit(clip_norm=0.5).line.norms) <= 0.5 + 1e-5


def test_weight_decay_makes_weights_smaller(fit: Fit) -> None:
    """More decay, smaller numbers in the end."""
    sizes = [
        float(fit(optimizer="adamw", weight_decay=decay, epochs=40).parameters.norm())
        for decay in (0.0, 0.5, 1.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.95 * sizes[0]


def test_a_run_has_its_epochs(fit: Fit) -> None:
    """Steps follow from epochs, also broken ones; every row comes once in an epoch."""
    done = fit(epochs=2.5)
    assert done.run.steps == len(done.line.sizes) == 10
    first = [value for step in range(4) for value in done.line.seen[step]]
    second = [value for step in range(4, 8) for value in done.line.seen[step]]
    assert sorted(first) == sorted(second)
    assert first != second
    assert len(set(first)) == 64


def test_batches_are_the_same_whatever_the_step_one_resumes_at(
    rows: Callable[[int], Rows],
) -> None:
    """A sampler that begins late gives what one that began early gives from there on."""
    from penjing.training.rows import SeededBatches

    count = len(rows(50))
    whole = list(SeededBatches(count, 8, 3, 0, 30))
    assert [len(batch) for batch in whole[:6]] == [8] * 6
    for first in (1, 6, 7, 29):
        assert list(SeededBatches(count, 8, 3, first, 30)) == whole[first:]
    assert list(SeededBatches(count, 8, 4, 0, 30)) != whole


def test_full_memory_gives_pieces_and_the_same_result(fit: Fit, line: Line) -> None:
    """Where a batch does not fit, pieces that fit give the same gradients; said once each."""
    whole = fit()
    with pytest.warns(PenjingWarning, match="batches are computed in 4 pieces"):
        cut = fit(line(memory=5))
    assert max(cut.line.sizes) <= 5
    assert torch.allclose(whole.parameters, cut.parameters, atol=1e-5)
    assert cut.said("the GPU's memory is full: batches are computed in 2 pieces") == 1
    assert cut.said("the GPU's memory is full: batches are computed in 4 pieces") == 1
    assert cut.said("memory") == 2
    assert cut.run.steps * 4 == len(cut.line.sizes)


def test_pieces_serve_held_out_rows_and_the_range_test(fit: Fit, line: Line) -> None:
    """Whatever runs the model keeps within the memory."""
    changes = {"patience": 3, "learning_rate": 0, "rows": 80}
    cut = fit(line(memory=3), **changes)
    assert max(cut.line.sizes) <= 3
    assert torch.allclose(fit(**changes).parameters, cut.parameters, atol=1e-4)


def test_rows_that_do_not_fit_are_refused(fit: Fit, line: Line) -> None:
    """Where not even one row fits, the error says so, and what could help."""
    with pytest.raises(TrainingError, match="does not hold what a single row needs") as info:
        fit(line(memory=0))
    assert "bfloat16" in info.value.hint


def test_an_optimizer_that_does_not_fit_is_an_error(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Adam remembers takes memory, too; the error says what would take less."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.optim.Adam, "step", full)
    with pytest.raises(TrainingError, match=r"(?s)step 1 of .*momentum: 0"):
        fit(optimizer="adam")


def test_momentum_is_a_choice(fit: Fit) -> None:
    """Without, SGD takes other steps, and learns, too."""
    plain, usual = (fit(optimizer="sgd", momentum=m, epochs=40) for m in (0.0, 0.9))
    assert not torch.equal(plain.parameters, usual.parameters)
    wanted = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3])
    assert torch.allclose(plain.parameters, wanted, atol=0.15)


def test_nan_is_got_over_with_a_smaller_rate(fit: Fit, line: Line) -> None:
    """A loss that is NaN at high rates goes back to good numbers, and on to the end."""

    def too_fast(one: Line) -> bool:
        return len(one.sizes) > 40 and one.rates[-1] > 0.02

    with pytest.warns(PenjingWarning, match="the loss is no number: back to step"):
        done = fit(line(breaks=too_fast), epochs=40, schedule="constant")
    assert done.said("the loss is no number: back to step") == 1
    assert done.run.rollbacks == 1
    assert done.line.rates[-1] == pytest.approx(0.015)
    assert max(done.line.seen) == done.run.steps - 1
    wanted = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3])
    assert torch.allclose(done.parameters, wanted, atol=0.1)


def test_weights_that_are_infinite_are_got_over_too(fit: Fit) -> None:
    """Plain gradient descent that explodes comes back with smaller rates."""
    done = fit(optimizer="sgd", learning_rate=10.0, epochs=30)
    assert 1 <= done.run.rollbacks <= 4
    assert bool(torch.isfinite(done.parameters).all())


def test_always_nan_is_an_error(fit: Fit, line: Line) -> None:
    """A loss that is NaN at any rate ends the run, and says what to try."""
    with pytest.raises(TrainingError, match="the loss is no number") as info:
        fit(line(breaks=lambda _: True))
    assert "learning_rate" in info.value.hint
    assert "clip_norm" in info.value.hint


def test_half_precision_is_close(fit: Fit) -> None:
    """bfloat16 works without a GPU and finds nearly the same; other runs are not touched."""
    exact = fit(epochs=20)
    half = fit(epochs=20, precision="bfloat16")
    assert bool(torch.isfinite(half.parameters).all())
    assert not torch.equal(exact.parameters, half.parameters)
    assert torch.allclose(exact.parameters, half.parameters, atol=0.05)
    assert torch.equal(exact.parameters, fit(epochs=20).parameters)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_needs_a_gpu(fit: Fit) -> None:
    """Without one it is refused before any work."""
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        fit(precision="float16")


@pytest.mark.parametrize("fails", [False, True])
def test_settings_of_the_program_are_left_as_they_were(
    fit: Fit, line: Line, *, fails: bool
) -> None:
    """Random state, threads, default type, determinism, tiny numbers: also after an error."""
    from accelerate.state import AcceleratorState

    def tiny() -> bool:
        return bool((torch.full((8,), 1e-39) * 0.5).any())

    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(9)
        before = torch.get_rng_state()
        known = dict(AcceleratorState._shared_state)  # noqa: SLF001  # what others share
        if fails:
            with pytest.raises(TrainingError):
                fit(line(breaks=lambda _: True), precision="bfloat16")
        else:
            with torch.no_grad():
                fit(precision="bfloat16", rows=32)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads
        assert torch.get_default_dtype() == torch.float64
        assert not torch.are_deterministic_algorithms_enabled()
        assert dict(AcceleratorState._shared_state) == known  # noqa: SLF001
        assert torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
    assert tiny()


def test_vanished_averages_are_zero() -> None:
    """No average of gradients is left among numbers that are slow to compute with."""
    from penjing.training.state import SMALLEST_AVERAGE, State

    module = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    held = optimizer.state[module.weight]
    held["exp_avg"][0, 0] = SMALLEST_AVERAGE / 2
    state = State(module, optimizer, lambda step: 1.0 - 0.1 * step)
    state.settle()
    assert float(held["exp_avg"][0, 0]) == 0
    assert float(held["exp_avg"][0, 1]) == pytest.approx(0.1)
    assert math.isclose(float(held["step"]), 1)
