import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.budget import TIMED_STEPS, Budget


def run(minutes: float, first_s: float, step_s: float, evaluation_s: float, every: int) -> tuple[int, float]:
    """Takes steps on a clock that is moved by hand; returns how many, and the seconds."""
    now, done, total = 0.0, 0, 10**6
    budget = Budget(minutes, 0.0, 0, 0.0)
    while done < total:
        total = budget.steps(done, total, done > 0 and done % every == 0, now)
        now += step_s + (first_s if done == 0 else 0.0)
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


def test_what_was_trained_before_counts() -> None:
    budget = Budget(10, started=-300.0, done=500, now=0.0)
    assert budget.steps(500, 900, evaluated=False, now=0.0) == 900
    assert budget.steps(750, 900, evaluated=True, now=25.0) == 750 + int(0.95 * 275 / 0.1)


def test_over_time_one_step_is_left_to_end_with() -> None:
    budget = Budget(1, started=0.0, done=0, now=0.0)
    assert budget.steps(250, 8000, evaluated=True, now=100.0) == pytest.approx(251)
