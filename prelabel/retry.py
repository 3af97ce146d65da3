"""The pauses between tries: exponential backoff with jitter, for a bounded time. Who asks for a pause also makes it."""

import random
import time
from collections.abc import Callable

FIRST_DELAY_S = 0.1
"""A server that restarts behind a load balancer is back this soon."""

MAX_DELAY_S = 5.0
"""Rare enough for a server under load, soon enough for a person who waits."""


def delay_after(failures: int, random_part: float = 1.0) -> float:
    """Returns the pause in seconds after so many failures in a row (at least 1); it doubles up to `MAX_DELAY_S`."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 32)) * random_part


class Backoff:
    """The pauses of one operation; its time starts with the first failure.

    `clock` (seconds, monotonic) and `uniform` (0..1) can be replaced in tests.
    """

    def __init__(
        self,
        retry_for_s: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._retry_for_s = retry_for_s
        self._clock, self._uniform = clock, uniform
        self.failures = 0
        self._started_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first failure."""
        return 0.0 if self._started_s is None else self._clock() - self._started_s

    def next_pause_s(self, at_least_s: float = 0.0) -> float | None:
        """Counts a failure and returns the pause before the next try; None when the time is used up.

        `at_least_s` is what the other side asked for; it gets a random part on top, too.
        """
        self._started_s = self._clock() if self._started_s is None else self._started_s
        self.failures += 1
        left_s = self._retry_for_s - self.elapsed_s
        if left_s <= 0:
            return None
        # Half of the delay is random, so that clients which failed together do not come back together.
        random_part = 0.5 + 0.5 * self._uniform()
        return min(max(delay_after(self.failures, random_part), at_least_s * (0.5 + random_part)), left_s)

    def succeeded(self) -> None:
        """Starts anew: the next failure has the whole time again."""
        self.failures, self._started_s = 0, None
