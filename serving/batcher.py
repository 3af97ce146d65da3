"""Requests that arrive together are inferred together: big ones are split, small ones joined.

One task forms the batches; `instances` threads run them. A batch closes only when a thread is free to run it, so under
load batches fill up by themselves, and `max_queue_delay_ms` matters only where there is little to do.
"""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from prelabel.engine import Engine
from prelabel.errors import InputError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, Priority
from serving.observer import BatchObserver, BatchRun, Unobserved
from serving.queue import QueueState, Request, RequestQueue, Slice, split


@dataclass(frozen=True)
class BatchLimits:
    """How requests are joined and how much may wait."""

    max_batch_size: int
    """Most rows of one inference."""
    max_queue_delay_ms: float
    """How long a request waits for company while a thread is free."""
    max_queue_images: int
    """Most images that are accepted and unanswered."""
    max_queue_bytes: int
    """Most bytes of pixels that are accepted and unanswered."""
    instances: int
    """Inferences that run at the same time."""

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_queue_images", "max_queue_bytes", "instances"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: at least 1 wanted")
        if not (math.isfinite(self.max_queue_delay_ms) and self.max_queue_delay_ms >= 0):
            raise InputError(f"max_queue_delay_ms is {self.max_queue_delay_ms}: 0 or more wanted")


class Batcher:
    """Puts requests into batches, runs them on an engine, and gives each caller its own rows back.

    Must be made, used and closed in one running event loop.
    """

    def __init__(self, engine: Engine, limits: BatchLimits, observer: BatchObserver | None = None) -> None:
        self._engine, self._limits = engine, limits
        self._observer = observer or Unobserved()
        # A bundle's id is a hash over its content, made anew at each look.
        self._model_id = engine.bundle.model_id
        self._queue = RequestQueue(limits.max_queue_images, limits.max_queue_bytes)
        self._changed = asyncio.Event()
        self._closing = self._hurrying = False
        self._free = asyncio.Semaphore(limits.instances)
        self._pool = ThreadPoolExecutor(limits.instances, thread_name_prefix="inference")
        self._rows_per_s = 0.0
        """What one instance does, a moving average over about ten batches; 0 before the first."""
        self._running: set[asyncio.Task[None]] = set()
        self._former = asyncio.create_task(self._form_batches())

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
            OverloadedError: The queue is full.
            RemoteError: The engine failed on a batch with rows of this request.
            ServerUnavailableError: The batcher is closed.
            TimeoutError: `timeout_s` passed while the request waited.
        """
        if self._closing or self._former.done():
            raise ServerUnavailableError("the server is stopping: try again, or use another one")
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        expires_at_s = math.inf if timeout_s is None else now_s + timeout_s
        request = Request(images, loop.create_future(), now_s, expires_at_s, priority)
        try:
            self._queue.add(request)
        except OverloadedError as error:
            error.retry_after_s = self._until_half_empty_s()
            raise
        self._changed.set()
        try:
            return await request.answer
        finally:
            self._queue.remove(request)
            self._observer.request_left(request.arrived_at_s, request.priority, request.runs)

    @property
    def limits(self) -> BatchLimits:
        """How requests are joined and how much may wait."""
        return self._limits

    def queue_state(self) -> Mapping[Priority, QueueState]:
        """Describes the queue by priority; any thread may ask."""
        return self._queue.state()

    def _until_half_empty_s(self) -> float | None:
        """How long the queue takes to be half empty: a client that came back at once would be refused again."""
        if not self._rows_per_s:
            return None
        return 0.5 * self._queue.unanswered_images / (self._rows_per_s * self._limits.instances)

    def hurry(self) -> None:
        """Stops waiting for company: a server that stops gets no more of it."""
        self._hurrying = True
        self._changed.set()

    async def close(self) -> None:
        """Takes no new requests and returns when every accepted one is answered."""
        self._closing = True
        self.hurry()
        await self._former
        await asyncio.gather(*self._running)
        self._pool.shutdown()

    async def _form_batches(self) -> None:
        while True:
            await self._free.acquire()
            batch = await self._next_batch()
            if not batch:
                return
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _next_batch(self) -> list[Slice]:
        """Waits for a full batch, or for the oldest request to have waited long enough; empty means closed."""
        loop = asyncio.get_running_loop()
        while True:
            rows = self._queue.waiting_images
            wait_s = None
            if rows:
                wait_s = self._queue.oldest_arrived_at_s + self._limits.max_queue_delay_ms / 1000 - loop.time()
            if rows >= self._limits.max_batch_size or (rows and (self._hurrying or (wait_s or 0) <= 0)):
                if batch := self._queue.take(self._limits.max_batch_size, loop.time()):
                    return batch
            elif self._closing:
                return []
            else:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), wait_s)

    async def _run(self, batch: list[Slice]) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        run = BatchRun(self._model_id, sum(piece.stop - piece.start for piece in batch), started_s)
        for piece in batch:
            piece.request.runs.append(run)
        try:
            answers = await loop.run_in_executor(self._pool, run.measure, lambda: self._infer(batch))
        except Exception as error:  # whatever an engine raises concerns the requests of this batch and no other
            for piece in batch:
                failure = RemoteError(f"inference failed: {type(error).__name__}")
                failure.__cause__ = error
                piece.request.fail(failure)
        else:
            speed = sum(map(len, answers)) / max(loop.time() - started_s, 1e-6)
            self._rows_per_s = 0.9 * self._rows_per_s + 0.1 * speed if self._rows_per_s else speed
            for piece, part in zip(batch, answers, strict=True):
                piece.request.receive(piece.start, part)
        finally:
            self._free.release()
            self._observer.batch_ran(run)

    def _infer(self, batch: list[Slice]) -> list[PredictionBatch]:
        """Runs in a thread of the pool: one inference over all slices, and their answers in their order."""
        lengths = [piece.stop - piece.start for piece in batch]
        images = batch[0].images if len(batch) == 1 else np.concatenate([piece.images for piece in batch])
        answer = self._engine.predict(images)
        if len(answer) != sum(lengths) or len(answer.probabilities) != sum(lengths):
            raise RemoteError(f"the engine answered {len(answer)} rows for {sum(lengths)} images")
        return split(answer, lengths)
