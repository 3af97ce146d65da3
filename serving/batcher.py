"""Requests that arrive together are inferred together: big ones are split, small ones joined.

The event loop's thread owns the queue and forms the batches; `instances` threads run them. A batch closes only when a
thread is free to run it, so under load batches fill up by themselves, and `max_queue_delay_ms` matters only where there
is little to do.
"""

import asyncio
import contextlib
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from prelabel.engine import Engine
from prelabel.errors import InputError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, Priority
from serving.observer import BatchObserver, BatchRun, Unobserved
from serving.queue import Held, QueueState, Request, RequestQueue, Slice, split
from serving.workers import Workers

COMPANY_DELAYS = 50
"""A request that comes alone waits for company only if there was some within so many times `max_queue_delay_ms`."""


@dataclass(frozen=True)
class BatchLimits:
    """How requests are joined and how much may wait."""

    max_batch_size: int
    """Most rows of one inference."""
    preferred_batch_size: int
    """Rows for which a free thread waits no longer: the engine gains little by more."""
    max_queue_delay_ms: float
    """How long a request waits for company while a thread is free."""
    max_queue_images: int
    """Most images that are accepted and unanswered."""
    max_queue_bytes: int
    """Most bytes of pixels that are accepted and unanswered."""
    instances: int
    """Inferences that run at the same time."""

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "preferred_batch_size", "max_queue_images", "max_queue_bytes", "instances"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: at least 1 wanted")
        if not (math.isfinite(self.max_queue_delay_ms) and self.max_queue_delay_ms >= 0):
            raise InputError(f"max_queue_delay_ms is {self.max_queue_delay_ms}: 0 or more wanted")


@dataclass(frozen=True)
class _Batch:
    """Rows that go through the engine together."""

    slices: list[Slice]
    run: BatchRun


