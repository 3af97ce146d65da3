"""Waiting between tries: exponential backoff with jitter, for a bounded time."""

import random
import time
from collections.abc import Callable

FIRST_DELAY_S = 0.1
"""A server that restarts behind a load balancer is back this soon."""

MAX_DELAY_S = 5.0
"""Rare enough for a server under load, soon enough for a person who waits."""


class Backoff:
    """The pauses of one operation; its time starts with the first failure.

    `sleep`, `clock` (seconds, monotonic) and `uniform` (0..1) can be replaced in tests.
    """

    def __init__(
        self,
        retry_for_s: float,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._retry_for_s = retry_for_s
        self._sleep, self._clock, self._uniform = sleep, clock, uniform
        self.failures = 0
        self._started_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first failure."""
        return 0.0 if self._started_s is None else self._clock() - self._started_s

    def wait(self, at_least_s: float = 0.0) -> bool:
        """Counts a failure and sleeps before the next try; returns False, at once, when the time is used up.

        `at_least_s` is what the other side asked for; it gets a random part on top, too.
        """
        self._started_s = self._clock() if self._started_s is None else self._started_s
        self.failures += 1
        left_s = self._retry_for_s - self.elapsed_s
        if left_s <= 0:
            return False
        # Half of the delay is random, so that clients which failed together do not come back together.
        random_part = 0.5 + 0.5 * self._uniform()
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 1, 32)) * random_part
        self._sleep(min(max(delay_s, at_least_s * (0.5 + random_part)), left_s))
        return True

    def succeeded(self) -> None:
        """Starts anew: the next failure has the whole time again."""
        self.failures, self._started_s = 0, None
