import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError, OverloadedError
from serving.rates import MAX_CALLERS, Rate, RateLimiter, caller_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def passes(limiter: RateLimiter, caller: str, images: int) -> float | None:
    """Seconds until the images would pass; None: they have passed."""
    try:
        limiter.take(caller, images)
    except OverloadedError as error:
        return error.retry_after_s
    return None


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(10.0, 100), clock)
    assert passes(limiter, "a", 60) is None
    assert passes(limiter, "a", 40) is None
    assert passes(limiter, "a", 50) == pytest.approx(5.0)
    assert passes(limiter, "b", 100) is None
    clock.now_s += 4.9
    assert passes(limiter, "a", 50) == pytest.approx(0.1)
    clock.now_s += 0.1
    assert passes(limiter, "a", 50) is None
    clock.now_s += 1e6
    assert passes(limiter, "a", 100) is None
    assert passes(limiter, "a", 1) == pytest.approx(0.1)


def test_a_message_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_for_later() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(10.0, 100), clock)
    assert passes(limiter, "a", 300) is None
    assert passes(limiter, "a", 300) == pytest.approx(30.0)
    clock.now_s += 30.0
    assert passes(limiter, "a", 300) is None


def test_messages_without_images_are_free() -> None:
    limiter = RateLimiter(Rate(1.0, 1), Clock())
    assert passes(limiter, "a", 1) is None
    assert passes(limiter, "a", 0) is None


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(1, 250)), min_size=1, max_size=60),
    st.floats(0.1, 1000),
    st.integers(1, 200),
)
def test_no_schedule_gets_more_than_the_rate_and_coming_back_when_told_is_enough(
    steps: list[tuple[float, int]], rate: float, burst: int
) -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(rate, burst), clock)
    passed = last = 0
    for pause_s, images in steps:
        clock.now_s += pause_s
        if (after_s := passes(limiter, "a", images)) is not None:
            clock.now_s += after_s
            assert passes(limiter, "a", images) is None
        passed, last = passed + images, images
        # The last message may be larger than the bucket; everything before it was paid for.
        assert passed - last <= burst + rate * (clock.now_s - 1000.0) * (1 + 1e-6) + 1e-3


def test_the_buckets_are_bounded_and_the_oldest_goes_first() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(1.0, 10), clock)
    assert passes(limiter, "kept", 10) is None
    for number in range(2 * MAX_CALLERS):
        limiter.take(f"caller {number}", 1)
        if number % 100 == 0:
            assert passes(limiter, "kept", 10) is not None
            limiter.take("kept", 0)
    assert len(limiter) == MAX_CALLERS
    assert passes(limiter, "kept", 10) is not None


def test_no_limit_keeps_no_buckets() -> None:
    limiter = RateLimiter(Rate(float("inf"), 10), Clock())
    assert passes(limiter, "a", 10**9) is None
    assert len(limiter) == 0


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)])
def test_rates_that_make_no_sense_are_refused(rate: float, burst: int) -> None:
    with pytest.raises(InputError, match="rate limit"):
        Rate(rate, burst)


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:10.1.2.3:5678", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5678", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:ffff::1]:80", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:5678", "10.1.2.3"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5678", "fe80::/64"),
        ("unix:/run/prelabel.sock", "unix"),
    ],
)
def test_callers_are_told_apart_by_address_and_not_by_port(peer: str, caller: str) -> None:
    assert caller_of(peer) == caller
