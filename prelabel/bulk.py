"""Bulk work: a whole collection of images through a model into Parquet files, resumable.

The plan (`prelabel.shards`) says which shards are missing, a runner makes them by the shard function
(`prelabel.label`), and this module holds the output directory meanwhile and sums up. What is unfinished when a process
dies is done again by the next run, and nothing else.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prelabel.engine_base import usable_cores
from prelabel.engine_choice import way_named
from prelabel.errors import (
    InputError,
    ModelChangedError,
    OverloadedError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
    StorageError,
    WorkerError,
)
from prelabel.label import Predictor, Work, label_shards
from prelabel.output import SUMMARY_FILE, claim, finished_shards, refuse_others, write_run, write_text
from prelabel.predictions import Model
from prelabel.progress import Progress, ProgressMode, write_summary
from prelabel.shards import Counts, Run, ShardStatistics
from prelabel.sources import IdxSource, NpzSource, Source
from prelabel.storage import Storage, open_storage
from prelabel.table import require_pyarrow

logger = logging.getLogger(__name__)

WORTH_PROCESSES = 20_000
"""Images from which on decoding in other processes is faster by more than their start takes."""

Runner = Callable[[Work, Sequence[range], Callable[[int], None]], Iterator[ShardStatistics]]
"""Makes the missing shards by `prelabel.label.label_shards`, wherever that runs.

