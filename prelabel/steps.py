"""What the client's logic (`prelabel.exchange`) wants done next; the clients carry it out, each in its own way."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prelabel.predictions import PredictionBatch


@dataclass(frozen=True)
class Ask:
    """Make one call. Outcome: the response, or a `Failure`."""

    address: str
    method: Literal["GetModel", "Predict"]
    request: Any
    timeout_s: float


@dataclass(frozen=True)
class Open:
    """Open a stream. No outcome: a failure comes with `Meet` or `Receive`."""

    address: str


@dataclass(frozen=True)
class Send:
    """Send a request on the open stream, without waiting."""

    request: Any


@dataclass(frozen=True)
class Finish:
    """Tell the server that no more requests come on the open stream."""


@dataclass(frozen=True)
class Meet:
    """Wait for the server's initial metadata on the open stream. Outcome: None, or a `Failure`."""

    timeout_s: float


@dataclass(frozen=True)
class Receive:
    """Wait for the next response. Outcome: the response, None where the server has ended the stream, or a `Failure`."""

    timeout_s: float


@dataclass(frozen=True)
class Close:
    """Give up the open stream and what is unanswered on it."""


@dataclass(frozen=True)
class Take:
    """Take the next batch from the caller. Outcome: the images, or `END`."""


@dataclass(frozen=True)
class Give:
    """Give an answer to the caller."""

    batch: PredictionBatch


@dataclass(frozen=True)
class Pause:
    """Wait before the next try."""

    seconds: float


END = object()
"""The caller has no more batches."""

Step = Ask | Open | Send | Finish | Meet | Receive | Close | Take | Give | Pause

ResultT = TypeVar("ResultT")
Steps = Generator[Step, Any, ResultT]
