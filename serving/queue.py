"""What waits for the engine: accepted requests by priority and arrival, bounded, cut into batches of rows.

People go before piles, within limits that keep either from shutting the other out: bulk requests keep `BULK_SHARE` of
the batches while they wait, and cannot fill the last part of the queue.

Nothing here runs or waits; `serving.batcher` does.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prelabel.errors import InputError, OverloadedError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, Priority
from serving.observer import BatchRun

BULK_SHARE = 0.25
"""Share of the batches that bulk requests get while people keep the server busy."""
BULK_FILL = 0.875
"""Share of the queue that bulk requests may fill; the rest is left for people."""


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
    priority: Priority = "interactive"
    taken: int = 0
    """Rows that went into batches."""
    parts: dict[int, PredictionBatch] = field(default_factory=dict)
    """First row -> answers that came back, where the request was split."""
    runs: list[BatchRun] = field(default_factory=list)
    """The batches that its rows are part of."""

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


@dataclass(frozen=True)
class QueueState:
    """What is in the queue, of one priority."""

    waiting_images: int
    """Rows that are in no batch yet, and images that are no rows yet."""
    unanswered_images: int
    """Accepted and not yet answered."""
    unanswered_bytes: int
    oldest_arrived_at_s: float | None
    """Time of the event loop since which the oldest of them have waited; None: none waits."""


@dataclass(frozen=True, eq=False)
class Held:
    """Places that images take which are not rows yet."""

    images: int
    size_bytes: int
    priority: Priority
    since_s: float
    """Time of the event loop."""


class RequestQueue:
    """Accepted requests. The limits count rows and bytes that are accepted and not yet answered, running ones too."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images, self._max_bytes = max_images, max_bytes
        self._classes: dict[Priority, _Class] = {"interactive": _Class(), "bulk": _Class()}
        self._bulk_due = 0.0
        """Batches that bulk requests are due; the next is theirs from 1 on."""

    @property
    def waiting_images(self) -> int:
        """Rows that are in no batch yet."""
        return sum(one.waiting_images for one in self._classes.values())

    @property
    def unanswered_images(self) -> int:
        """Accepted and not yet answered."""
        return sum(one.unanswered[0] for one in self._classes.values())

    @property
    def oldest_arrived_at_s(self) -> float:
        """When the oldest waiting request arrived; the queue must not be empty."""
        return min(next(iter(one.waiting)).arrived_at_s for one in self._classes.values() if one.waiting)

    def state(self) -> dict[Priority, QueueState]:
        """Describes the queue; any thread may ask. Each number is right, two of them may be of different moments."""
        return {priority: one.state() for priority, one in self._classes.items()}

    def add(self, request: Request) -> None:
        """Accepts a request.

        Raises:
            InputError: It would exceed a limit of the empty queue.
            OverloadedError: It would exceed a limit now.
        """
        self._check(len(request.images), request.images.nbytes, request.priority)
        self._classes[request.priority].add(request)

    def hold(self, held: Held) -> None:
        """Counts images that are no pixels yet, until `release`; raises what `add` does."""
        self._check(held.images, held.size_bytes, held.priority)
        self._classes[held.priority].hold(held)

    def release(self, held: Held) -> None:
        """Gives the places back that `hold` took."""
        self._classes[held.priority].release(held)

    def _check(self, more_images: int, more_bytes: int, priority: Priority) -> None:
        if _exceeds(more_images, more_bytes, self._max_images, self._max_bytes):
            raise InputError(
                f"a request of {more_images} images, {more_bytes} bytes never fits the server's queue (limits "
                f"{self._max_images} images, {self._max_bytes} bytes): send smaller requests"
            )
        own_images, own_bytes = self._classes[priority].unanswered
        images, size_bytes = (
            sum(values) for values in zip(*(c.unanswered for c in self._classes.values()), strict=True)
        )
        too_much = _exceeds(images + more_images, size_bytes + more_bytes, self._max_images, self._max_bytes)
        # A bulk request that is alone in its class may take more: it would never be accepted otherwise.
        if priority == "bulk" and own_images:
            limits = BULK_FILL * self._max_images, BULK_FILL * self._max_bytes
            too_much = too_much or _exceeds(own_images + more_images, own_bytes + more_bytes, *limits)
        if too_much:
            raise OverloadedError(
                f"the server's queue is full ({images} images, {size_bytes} bytes unanswered; limits "
                f"{self._max_images} images, {self._max_bytes} bytes): try again later, or send fewer requests at once"
            )

    def remove(self, request: Request) -> None:
        """Lets an accepted request go: answered, failed or cancelled."""
        self._classes[request.priority].remove(request)

    def take(self, max_rows: int, now_s: float) -> list[Slice]:
        """Takes the next batch of up to `max_rows` rows of one priority: interactive ones, unless bulk ones are due.

        A person's few rows are not joined by bulk ones: the batch would take as long as a full one. Of the batches that
        are formed while both wait, bulk requests get `BULK_SHARE`. Within a priority in order of arrival; a request may
        be split over batches. Requests whose caller has left or whose deadline has passed are dropped here, the last
        moment before the engine.
        """
        interactive, bulk = self._classes["interactive"], self._classes["bulk"]
        if interactive.waiting and bulk.waiting:
            self._bulk_due += BULK_SHARE
        else:
            self._bulk_due = 0.0
        if self._bulk_due < 1.0 and (batch := interactive.take(max_rows, now_s)):
            return batch
        batch = bulk.take(max_rows, now_s)
        self._bulk_due = 0.0
        if not batch:
            batch = interactive.take(max_rows, now_s)
        return batch


class _Class:
    """The requests of one priority."""

    def __init__(self) -> None:
        self.unanswered = (0, 0)
        """Images and bytes, accepted and not yet answered."""
        # In order of arrival; a request that ends, however it ends, can leave from the middle.
        self.waiting: OrderedDict[Request, None] = OrderedDict()
        self.waiting_images = 0
        # In order of arrival, too.
        self.held: OrderedDict[Held, None] = OrderedDict()

    def state(self) -> QueueState:
        # Copied in one step of the interpreter: another thread must not iterate over what the event loop changes.
        waiting, held = tuple(self.waiting), tuple(self.held)
        since_s = [request.arrived_at_s for request in waiting[:1]] + [one.since_s for one in held[:1]]
        images = self.waiting_images + sum(one.images for one in held)
        return QueueState(images, *self.unanswered, min(since_s, default=None))

    def hold(self, held: Held) -> None:
        self.count(held.images, held.size_bytes)
        self.held[held] = None

    def release(self, held: Held) -> None:
        self.count(-held.images, -held.size_bytes)
        del self.held[held]

    def count(self, images: int, size_bytes: int) -> None:
        self.unanswered = self.unanswered[0] + images, self.unanswered[1] + size_bytes

    def add(self, request: Request) -> None:
        self.count(len(request.images), request.images.nbytes)
        self.waiting[request] = None
        self.waiting_images += len(request.images)

    def remove(self, request: Request) -> None:
        self.count(-len(request.images), -request.images.nbytes)
        self._leave(request)

    def take(self, max_rows: int, now_s: float) -> list[Slice]:
        batch: list[Slice] = []
        rows = 0
        while self.waiting and rows < max_rows:
            request = next(iter(self.waiting))
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
        if request in self.waiting:
            del self.waiting[request]
            self.waiting_images -= request.untaken


def _exceeds(images: int, size_bytes: int, max_images: float, max_bytes: float) -> bool:
    return images > max_images or size_bytes > max_bytes


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
