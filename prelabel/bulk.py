"""Bulk work: a whole collection of images through a model into Parquet files, resumable.

One stream of batches runs through the whole job: `prelabel.feed` reads and decodes a bounded number of batches ahead,
`_predict` pairs each batch with its answer, `_label_missing` cuts the answers into shards and writes them. What is
unfinished when the process dies is done again by the next run, and nothing else.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from prelabel.errors import InputError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.feed import Batch, Decoded, decoded_batches
from prelabel.files import write_text_atomically
from prelabel.images import ImageSpec, Pixels
from prelabel.output import SUMMARY_FILE, Run, ShardCounts, claim, count, finished_shards, locked
from prelabel.predictions import PredictionBatch, with_failures
from prelabel.progress import Progress, ProgressMode
from prelabel.sources import Source
from prelabel.table import require_pyarrow, to_table, write_shard

MAX_BATCH_BYTES = 16 << 20
"""Pixels in one batch: large images make smaller batches, far below the largest message that a server takes."""


class Model(Protocol):
    """What bulk work needs to know of a model."""

    @property
    def model_id(self) -> str:
        """Identity of the model."""

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names in label order."""

    @property
    def input(self) -> ImageSpec:
        """What one image has to be."""

    @property
    def max_request_images(self) -> int:
        """Most images in one batch."""


class Predictor(Protocol):
    """A model that answers batches: a server behind `prelabel.client`, or an engine in this process."""

    def model(self) -> Model:
        """Returns the loaded model."""

    def predict_stream(self, batches: Iterator[Pixels], window: int = ...) -> Iterator[PredictionBatch]:
        """Yields one answer per batch (uint8 [B, H, W, C]), in order, with at most `window` batches in flight.

        `batches` is read in the caller's thread.
        """


@dataclass(frozen=True)
class BulkConfig:
    """How a bulk job is done."""

    output: Path
    """Directory for the Parquet files; an interrupted run is taken up there."""
    limit: int | None = None
    """Only the first LIMIT images; a later run without it does the rest."""
    overwrite: bool = False
    """Start over, and remove the predictions of an earlier run from the output directory."""
    shard_size: int = 4096
    """Images per Parquet file. A kill loses at most one file's work; 10 million images are 2,442 files."""
    batch_size: int = 256
    """Images per request, at most what the server allows: larger ones no longer gain throughput, and cost memory."""
    window: int = 4
    """Requests in flight: enough to hide the network behind inference."""
    decode_threads: int = 0
    """Threads that decode images; 0 takes one per core, at most 8."""

    def __post_init__(self) -> None:
        for name in ("limit", "shard_size", "batch_size", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value} is not usable: 1 or more is wanted")
        if self.decode_threads < 0:
            raise InputError(f"--decode-threads {self.decode_threads} is not usable: 0 or more is wanted")


@dataclass(frozen=True)
class BulkSummary:
    """What the output directory holds after a run, and how the run went; the content of `_summary.json`."""

    images: int
    """Rows in the output directory, error rows too, of all runs."""
    errors: int
    """Error rows among them."""
    predicted: int
    """Rows that this run wrote."""
    images_per_s: float
    """`predicted` over `wall_s`."""
    wall_s: float
    """Seconds that this run took."""
    shards_written: int
    """Files that this run wrote."""
    shards_skipped: int
    """Files that were there already."""
    model_id: str
    """The model that made every row."""
    manifest_hash: str
    """Hash of the input."""
    labels: dict[str, int]
    """Class name -> rows with that label, in label order."""


