"""How many cores one operation of TensorFlow takes on a CPU. Imports no TensorFlow: it has to come before that."""

import os

from prelabel.engine_base import usable_cores

VARIABLE = "TF_NUM_INTRAOP_THREADS"
"""TensorFlow reads it when it starts; somebody who has set it knows better."""


def operation_threads(cores: int) -> int:
    """Returns the threads of one operation on so many cores: half of them, 1 at least.

    The branches of a step (its views, both sides of a gradient) run at the same time, and TensorFlow gives each of
    them all cores on top. Two branches with half of the cores each wait less for one another: on two cores a step of
    the default takes 45 ms in place of 54; with more cores it was not measured.
    """
    return max(1, cores // 2)


def share_cores() -> None:
    """Says so to a TensorFlow that is not imported yet."""
    os.environ.setdefault(VARIABLE, str(operation_threads(usable_cores())))
