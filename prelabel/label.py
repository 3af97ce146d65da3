"""The unit of bulk work: the function that labels shards, whoever calls it, on this machine or another one.

One stream of batches runs through all shards of a call: `prelabel.feed` reads and decodes a bounded number of batches
ahead, `_predict` pairs each batch with its answer, `label_shards` cuts the answers into shards, and a thread writes
them (`prelabel.output`).
"""

import contextlib
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from prelabel.decoders import decoded_by_processes
from prelabel.engine_base import usable_cores
from prelabel.errors import RemoteError
from prelabel.feed import Batch, Cut, Decoded, decoded_by_threads, pixel_batches
from prelabel.images import Pixels
from prelabel.output import save_shard
from prelabel.predictions import Model, PredictionBatch, without
from prelabel.shards import Run, ShardStatistics
from prelabel.sources import PixelSource, Source
from prelabel.storage import Storage

MAX_BATCH_BYTES = 16 << 20
"""Pixels in one batch: large images make smaller batches, far below the largest message that a server takes."""
WRITES_WAITING = 2
"""Finished shards that are being written or wait for it; more would only cost memory."""


class Predictor(Protocol):
    """A model that answers batches: a server behind `prelabel.client`, or an engine in this process."""

    def model(self) -> Model:
        """Returns the loaded model."""

    def predict_stream(self, batches: Iterator[Pixels], window: int = ...) -> Iterator[PredictionBatch]:
        """Yields one answer per batch (uint8 [B, H, W, C]), in order, with at most `window` batches in flight.

        `batches` is read in the caller's thread.
        """


@dataclass(frozen=True)
class Work:
    """What all shards of a run have in common; can be pickled where the source can, thus sent to another machine."""

    source: Source
    """The whole input."""
    run: Run
    """What the output belongs to."""
    output: Storage
    """Where the files go."""
    batch_size: int
    """Images per request, at most what the model allows."""
    window: int
    """Requests in flight."""
    decode_threads: int
    """Threads that decode; 0 takes one per core, at most 8."""
    decode_processes: int
    """Processes that read and decode in the place of threads; 0: none."""


def ignore_progress(images: int) -> None:
    """Takes the number of images that were done since the last call."""


def label_shard(work: Work, rows: range, predictor: Predictor) -> ShardStatistics:
    """Labels and writes one shard; see `label_shards`, which is faster for several."""
    (statistics,) = label_shards(work, [rows], predictor)
    return statistics


def label_shards(
    work: Work, missing: Sequence[range], predictor: Predictor, advance: Callable[[int], None] = ignore_progress
) -> Iterator[ShardStatistics]:
    """Labels shards and writes their files; reading, decoding and inference go on over the shards' borders.

    Args:
        work: The input, the run, and where to.
        missing: The positions in the input of each shard, as `Run.missing` gives them. Files that are there are
            replaced: two calls must not be given the same shard at the same time.
        predictor: The model of the run.
        advance: Called with a number of images whenever so many more have their answers.

    Yields:
        The statistics of each shard once its files are on the disk; in order where threads decode.

    Raises:
        InputError: The input changed while it was read, or cannot be read any more.
        WorkerError: A process that decodes died.
        ServerUnavailableError: No answer even after retries.
        OverloadedError: The server kept refusing work.
        RemoteError: The server failed, or its answers are not of the run's model.
        OSError: A file cannot be written. As with every other error, the shards that were yielded are whole.
    """
    run, model = work.run, predictor.model()
    if (model.model_id, model.classes) != (run.model_id, run.classes):
        raise RemoteError(f"the model is {model.model_id}, the run is of {run.model_id}: serve that one, or start over")
    feed = decoded(work, missing, model)
    rows_of = {run.shard_of(rows.start): len(rows) for rows in missing}
    # Shards are begun in any order where several processes decode.
    answers: dict[int, list[tuple[Batch, PredictionBatch]]] = defaultdict(list)
    writing: deque[Future[ShardStatistics]] = deque()
    started = time.monotonic()
    # A shard is written while the next one is labelled: making a disk sure of it may take as long as the labels did.
    with ThreadPoolExecutor(1, "write") as writer, contextlib.closing(feed):
        try:
            for batch, answer in _predict(feed, predictor, run, work.window):
                answers[batch.shard].append((batch, answer))
                advance(len(batch.ids))
                if sum(len(one.ids) for one, _ in answers[batch.shard]) == rows_of[batch.shard]:
                    if len(writing) == WRITES_WAITING:
                        yield writing.popleft().result()
                    whole, wall_s = answers.pop(batch.shard), time.monotonic() - started
                    writing.append(writer.submit(save_shard, work.output, run, batch.shard, whole, wall_s))
                    started = time.monotonic()
        except Exception:
            yield from (future.result() for future in writing)  # they are as whole as the ones before
            raise
        yield from (future.result() for future in writing)


def decoded(work: Work, missing: Sequence[range], model: Model) -> Generator[Decoded, None, None]:
    """Yields the images of the missing shards in batches for a model; close it to end its threads and processes."""
    batch_bytes = MAX_BATCH_BYTES // math.prod(model.input.shape)
    batch_size = max(1, min(work.batch_size, model.max_request_images, batch_bytes))
    cut = Cut(model.input, work.run.shard_size, batch_size)
    if isinstance(work.source, PixelSource):
        return pixel_batches(work.source, missing, cut)
    if work.decode_processes:
        return decoded_by_processes(work.source, missing, cut, work.decode_processes)
    return decoded_by_threads(work.source, missing, cut, work.decode_threads or min(usable_cores(), 8))


def _predict(
    feed: Iterator[Decoded], predictor: Predictor, run: Run, window: int
) -> Iterator[tuple[Batch, PredictionBatch]]:
    """Yields every batch of the feed with its answer, in order."""
    sent: deque[Batch] = deque()

    def pixels() -> Iterator[Pixels]:
        for decoded in feed:
            sent.append(decoded.batch)
            yield decoded.pixels

    for answer in predictor.predict_stream(pixels(), window=window):
        batch = sent.popleft()
        _check(answer, batch, run)
        yield batch, without(answer, batch.errors)
    if sent:
        raise RemoteError(f"the server left {len(sent)} batches without an answer")


def _check(answer: PredictionBatch, batch: Batch, run: Run) -> None:
    wanted = (len(batch.ids), len(run.classes))
    if answer.probabilities.shape != wanted:
        raise RemoteError(f"the server answered {list(answer.probabilities.shape)}, wanted is {list(wanted)}")
    if answer.model_id != run.model_id:
        raise RemoteError(f"the server changed its model from {run.model_id} to {answer.model_id}")
