"""The learning rate over a training, with and without a limit of time."""

import pytest

from tl_core.ml.schedule import WarmupCosine


def test_it_rises_to_its_peak_and_comes_down_to_nothing() -> None:
    schedule = WarmupCosine(steps=100, warmup_steps=10)
    factors = [schedule(step) for step in range(101)]
    assert factors[:11] == sorted(factors[:11]) and factors[0] == pytest.approx(0.1)
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_without_warm_up_it_begins_at_its_peak() -> None:
    assert WarmupCosine(steps=100, warmup_steps=0)(0) == 1


def test_a_training_that_runs_out_of_time_comes_down_in_time() -> None:
    schedule = WarmupCosine(steps=1_000_000, warmup_steps=10, limit_seconds=60)
    schedule.elapsed_seconds = 30
    assert schedule(50) == pytest.approx(0.5, abs=1e-4)
    schedule.elapsed_seconds = 60
    assert schedule(100) == pytest.approx(0)


def test_a_training_short_of_time_still_reaches_its_peak() -> None:
    schedule = WarmupCosine(steps=1_000, warmup_steps=100, limit_seconds=60)
    peak = 0.0
    for step in range(20):  # all that 60 seconds allow
        schedule.elapsed_seconds = 3.0 * step
        peak = max(peak, schedule(step))
    assert peak > 0.95


def test_a_training_with_time_to_spare_follows_its_steps() -> None:
    unhurried, timed = WarmupCosine(100, 10), WarmupCosine(100, 10, limit_seconds=1e9)
    timed.elapsed_seconds = 5
    assert [timed(step) for step in range(100)] == [unhurried(step) for step in range(100)]