class Batcher:
    """Puts requests into batches, runs them on an engine, and gives each caller its own rows back.

    Must be made, used and closed in one running event loop.
    """

    def __init__(self, engine: Engine, limits: BatchLimits, observer: BatchObserver | None = None) -> None:
        self._engine, self._limits = engine, limits
        self._enough = min(limits.preferred_batch_size, limits.max_batch_size)
        self._observer = observer or Unobserved()
        self._queue = RequestQueue(limits.max_queue_images, limits.max_queue_bytes)
        self._loop = asyncio.get_running_loop()
        self._workers = Workers(limits.instances, self._infer, self._deliver, "inference")
        self._hurrying = False
        self._closing = asyncio.Event()
        """Set once new requests are refused."""
        self._settled = asyncio.Event()
        """Set once a closing batcher has nothing left to do."""
        self._company_at_s = self._loop.time()
        """When a request last found another one that was not answered yet."""
        self._soon = False
        """Whether batches will be formed in the loop's next turn: until then, requests that arrive join."""
        self._timer: asyncio.TimerHandle | None = None
        """Forms batches when the oldest request has waited long enough."""
        self._lately = (0.0, 0.0)
        """Rows that one instance did and the seconds that it took, of about the last ten batches."""

    async def predict(
        self, images: Pixels, timeout_s: float | None = None, priority: Priority = "interactive"
    ) -> PredictionBatch:
        """Infers uint8 [B, H, W, C], 0..255, B >= 1, of exactly the model's H, W and C.

        Cancelling the call takes the request out of the queue.

        Args:
            images: The images.
            timeout_s: After so many seconds the request is dropped unless it runs already.
            priority: Who waits: a person, or a program that works through a pile.

        Raises:
            InputError: The request is larger than the whole queue.
            OverloadedError: The queue is full.
            RemoteError: The engine failed on a batch with rows of this request.
            ServerUnavailableError: The batcher is closed.
            TimeoutError: `timeout_s` passed while the request waited.
        """
        arrived_at_s, now_s = time.monotonic(), self._loop.time()
        expires_at_s = math.inf if timeout_s is None else now_s + timeout_s
        request = Request(images, self._loop.create_future(), now_s, expires_at_s, priority)
        if self._queue.unanswered_images:
            self._company_at_s = now_s
        self._accept(partial(self._queue.add, request))
        self._form_soon()
        try:
            return await request.answer
        finally:
            self._queue.remove(request)
            self._observer.request_left(arrived_at_s, request.priority, request.runs)
            if self._closing.is_set():
                self._form_soon()
            # What failed knows this frame, and the request what failed: a circle that would keep its images.
            del request

    @contextlib.contextmanager
    def hold(self, images: int, size_bytes: int, priority: Priority) -> Iterator[None]:
        """Counts images as unanswered that are not ready for `predict`, in a block before it.

        Where `predict` is called in the same step of the event loop in which the block ends, and with no more than was
        held, nobody takes the places in between.

        Raises:
            InputError, OverloadedError, ServerUnavailableError: See `predict`.
        """
        held = Held(images, size_bytes, priority, self._loop.time())
        self._accept(partial(self._queue.hold, held))
        try:
            yield
        finally:
            self._queue.release(held)

    def _accept(self, enter: Callable[[], None]) -> None:
        if self._closing.is_set():
            raise ServerUnavailableError("the server is stopping: try again, or use another one")
        try:
            enter()
        except OverloadedError as error:
            error.retry_after_s = self._until_half_empty_s()
            raise

    @property
    def limits(self) -> BatchLimits:
        """How requests are joined and how much may wait."""
        return self._limits

    def queue_state(self) -> Mapping[Priority, QueueState]:
        """Describes the queue by priority; any thread may ask."""
        return self._queue.state()

    def _until_half_empty_s(self) -> float | None:
        """How long the queue takes to be half empty: a client that came back at once would be refused again."""
        rows, seconds = self._lately
        return 0.5 * self._queue.unanswered_images * seconds / (rows * self._limits.instances) if rows else None

    def hurry(self) -> None:
        """Stops waiting for company: a server that stops gets no more of it."""
        self._hurrying = True
        self._form_soon()

    async def close(self) -> None:
        """Takes no new requests, returns when every accepted one is answered, and lets go of the engine."""
        self._closing.set()
        self.hurry()
        await self._settled.wait()
        await self._workers.close()
        # The workers know this batcher: a circle, in which the model that was loaded first would stay for ever, out of
        # the garbage collector's sight (`serving.process.spare_the_collector`).
        del self._workers, self._engine

    def _form_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._form_batches)

    def _form_batches(self) -> None:
        """Gives the free threads what is due: enough rows, rows without company, or rows that waited long enough."""
        self._soon = False
        if self._settled.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._workers.free and (rows := self._queue.waiting_images):
            now_s = self._loop.time()
            delay_s = self._limits.max_queue_delay_ms / 1000
            due_at_s = self._queue.oldest_arrived_at_s + delay_s
            worth_it = rows < self._enough and now_s - self._company_at_s <= COMPANY_DELAYS * delay_s
            if worth_it and not self._hurrying and now_s < due_at_s:
                self._timer = self._loop.call_at(due_at_s, self._form_batches)
                break
            # Nothing is left where the deadlines of all have passed.
            if slices := self._queue.take(self._limits.max_batch_size, now_s):
                size = sum(piece.stop - piece.start for piece in slices)
                run = BatchRun(self._engine.bundle.model_id, size, time.monotonic())
                for piece in slices:
                    piece.request.runs.append(run)
                self._workers.give(_Batch(slices, run))
        if self._closing.is_set() and not self._queue.waiting_images and self._workers.free == self._limits.instances:
            self._settled.set()

    def _infer(self, batch: _Batch) -> list[PredictionBatch]:
        """Runs in a thread: one inference over all slices, and their answers in their order."""
        return batch.run.measure(lambda: self._answers(batch.slices))

    def _answers(self, slices: list[Slice]) -> list[PredictionBatch]:
        lengths = [piece.stop - piece.start for piece in slices]
        images = slices[0].images if len(slices) == 1 else np.concatenate([piece.images for piece in slices])
        answer = self._engine.predict(images)
        if len(answer) != sum(lengths) or len(answer.probabilities) != sum(lengths):
            raise RemoteError(f"the engine answered {len(answer)} rows for {sum(lengths)} images")
        return split(answer, lengths)

    def _deliver(self, batch: _Batch, result: list[PredictionBatch] | Exception) -> None:
        """Gives the callers their rows; whatever an engine raises concerns the requests of its batch and no other."""
        self._observer.batch_ran(batch.run)
        if isinstance(result, Exception):
            # The same of the frames in the thread, which hold the engine and the whole batch; where it failed, stays.
            traceback.clear_frames(result.__traceback__)
            for piece in batch.slices:
                failure = RemoteError(f"inference failed: {type(result).__name__}")
                failure.__cause__ = result
                piece.request.fail(failure)
        else:
            rows, seconds = self._lately
            took_s = time.monotonic() - batch.run.formed_at_s
            self._lately = 0.9 * rows + batch.run.images, 0.9 * seconds + took_s
            for piece, part in zip(batch.slices, result, strict=True):
                piece.request.receive(piece.start, part)
        self._form_soon()
