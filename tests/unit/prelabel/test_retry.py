import pytest

from prelabel.retry import FIRST_DELAY_S, MAX_DELAY_S, Backoff


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.sleeps: list[float] = []

    def wait(self, backoff: Backoff, at_least_s: float = 0.0) -> bool:
        """Does what the backoff says; returns False where it says that no try is left."""
        if (pause_s := backoff.next_pause_s(at_least_s)) is None:
            return False
        self.sleeps.append(pause_s)
        self.now_s += pause_s
        return True

    def clock(self) -> float:
        return self.now_s


def test_delays_double_up_to_the_longest() -> None:
    time = Time()
    backoff = Backoff(60, time.clock, uniform=lambda: 1.0)
    assert all(time.wait(backoff) for _ in range(9))
    doubled = [FIRST_DELAY_S * 2**i for i in range(6)]
    assert time.sleeps == pytest.approx([*doubled, MAX_DELAY_S, MAX_DELAY_S, MAX_DELAY_S])


def test_half_of_a_delay_is_random() -> None:
    time = Time()
    time.wait(Backoff(60, time.clock, uniform=lambda: 0.0))
    time.wait(Backoff(60, time.clock, uniform=lambda: 0.5))
    assert time.sleeps == pytest.approx([FIRST_DELAY_S * 0.5, FIRST_DELAY_S * 0.75])


def test_the_whole_time_is_used_and_not_more() -> None:
    time = Time()
    backoff = Backoff(12, time.clock, uniform=lambda: 1.0)
    while time.wait(backoff):
        pass
    assert sum(time.sleeps) == pytest.approx(12)
    assert backoff.elapsed_s == pytest.approx(12)
    assert backoff.failures == len(time.sleeps) + 1


def test_no_time_means_no_retry() -> None:
    time = Time()
    assert not time.wait(Backoff(0, time.clock))
    assert time.sleeps == []


def test_the_time_between_failures_counts_and_success_starts_anew() -> None:
    time = Time()
    backoff = Backoff(10, time.clock, uniform=lambda: 1.0)
    assert time.wait(backoff)
    time.now_s += 20
    assert not time.wait(backoff)
    backoff.succeeded()
    assert backoff.elapsed_s == 0
    assert time.wait(backoff)
    assert time.sleeps == pytest.approx([FIRST_DELAY_S, FIRST_DELAY_S])


@pytest.mark.parametrize(("uniform", "slept"), [(0.0, 7.0), (1.0, 10.5)])
def test_what_the_other_side_asks_for_is_the_least_and_spread(uniform: float, slept: float) -> None:
    time = Time()
    backoff = Backoff(60, time.clock, uniform=lambda: uniform)
    assert time.wait(backoff, 7.0)
    assert time.wait(backoff, 0.001)
    assert time.sleeps == pytest.approx([slept, 2 * FIRST_DELAY_S * (0.5 + 0.5 * uniform)])
    assert time.wait(backoff, 1000.0)
    assert sum(time.sleeps) == pytest.approx(60)
