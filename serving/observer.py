"""What the batcher tells about its work; it knows nothing of metrics, traces or logs."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from prelabel.predictions import Priority

AnswerT = TypeVar("AnswerT")


@dataclass(eq=False)
class BatchRun:
    """One batch on its way through the engine.

    Times are those of `time.monotonic`. The event loop's clock is the same but may stand still for a millisecond, in
    which an engine runs ten batches.
    """

    model_id: str
    """The model that runs it."""
    images: int
    """Rows of the batch."""
    formed_at_s: float
    """When its rows left the queue."""
    started_at_s: float = math.inf
    """When a thread began to infer it; infinite before."""
    ended_at_s: float = math.inf
    """When the engine was done with it, or failed; infinite before."""

    def measure(self, infer: Callable[[], AnswerT]) -> AnswerT:
        """Runs the inference, in the thread that does it, and notes when it began and ended."""
        self.started_at_s = time.monotonic()
        try:
            return infer()
        finally:
            self.ended_at_s = time.monotonic()


class BatchObserver(Protocol):
    """Is told what the batcher does, in the event loop: must be quick and must not raise."""

    def batch_ran(self, run: BatchRun) -> None:
        """The engine is done with a batch, or failed on it."""

    def request_left(self, arrived_at_s: float, priority: Priority, runs: Sequence[BatchRun]) -> None:
        """A request has ended, however it ended; `runs` are the batches that its rows were part of.

        It arrived at `arrived_at_s` of `time.monotonic`.

        Called in the task that asked for the prediction, so context variables are the caller's.
        """


class Unobserved:
    """Nobody looks."""

    def batch_ran(self, run: BatchRun) -> None:
        """Nothing."""

    def request_left(self, arrived_at_s: float, priority: Priority, runs: Sequence[BatchRun]) -> None:
        """Nothing."""
