import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.budget import TIMED_STEPS, Budget


def run(
    minutes: float, first_s: float, step_s: float, evaluation_s: float, every: int, begin: int = 0, spent_s: float = 0.0
) -> tuple[int, float]:
    """Takes steps on a clock that is moved by hand; returns how many, and the seconds of the whole run.

    It goes on after `begin` steps, which took `spent_s`, and compiles in `first_s`.
    """
    now, done, total = spent_s, begin, 10**6
    budget = Budget(minutes, 0.0, begin, now)
    while done < total:
        total = budget.steps(done, total, done > begin and done % every == 0, now)
        now += step_s + (first_s if done == begin else 0.0)
        done += 1
        if done % every == 0 or done == total:
            now += evaluation_s
    return done, now


@given(st.floats(1, 30), st.floats(0, 20), st.floats(0.005, 0.2), st.floats(0, 3), st.sampled_from([100, 250, 1000]))
def test_a_run_takes_about_its_time_however_long_evaluations_are(
    minutes: float, first_s: float, step_s: float, evaluation_s: float, every: int
) -> None:
    _, seconds = run(minutes, first_s, step_s, evaluation_s, every)
    # The first interval with an evaluation in it is planned without one; the last one may be late.
    assert seconds <= max(60 * minutes, first_s + every * step_s + 2 * TIMED_STEPS[1] * step_s) + 3 * evaluation_s
    assert seconds >= 0.9 * 60 * minutes - every * step_s - 3 * evaluation_s


def test_a_budget_that_is_too_short_gives_some_training() -> None:
    assert run(0.1, 30.0, 0.1, 1.0, 250)[0] == 2 * TIMED_STEPS[1]


@given(st.integers(100, 4000), st.floats(0, 60), st.sampled_from([100, 250, 1000]))
def test_a_run_that_goes_on_fills_the_rest_of_its_time_however_long_it_compiles(
    begin: int, first_s: float, every: int
) -> None:
    steps, seconds = run(10, first_s, 0.05, 0.0, every, begin, spent_s=0.05 * begin)
    assert 0.94 * 600 <= seconds <= 601
    assert steps == pytest.approx(begin + (600 - first_s - 0.05 * begin) / 0.05, rel=0.06)


def test_compiling_again_is_no_reason_to_end_earlier() -> None:
    """As it was planned before, and once the steps after compiling are timed."""
    budget = Budget(10, started=-300.0, done=500, now=0.0)
    assert budget.steps(500, 900, evaluated=False, now=0.0) == 900
    assert budget.steps(520, 900, evaluated=True, now=62.0) == 900
    assert budget.steps(580, 900, evaluated=False, now=68.0) == 580 + int(0.95 * 232 / 0.1)


def test_where_the_time_is_over_already_one_step_is_left() -> None:
    budget = Budget(1, started=-100.0, done=500, now=0.0)
    assert budget.steps(520, 900, evaluated=False, now=2.0) == 900
    assert budget.steps(580, 900, evaluated=False, now=8.0) == 581


def test_over_time_one_step_is_left_to_end_with() -> None:
    budget = Budget(1, started=0.0, done=0, now=0.0)
    assert budget.steps(250, 8000, evaluated=True, now=100.0) == pytest.approx(251)
