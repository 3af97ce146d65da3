"""A batcher around an engine that shows what reaches it."""

import asyncio
from collections.abc import Iterable

from prelabel.predictions import PredictionBatch
from serving.batcher import Batcher, BatchLimits
from support.engines import EchoEngine, entered, marked


def limits(
    max_batch_size: int = 8,
    delay_ms: float = 1.0,
    images: int = 10_000,
    size_bytes: int = 1 << 20,
    instances: int = 1,
    preferred_batch_size: int = 0,
) -> BatchLimits:
    return BatchLimits(max_batch_size, preferred_batch_size or max_batch_size, delay_ms, images, size_bytes, instances)


def numbered(sizes: Iterable[int]) -> list[list[int]]:
    """Marks for requests of the given sizes, no mark twice."""
    start, requests = 1000, []
    for size in sizes:
        requests.append(list(range(start, start + size)))
        start += size
    return requests


async def occupy(batcher: Batcher, engine: EchoEngine) -> "asyncio.Task[PredictionBatch]":
    """Holds the engine with one request, so that what follows has to queue."""
    engine.gate.clear()
    plug = asyncio.create_task(batcher.predict(marked([1])))
    await entered(engine)
    return plug


async def settle() -> None:
    """Lets every task run as far as it can without a thread's or a timer's help."""
    for _ in range(20):
        await asyncio.sleep(0)