def run_bulk(
    config: BulkConfig,
    source: Source,
    input_name: str,
    predictor: Predictor,
    *,
    progress: ProgressMode = "auto",
) -> BulkSummary:
    """Pre-labels a collection: each image becomes exactly one row, in the order of the collection.

    Args:
        config: Where to and how.
        source: The images.
        input_name: What the user calls them, for messages and `_run.json`.
        predictor: The model.
        progress: How progress is shown on the error stream.

    Raises:
        InputError: The output directory belongs to another model or input, or another process writes it, or the input
            changed while it was read.
        ServerUnavailableError: No answer even after retries. Like with every other error, finished files stay and the
            next run goes on behind them.
        OverloadedError: The server kept refusing work.
        RemoteError: The server failed, or changed its model on the way.
    """
    started = time.monotonic()
    require_pyarrow()
    model = predictor.model()
    run = Run(input_name, source.manifest_hash, len(source), model.model_id, model.classes, config.shard_size)
    images = min(len(source), config.limit or len(source))
    with locked(config.output):
        claim(config.output, run, overwrite=config.overwrite)
        finished = finished_shards(config.output, run, images)
        skipped = frozenset(finished)
        (config.output / SUMMARY_FILE).unlink(missing_ok=True)  # it is that of a run that ended
        missing = [
            range(start, min(start + run.shard_size, images))
            for start in range(0, images, run.shard_size)
            if start // run.shard_size not in finished
        ]
        todo = sum(len(rows) for rows in missing)
        with Progress(images, "images", "pre-labelling", mode=progress, done=images - todo) as report:
            if todo < images:
                report.note(f"{images - todo:,} of {images:,} images were done before")
            try:
                for shard, counts in _label_missing(config, source, run, missing, predictor, model, report):
                    finished[shard] = counts
            except (ServerUnavailableError, OverloadedError, RemoteError) as error:
                kept = sum(counts.rows for counts in finished.values())
                raise type(error)(
                    f"{error}; {kept:,} of {images:,} images are done and kept in {config.output}: "
                    "run the same command again to go on"
                ) from error
        wall_s = time.monotonic() - started
        totals: Counter[str] = sum((counts.labels for counts in finished.values()), Counter())
        predicted = sum(counts.rows for shard, counts in finished.items() if shard not in skipped)
        summary = BulkSummary(
            images=sum(counts.rows for counts in finished.values()),
            errors=sum(counts.errors for counts in finished.values()),
            predicted=predicted,
            images_per_s=round(predicted / wall_s, 1),
            wall_s=round(wall_s, 3),
            shards_written=len(finished) - len(skipped),
            shards_skipped=len(skipped),
            model_id=run.model_id,
            manifest_hash=run.manifest_hash,
            labels={name: totals[name] for name in run.classes},
        )
        write_text_atomically(
            config.output / SUMMARY_FILE,
            json.dumps({**dataclasses.asdict(summary), "input": input_name}, indent=2) + "\n",
        )
    return summary


def _label_missing(
    config: BulkConfig,
    source: Source,
    run: Run,
    missing: Sequence[range],
    predictor: Predictor,
    model: Model,
    report: Progress,
) -> Iterator[tuple[int, ShardCounts]]:
    """Writes the missing shards; yields number and counts of each once it is on the disk."""
    pa = require_pyarrow()
    batch_bytes = MAX_BATCH_BYTES // math.prod(model.input.shape)
    feed = decoded_batches(
        source,
        missing,
        model.input,
        shard_size=run.shard_size,
        batch_size=max(1, min(config.batch_size, model.max_request_images, batch_bytes)),
        threads=config.decode_threads or min(os.cpu_count() or 1, 8),
    )
    rows_of = {rows.start // run.shard_size: len(rows) for rows in missing}
    pieces = []
    with contextlib.closing(feed):
        for batch, answer in _predict(feed, predictor, run, config.window):
            pieces.append(to_table(batch.ids, batch.paths, answer, run.shard_info(batch.shard)))
            report.advance(len(batch.ids))
            if sum(piece.num_rows for piece in pieces) == rows_of[batch.shard]:
                table = pa.concat_tables(pieces).combine_chunks()
                pieces.clear()
                write_shard(config.output / run.shard_name(batch.shard), table)
                yield batch.shard, count(table)


def _predict(
    feed: Iterator[Decoded], predictor: Predictor, run: Run, window: int
) -> Iterator[tuple[Batch, PredictionBatch]]:
    """Yields every batch of the feed with its answer, in order."""
    while (first := next(feed, None)) is not None:
        if not len(first.pixels):
            yield first.batch, _only_failures(first.batch, run)
            continue
        sent: deque[Batch] = deque()
        without_images: deque[Batch] = deque()
        for answer in predictor.predict_stream(_pixels(first, feed, sent, without_images), window=window):
            batch = sent.popleft()
            _check(answer, batch, run)
            yield batch, with_failures(answer, batch.errors, len(batch.ids))
        if sent:
            raise RemoteError(f"the server left {len(sent)} batches without an answer")
        for batch in without_images:
            yield batch, _only_failures(batch, run)


def _pixels(
    first: Decoded, feed: Iterator[Decoded], sent: deque[Batch], without_images: deque[Batch]
) -> Iterator[Pixels]:
    """Yields the pixels of batches up to one in which no image can be used: there is nothing to ask about that one."""
    for decoded in itertools.chain([first], feed):
        if not len(decoded.pixels):
            without_images.append(decoded.batch)
            return
        sent.append(decoded.batch)
        yield decoded.pixels


def _only_failures(batch: Batch, run: Run) -> PredictionBatch:
    nothing = PredictionBatch(np.empty((0, len(run.classes)), np.float32), np.empty(0, np.float32), run.model_id)
    return with_failures(nothing, batch.errors, len(batch.ids))


def _check(answer: PredictionBatch, batch: Batch, run: Run) -> None:
    wanted = (len(batch.ids) - len(batch.errors), len(run.classes))
    if answer.probabilities.shape != wanted:
        raise RemoteError(f"the server answered {list(answer.probabilities.shape)}, wanted is {list(wanted)}")
    if answer.model_id != run.model_id:
        raise RemoteError(f"the server changed its model from {run.model_id} to {answer.model_id}")
