"""How many steps fit into `--minutes`."""

TIMED_STEPS = (20, 80)
"""Steps from the start between which the speed is measured first: after compiling, before the first evaluation."""
USED = 0.95
"""Share of the time that is left which steps may fill: the end takes some, too."""


class Budget:
    """Fits steps into a time by the speed of those taken, evaluations and checkpoints among them.

    Times are seconds of `time.monotonic`.
    """

    def __init__(self, minutes: float, started: float, done: int, now: float) -> None:
        """`started` is when the time began, `done` how many steps are taken already."""
        self._end = started + 60.0 * minutes
        self._first = done
        self._timed_from = (done, now)

    def steps(self, done: int, total: int, evaluated: bool, now: float) -> int:
        """Returns the steps in all, to be asked before each step; at least one is left, where time is over, too.

        Args:
            done: Steps that are taken.
            total: What was returned last, or the preset's steps: returned where there is nothing new.
            evaluated: There was an evaluation after the last step.
            now: The time.
        """
        here = done - self._first  # a run that goes on compiles anew
        if here == TIMED_STEPS[0]:
            self._timed_from = (done, now)
        elif here == TIMED_STEPS[1]:
            # Of a new run as many as the timed ones at least: less is no training, and the time was too short for it.
            return self._fit(done, now, 1 if self._first else TIMED_STEPS[1])
        elif evaluated and here > TIMED_STEPS[1]:
            return self._fit(done, now, 1)
        return total

    def _fit(self, done: int, now: float, least: int) -> int:
        step, since = self._timed_from
        step_s = max((now - since) / (done - step), 1e-9)
        self._timed_from = (done, now)
        return done + max(least, int(USED * (self._end - now) / step_s))
