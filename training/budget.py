"""How many steps fit into `--minutes`."""

TIMED_STEPS = (20, 80)
"""Steps between which the speed is measured: after compiling, before the first evaluation."""


def fitting_steps(minutes: float, started: float, timed_from: float, now: float) -> int:
    """Fits a run that has taken its timed steps into `minutes`; the times are monotonic seconds.

    Returns the steps that are left to take, as many as the timed ones at least: less is no training, and the budget was
    too small for it. A twentieth of the time is for evaluations and checkpoints.
    """
    step_s = (now - timed_from) / (TIMED_STEPS[1] - TIMED_STEPS[0])
    left_s = 0.95 * (60.0 * minutes - (now - started))
    return max(TIMED_STEPS[1], int(left_s / step_s))