Takes the work, the positions in the input of each missing shard, and what to call with the number of images that were
done since the last call; yields the statistics of each shard when its files are on the disk, in any order.
"""


@dataclass(frozen=True)
class BulkConfig:
    """How a bulk job is done."""

    output: str | Path
    """Directory or URL for the Parquet files; an interrupted run is taken up there."""
    limit: int | None = None
    """Only the first LIMIT images; a later run without it does the rest."""
    overwrite: bool = False
    """Start over, and remove the predictions of an earlier run from the output directory."""
    retry_errors: bool = False
    """Predict the files that hold error rows again, whole, beside what is missing: once what caused them is mended."""
    shard_size: int = 4096
    """Images per Parquet file; 10 million images are 2,442. A kill loses the files in work: one, or, of decoding
    processes, one for each and two that wait to be written."""
    batch_size: int = 256
    """Images per request, at most what the server allows: larger ones no longer gain throughput, and cost memory."""
    window: int = 4
    """Requests in flight: enough to hide the network behind inference."""
    decode_threads: int = 0
    """Threads that decode images, and no processes unless --decode-processes asks for them; 0 takes one per core, at
    most 8."""
    decode_processes: int | None = None
    """Processes that read and decode images in the place of threads, which share one core while images are small; 0
    takes none. Unless given: one per core from 20,000 images on, which repay the time that they take to start, and none
    beside --decode-threads."""

    def __post_init__(self) -> None:
        for name in ("limit", "shard_size", "batch_size", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value} is not usable: 1 or more is wanted")
        for name in ("decode_threads", "decode_processes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"--{name.replace('_', '-')} {value} is not usable: 0 or more is wanted")
        if self.retry_errors and self.overwrite:
            raise InputError(
                "--retry-errors and --overwrite exclude each other: with --overwrite every file is made again, with "
                "--retry-errors only those that hold error rows; give one of them"
            )

    def processes_for(self, source: Source, images: int) -> int:
        """Returns how many processes read and decode `images` images of a source."""
        if self.decode_processes is not None:
            return self.decode_processes
        holds_pixels = isinstance(source, IdxSource | NpzSource)
        return 0 if self.decode_threads or images < WORTH_PROCESSES or holds_pixels else usable_cores()


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
    causes: dict[str, int]
    """Cause -> error rows, the most frequent first."""
    confidence: list[int]
    """Rows by confidence: bin i of 20 counts i/20 <= confidence < (i+1)/20."""


def run_bulk(
    config: BulkConfig,
    source: Source,
    input_name: str,
    predictor: Predictor,
    *,
    progress: ProgressMode = "auto",
) -> BulkSummary:
    """Pre-labels a collection in this process: each image becomes exactly one row, in the order of the collection.

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
        StorageError: An object store does not answer; a disk is full, or gone.
        WorkerError: A process that decodes died.
    """

    def here(work: Work, missing: Sequence[range], advance: Callable[[int], None]) -> Iterator[ShardStatistics]:
        return label_shards(work, missing, predictor, advance)

    return run_with(here, config, source, input_name, predictor.model(), progress=progress)


def run_with(
    runner: Runner,
    config: BulkConfig,
    source: Source,
    input_name: str,
    model: Model,
    *,
    progress: ProgressMode = "auto",
) -> BulkSummary:
    """Pre-labels a collection by a runner; see `run_bulk`.

    This process holds the output directory, finds what is missing, and sums up; the runner makes shards.
    """
    started = time.monotonic()
    require_pyarrow()
    run = Run(
        input_name,
        source.manifest_hash,
        len(source),
        model.model_id,
        model.classes,
        config.shard_size,
        execution_provider=model.execution_provider,
    )
    images = min(len(source), config.limit or len(source))
    output = open_storage(config.output)
    refuse_others(output, run, source, overwrite=config.overwrite)
    with output.lock():
        known = claim(output, run, source, overwrite=config.overwrite)
        output.delete(SUMMARY_FILE)  # it is that of a run that ended
        before, again, finished = Counts(), Counts(), set()
        for statistics in finished_shards(output, run, images):
            start = statistics.shard * run.shard_size
            if config.retry_errors and statistics.counts.failed and start < images:
                again += statistics.counts
                images = max(images, start + statistics.counts.rows)  # its rows behind a --limit must not get lost
            else:
                finished.add(statistics.shard)
                before += statistics.counts
        missing = run.missing(images, finished)
        if missing and known.execution_provider != run.execution_provider:
            _change_provider(known, run, output, rows_there=before.rows + again.rows > 0)
        todo = sum(map(len, missing))
        processes = config.processes_for(source, todo)
        work = Work(source, run, output, config.batch_size, config.window, config.decode_threads, processes)
        new, written = Counts(), 0
        with Progress(images, "images", "pre-labelling", mode=progress, done=images - todo) as report:
            if todo < images:
                report.note(f"{images - todo:,} of {images:,} images were done before")
            if again.rows:
                report.note(f"error rows tried again: {again.failed:,}, with all {again.rows:,} images of their files")
            try:
                for statistics in runner(work, missing, report.advance) if missing else ():
                    new += statistics.counts
                    written += 1
            except (ServerUnavailableError, OverloadedError, RemoteError, StorageError, WorkerError, OSError) as error:
                kept = f"{before.rows + new.rows:,} of {images:,} images are done and kept in {output.shown()}"
                raise _with_kept(error, kept, run.model_id) from error
        if written != len(missing):
            raise WorkerError(
                f"{len(missing) - written} of {len(missing)} shards were not made: run the same command again"
            )
        summary = _sum_up(run, before, new, (len(finished), written), time.monotonic() - started)
        described = {**dataclasses.asdict(summary), "input": input_name}
        write_text(output, SUMMARY_FILE, json.dumps(described, indent=2) + "\n")
        write_summary(described, progress)
    return summary


def _with_kept(error: Exception, kept: str, model_id: str) -> PrelabelError:
    """Returns the error that ends a run, with what is kept and how to go on.

    A full disk, for example, is an OSError, which would say neither where it was nor what is left.
    """
    how = "run the same command again to go on"
    if isinstance(error, ModelChangedError):
        how = f"with model {model_id} served again, {how}; with another one, start over by --overwrite"
    kind = type(error) if isinstance(error, PrelabelError) else StorageError
    return kind(f"{' '.join(str(error).split())}; {kept}: {how}")


def _sum_up(run: Run, before: Counts, new: Counts, shards: tuple[int, int], wall_s: float) -> BulkSummary:
    """Returns the summary of rows that were there `before` and `new` ones; `shards` were there, and were written."""
    whole = before + new
    return BulkSummary(
        images=whole.rows,
        errors=whole.failed,
        predicted=new.rows,
        images_per_s=round(new.rows / wall_s, 1),
        wall_s=round(wall_s, 3),
        shards_written=shards[1],
        shards_skipped=shards[0],
        model_id=run.model_id,
        manifest_hash=run.manifest_hash,
        labels={name: whole.labels[name] for name in run.classes},
        causes=dict(whole.errors.most_common()),
        confidence=list(whole.confidence),
    )


def _change_provider(known: Run, run: Run, output: Storage, *, rows_there: bool) -> None:
    """Records what computes the first rows, or warns that it is not what computed those that are there."""
    before, now = known.execution_provider, run.execution_provider
    if not rows_there:
        write_run(output, run)
        return
    if not before or not now:  # not known: an older run, or one on a cluster
        return
    way = way_named(before)
    fix = f"use a server that runs {before}"
    if way is not None:
        options = f"--device {way.device} --runtime {way.runtime} --precision {way.precision}"
        fix = f"give {options} beside --model, or to the server"
    logger.warning(
        "the rows in %s so far were computed by %s, those from here on by %s and may differ: to go on as before, %s",
        output.shown(),
        before,
        now,
        fix,
    )
