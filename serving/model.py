"""One loaded model and what answers for it: engine, batcher, decoder."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prelabel.bundle import Bundle
from prelabel.client import MAX_MESSAGE_BYTES
from prelabel.engine import Engine, parallel_calls, usable_cores
from prelabel.errors import InputError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, Priority, with_failures
from serving.batcher import Batcher, BatchLimits
from serving.config import Config
from serving.decoder import Decoder
from serving.observer import BatchObserver

MAX_REQUEST_IMAGES = 4096
"""Batches of a few hundred images already carry the engine's full rate; more per request only delays other callers."""

CPU_BATCH_SIZE = 32
"""Rows with which a small net nearly has a CPU core's full rate."""

_MESSAGE_RESERVE_BYTES = 1 << 20
"""What a full request or response may hold beside its numbers."""


@dataclass(frozen=True)
class Model:
    """A loaded model and what answers for it."""

    engine: Engine
    batcher: Batcher
    decoder: Decoder
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest request and answer."""
    version: str = ""
    """Its name among the versions of a repository; the model_id where a single bundle is served."""

    @functools.cached_property
    def max_request_images(self) -> int:
        """Images of the largest request that fits the queue and a message, its answer included."""
        return _max_request_images(self.engine.bundle, self.batcher.limits, self.max_message_bytes)

    async def decode(self, files: Sequence[bytes], priority: Priority) -> tuple[Pixels, dict[int, str]]:
        """Decodes the image files of a request; call `predict` at once with what this returns.

        The queue's limits count them meanwhile: by their bytes, or by those of their pixels, whichever are more.

        Returns:
            See `Decoder.decode`.

        Raises:
            InputError, OverloadedError, ServerUnavailableError: See `Batcher.predict`.
        """
        size_bytes = max(sum(map(len, files)), len(files) * math.prod(self.engine.bundle.input.shape))
        with self.batcher.hold(len(files), size_bytes, priority):
            return await self.decoder.decode(files, priority)

    async def predict(
        self, images: Pixels, errors: dict[int, str], total: int, timeout_s: float | None, priority: Priority
    ) -> PredictionBatch:
        """Infers the usable images of a request and puts the errors of the others in their places.

        Args:
            images: uint8 [G, H, W, C], G >= 0: the usable images in their order.
            errors: Position in the request -> why that image is not usable.
            total: Images of the request.
            timeout_s: See `Batcher.predict`, whose errors this raises.
            priority: Who waits.
        """
        if len(images):
            answer = await self.batcher.predict(images, timeout_s, priority)
        else:
            bundle = self.engine.bundle
            empty = np.empty((0, len(bundle.classes)), np.float32)
            answer = PredictionBatch(empty, np.empty(0, np.float32), bundle.model_id)
        return with_failures(answer, errors, total)

    async def close(self) -> None:
        """Answers what was accepted and ends the threads."""
        await self.batcher.close()
        await self.decoder.close()


def start_model(engine: Engine, config: Config, version: str = "", observer: BatchObserver | None = None) -> Model:
    """Starts what answers for an engine; must be called in the running event loop.

    Raises:
        InputError: One image of the model does not fit a message, or the queue.
    """
    gpus = len(engine.gpus)
    limits = BatchLimits(
        max_batch_size=config.max_batch_size,
        preferred_batch_size=config.preferred_batch_size or (config.max_batch_size if gpus else CPU_BATCH_SIZE),
        max_queue_delay_ms=config.max_queue_delay_ms,
        max_queue_images=config.max_queue_images,
        max_queue_bytes=config.max_queue_mib << 20,
        instances=config.instances or parallel_calls(threads=1, gpus=gpus, processes=config.processes),
    )
    max_message_bytes = config.max_message_mib << 20
    # Before there are threads: a version that does not fit is tried again and again.
    if _max_request_images(engine.bundle, limits, max_message_bytes) < 1:
        raise InputError(
            f"one image {engine.bundle.input.shape} does not fit a message of {max_message_bytes} bytes "
            f"(--max-message-mib), or the queue of {limits.max_queue_bytes} bytes (--max-queue-mib)"
        )
    threads = max(1, usable_cores() // config.processes)
    decoder = Decoder(engine.bundle.input, threads, config.max_image_pixels)
    return Model(engine, Batcher(engine, limits, observer), decoder, max_message_bytes, version)


def _max_request_images(bundle: Bundle, limits: BatchLimits, max_message_bytes: int) -> int:
    image_bytes = math.prod(bundle.input.shape)
    # Per image an answer has K probabilities and three numbers of at most 5 bytes, at worst an error message.
    answer_bytes = 4 * len(bundle.classes) + 512
    message = (max_message_bytes - _MESSAGE_RESERVE_BYTES) // max(image_bytes, answer_bytes)
    return min(MAX_REQUEST_IMAGES, message, limits.max_queue_images, limits.max_queue_bytes // image_bytes)
