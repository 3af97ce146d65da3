"""What waits for the engine: accepted requests in order of arrival, bounded, cut into batches of rows.

Nothing here runs or waits; `serving.batcher` does.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prelabel.errors import OverloadedError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch


@dataclass(eq=False)
class Request:
    """One caller's images on their way through the batcher."""

    images: Pixels
    """uint8 [B, H, W, C], B >= 1."""
    answer: asyncio.Future[PredictionBatch]
    """Done with B rows, or with an error; cancelled where the caller has left."""
    arrived_at_s: float
    """Time of the event loop."""
    expires_at_s: float
    """Time of the event loop after which nobody waits for the answer."""
    taken: int = 0
    """Rows that went into batches."""
    parts: dict[int, PredictionBatch] = field(default_factory=dict)
    """First row -> answers that came back, where the request was split."""

    @property
    def untaken(self) -> int:
        """Rows still to be put into a batch."""
        return len(self.images) - self.taken

    def receive(self, start: int, part: PredictionBatch) -> None:
        """Keeps the answers of the rows from `start` on; the last part completes the request."""
        if self.answer.done():
            return
        self.parts[start] = part
        if sum(len(rows) for rows in self.parts.values()) == len(self.images):
            self.answer.set_result(_join([self.parts[row] for row in sorted(self.parts)]))

    def fail(self, error: Exception) -> None:
        """Ends the request with an error; its remaining rows are not inferred."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True)
class Slice:
    """The rows of one request that are part of one batch."""

    request: Request
    start: int
    stop: int

    @property
    def images(self) -> Pixels:
        """uint8 [stop - start, H, W, C]: a view, not a copy."""
        return self.request.images[self.start : self.stop]


class RequestQueue:
    """Accepted requests. The limits count rows and bytes that are accepted and not yet answered, running ones too."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images, self._max_bytes = max_images, max_bytes
        self._images = self._bytes = 0
        # In order of arrival; a request that ends, however it ends, can leave from the middle.
        self._waiting: OrderedDict[Request, None] = OrderedDict()
        self.waiting_images = 0

    @property
    def oldest_arrived_at_s(self) -> float:
        """When the request at the head arrived; the queue must not be empty."""
        return next(iter(self._waiting)).arrived_at_s

    def add(self, request: Request) -> None:
        """Accepts a request.

        Raises:
            OverloadedError: It would exceed a limit.
        """
        images, size_bytes = self._images + len(request.images), self._bytes + request.images.nbytes
        if images > self._max_images or size_bytes > self._max_bytes:
            raise OverloadedError(
                f"the server's queue is full ({self._images} images, {self._bytes} bytes unanswered; limits "
                f"{self._max_images} images, {self._max_bytes} bytes): try again later, or send fewer requests at once"
            )
        self._images, self._bytes = images, size_bytes
        self._waiting[request] = None
        self.waiting_images += len(request.images)

    def remove(self, request: Request) -> None:
        """Lets an accepted request go: answered, failed or cancelled."""
        self._images -= len(request.images)
        self._bytes -= request.images.nbytes
        self._leave(request)

    def take(self, max_rows: int, now_s: float) -> list[Slice]:
        """Takes the next batch: up to `max_rows` rows in order of arrival; a request may be split over batches.

        Requests whose caller has left or whose deadline has passed are dropped here, the last moment before the engine.
        """
        batch: list[Slice] = []
        rows = 0
        while self._waiting and rows < max_rows:
            request = next(iter(self._waiting))
            if now_s >= request.expires_at_s:
                request.fail(TimeoutError("the request's deadline passed while it waited"))
            if request.answer.done():
                self._leave(request)
                continue
            count = min(request.untaken, max_rows - rows)
            batch.append(Slice(request, request.taken, request.taken + count))
            request.taken += count
            rows += count
            self.waiting_images -= count
            if not request.untaken:
                self._leave(request)
        return batch

    def _leave(self, request: Request) -> None:
        if request in self._waiting:
            del self._waiting[request]
            self.waiting_images -= request.untaken


def split(batch: PredictionBatch, lengths: Sequence[int]) -> list[PredictionBatch]:
    """Cuts a batch into parts of the given lengths, each with its own rows' errors."""
    parts, start = [], 0
    for length in lengths:
        stop = start + length
        errors = {row - start: message for row, message in batch.errors.items() if start <= row < stop}
        parts.append(
            PredictionBatch(batch.probabilities[start:stop], batch.realness[start:stop], batch.model_id, errors)
        )
        start = stop
    return parts


def _join(parts: list[PredictionBatch]) -> PredictionBatch:
    if len(parts) == 1:
        return parts[0]
    errors: dict[int, str] = {}
    start = 0
    for part in parts:
        errors |= {start + row: message for row, message in part.errors.items()}
        start += len(part)
    return PredictionBatch(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.realness for part in parts]),
        parts[0].model_id,
        errors,
    )
