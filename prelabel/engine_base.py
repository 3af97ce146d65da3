"""What every engine is and keeps to: the interface, the input check, and the batch sizes that are really run."""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prelabel.bundle import Bundle
from prelabel.errors import InputError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, from_model

Raw = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Probabilities float32 [B, K] and realness float32 [B]."""

LARGEST_BATCH_BYTES = 8 << 20
"""Pixels of the largest batch that is run: large images reach the full rate in small batches, with less memory."""
GPU_CALLERS = 2
"""On each GPU: one inference computes while the next one's images are copied."""
PADDING_SHARE = 0.25
"""Up to this share of a batch may be padding; with more, two smaller runs cost less."""


class Engine(Protocol):
    """What serving and bulk work need of a loaded model; safe to call from several threads, which run in parallel."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that was loaded."""

    @property
    def execution_provider(self) -> str:
        """What really runs the model."""

    @property
    def gpus(self) -> tuple[int, ...]:
        """CUDA's numbers of the GPUs that run it; none on the CPU."""

    def predict(self, images: Pixels) -> PredictionBatch:
        """Classifies uint8 [B, H, W, C], 0..255, B >= 1, of exactly the model's H, W and C."""


@dataclass(frozen=True)
class Settings:
    """How an engine is set up, whatever runs it."""

    threads: int
    """Threads of one inference; 0 takes all cores."""
    callers: int
    """Threads that will call `predict` at the same time; on GPUs 0: as many as keep them busy."""
    buckets: tuple[int, ...]
    """Batch sizes that are run, ascending, from 1 on."""
    gpus: str = "0"
    """See `check_gpus`."""
    tensorrt: bool = False
    """On a GPU: TensorRT builds the parts of the graph that it can."""
    cuda_graphs: bool = False
    """On a GPU: each batch size is recorded once and replayed."""


def usable_cores() -> int:
    """Returns how many cores this process may use: a container has fewer than its machine, or a share of its time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, quota_cores() or cores)


def quota_cores(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns how many cores a container's limit on processor time comes to, rounded up; None without a limit.

    `docker run --cpus` and Kubernetes' limits set it, for control groups of version 2 or 1 below `root`. They take no
    core away, so that the process still sees all of the machine's.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = (int(word) for name in names for word in (root / name).read_text().split())
        except (OSError, ValueError):  # not this version, or `max`
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return None


def bucket_sizes(bundle: Bundle, max_batch_size: int) -> tuple[int, ...]:
    """Returns the few batch sizes that are run: powers of two, and the largest one.

    Memory and kernels are kept for each size that was ever run, so sizes of any number would let them grow without end.
    """
    largest = max(1, min(max_batch_size, LARGEST_BATCH_BYTES // math.prod(bundle.input.shape)))
    return (*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest)


def pieces(rows: int, buckets: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yields how a batch is run: (rows, bucket) with rows <= bucket, in order; their rows add up to `rows`."""
    while rows > 0:
        bucket = next((size for size in buckets if rows <= size), buckets[-1])
        if bucket - rows > PADDING_SHARE * bucket:
            bucket = max(size for size in buckets if size <= rows)
        taken = min(rows, bucket)
        yield taken, bucket
        rows -= taken


def predict_in_buckets(
    images: Pixels, bundle: Bundle, buckets: tuple[int, ...], run: Callable[[Pixels], Raw]
) -> PredictionBatch:
    """Runs any number of images in batches of the bucket sizes.

    Args:
        images: uint8 [B, H, W, C], 0..255, B >= 1.
        bundle: The model that `run` runs.
        buckets: See `Settings.buckets`.
        run: Takes uint8 [b, H, W, C] with b of `buckets` and returns at least the answers of all b images, in order.

    Raises:
        InputError: Another shape or dtype.
    """
    check_images(images, bundle)
    parts: list[Raw] = []
    start = 0
    for rows, bucket in pieces(len(images), buckets):
        batch = images[start : start + rows]
        if rows < bucket:
            batch = np.concatenate([batch, np.zeros((bucket - rows, *bundle.input.shape), np.uint8)])
        probabilities, realness = run(batch)
        parts.append((probabilities[:rows], realness[:rows]))
        start += rows
    if len(parts) > 1:
        parts = [(np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts]))]
    return from_model(*parts[0], bundle.model_id)


def warm_up(engine: Engine, buckets: tuple[int, ...], callers: int) -> None:
    """Runs every batch size in every caller at once: what the first use allocates and compiles is there afterwards."""

    def run_all(_: int) -> None:
        for size in reversed(buckets):  # the largest first: its memory serves the others
            engine.predict(np.zeros((size, *engine.bundle.input.shape), np.uint8))

    with ThreadPoolExecutor(callers, thread_name_prefix="warm-up") as pool:
        list(pool.map(run_all, range(callers)))


def on_gpu(engine: Engine) -> bool:
    """Whether a GPU runs the model."""
    return bool(engine.gpus)


def check_gpus(text: str) -> None:
    """Raises `InputError` unless it is `all`, or different numbers separated by commas."""
    numbers = text.split(",")
    if text != "all" and not (all(map(str.isdecimal, numbers)) and len(set(map(int, numbers))) == len(numbers)):
        raise InputError(f"gpus is {text!r}: all, or different numbers separated by commas wanted, such as 0,1")


def check_images(images: NDArray[Any], bundle: Bundle) -> None:
    """Raises `InputError` unless `images` is uint8 [B, H, W, C], B >= 1, of the model's H, W and C."""
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}, but the model takes uint8 (0..255): do not scale them")
    if images.ndim != 4 or images.shape[0] < 1 or images.shape[1:] != bundle.input.shape:
        wanted = ", ".join(str(size) for size in bundle.input.shape)
        raise InputError(f"images have shape {list(images.shape)}, but the model takes [B >= 1, {wanted}]")
