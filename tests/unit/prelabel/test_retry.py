import pytest

from prelabel.retry import FIRST_DELAY_S, MAX_DELAY_S, Backoff


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s


def test_delays_double_up_to_the_longest() -> None:
    time = Time()
    backoff = Backoff(60, time.sleep, time.clock, uniform=lambda: 1.0)
    assert all(backoff.wait() for _ in range(9))
    doubled = [FIRST_DELAY_S * 2**i for i in range(6)]
    assert time.sleeps == pytest.approx([*doubled, MAX_DELAY_S, MAX_DELAY_S, MAX_DELAY_S])


def test_half_of_a_delay_is_random() -> None:
    time = Time()
    Backoff(60, time.sleep, time.clock, uniform=lambda: 0.0).wait()
    Backoff(60, time.sleep, time.clock, uniform=lambda: 0.5).wait()
    assert time.sleeps == pytest.approx([FIRST_DELAY_S * 0.5, FIRST_DELAY_S * 0.75])


def test_the_whole_time_is_used_and_not_more() -> None:
    time = Time()
    backoff = Backoff(12, time.sleep, time.clock, uniform=lambda: 1.0)
    while backoff.wait():
        pass
    assert sum(time.sleeps) == pytest.approx(12)
    assert backoff.elapsed_s == pytest.approx(12)
    assert backoff.failures == len(time.sleeps) + 1


def test_no_time_means_no_retry() -> None:
    time = Time()
    assert not Backoff(0, time.sleep, time.clock).wait()
    assert time.sleeps == []


def test_the_time_between_failures_counts_and_success_starts_anew() -> None:
    time = Time()
    backoff = Backoff(10, time.sleep, time.clock, uniform=lambda: 1.0)
    assert backoff.wait()
    time.now_s += 20
    assert not backoff.wait()
    backoff.succeeded()
    assert backoff.elapsed_s == 0
    assert backoff.wait()
    assert time.sleeps == pytest.approx([FIRST_DELAY_S, FIRST_DELAY_S])


@pytest.mark.parametrize(("uniform", "slept"), [(0.0, 7.0), (1.0, 10.5)])
def test_what_the_other_side_asks_for_is_the_least_and_spread(uniform: float, slept: float) -> None:
    time = Time()
    backoff = Backoff(60, time.sleep, time.clock, uniform=lambda: uniform)
    assert backoff.wait(7.0)
    assert backoff.wait(0.001)
    assert time.sleeps == pytest.approx([slept, 2 * FIRST_DELAY_S * (0.5 + 0.5 * uniform)])
    assert backoff.wait(1000.0)
    assert sum(time.sleeps) == pytest.approx(60)
