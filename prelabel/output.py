"""The output directory of bulk work: whose it is, which shards are finished, and that one process writes it.

    part-00000-<key>.parquet ...   finished shards; a file under its final name is whole
    _part-00000-<key>.json ...      what each of them holds, so that nobody has to read it again for that
    _run.json                       which input and model the directory belongs to
    _summary.json                   written at the end of a run
    .lock                          held by the running process

The key in a shard's name stands for input and model (`prelabel.shards`). A shard's rows are written before its
statistics: a kill between the two leaves rows without statistics, and the next run counts them.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prelabel.errors import InputError
from prelabel.feed import Batch
from prelabel.files import write_text_atomically
from prelabel.predictions import PredictionBatch
from prelabel.shards import Counts, Run, ShardStatistics, confidence_histogram, count_causes
from prelabel.table import read_info, require_pyarrow, to_table, write_table

logger = logging.getLogger(__name__)

# Readers of Parquet data sets pass over names that start with an underscore.
RUN_FILE = "_run.json"
SUMMARY_FILE = "_summary.json"
LOCK_FILE = ".lock"
_OURS = re.compile(r"part-\d{5,}-[0-9a-f]{12}\.parquet$|_part-\d{5,}-[0-9a-f]{12}\.json$|_summary\.json$")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Makes the directory and holds it alone; a killed process lets go by itself.

    Raises:
        InputError: Another process holds it, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"--output {directory} cannot be written: {error.strerror}; choose another directory"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise InputError(
                f"--output {directory} is being written by another prelabel run (process {holder}): "
                "wait until it ends, or choose another directory"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def claim(directory: Path, run: Run, *, overwrite: bool) -> None:
    """Makes a locked directory the output of `run`, or finds that it is already.

    Args:
        directory: Held by `locked`.
        run: The run that is about to start.
        overwrite: Remove what an earlier run left; files of others are never touched.

    Raises:
        InputError: It belongs to another model or another input, or holds something else.
    """
    for prefix in ("part-", "_part-", RUN_FILE, SUMMARY_FILE):
        for left_over in directory.glob(f".{prefix}*.tmp"):
            left_over.unlink()
    known = read_run(directory)
    if known is not None and overwrite:
        for path in directory.iterdir():
            if _OURS.match(path.name):
                path.unlink()
        # Replaced last: a kill before this leaves a run that resumes, not files without an owner.
        _write_run(directory, run)
        return
    if known is None:
        others = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
        if others:
            raise InputError(
                f"--output {directory} holds other files ({', '.join(others[:3])}) and no {RUN_FILE}: "
                "choose an empty or new directory"
            )
        _write_run(directory, run)
        return
    differences = {
        "predictions of model": (known.model_id, run.model_id),
        "predictions for input": (known.input, run.input),
        "shards of size": (known.shard_size, run.shard_size),
    }
    if known.manifest_hash == run.manifest_hash:
        del differences["predictions for input"]  # the same images, moved
    elif known.input == run.input:
        differences["predictions for input"] = (
            f"{known.input} as it was ({known.images} images, manifest {known.manifest_hash[:12]})",
            f"as it is now ({run.images} images, manifest {run.manifest_hash[:12]})",
        )
    for what, (there, wanted) in differences.items():
        if there != wanted:
            raise InputError(
                f"--output {directory} holds {what} {there}, not {wanted}: choose another directory, "
                "or start over with --overwrite"
            )


def _write_run(directory: Path, run: Run) -> None:
    write_text_atomically(directory / RUN_FILE, json.dumps(dataclasses.asdict(run), indent=2) + "\n")


def read_run(directory: Path) -> Run | None:
    """Returns whose output the directory is, None where there is no `_run.json`.

    Raises:
        InputError: `_run.json` is damaged.
    """
    path = directory / RUN_FILE
    try:
        fields = json.loads(path.read_bytes())
        return Run(**{**fields, "classes": tuple(fields["classes"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): choose another directory") from None


def write_shard(
    directory: Path, run: Run, shard: int, answers: Sequence[tuple[Batch, PredictionBatch]], wall_s: float
) -> ShardStatistics:
    """Writes a shard's rows, then its statistics; each whole or not at all.

    Args:
        directory: The output of `run`.
        run: The run.
        shard: Number of the shard.
        answers: All its rows, in order.
        wall_s: How long it took to label them.
    """
    pa = require_pyarrow()
    info = run.shard_info(shard)
    pieces = [to_table(batch.ids, batch.paths, answer, info) for batch, answer in answers]
    table = pa.concat_tables(pieces).combine_chunks()
    statistics_path, path = directory / run.statistics_name(shard), directory / run.shard_name(shard)
    statistics_path.unlink(missing_ok=True)  # of a shorter shard that an earlier --limit made
    file_bytes = write_table(path, table)
    statistics = ShardStatistics(shard, count(table), wall_s, file_bytes)
    write_text_atomically(statistics_path, statistics.to_json(run))
    return statistics


def finished_shards(directory: Path, run: Run, images: int) -> Iterator[ShardStatistics]:
    """Yields the statistics of the finished shards, in order.

    A shard without statistics, or with those of another file, is counted and gets them.

    Args:
        directory: The output of `run`.
        run: The run.
        images: The first `images` images are wanted: a shard that holds fewer of them than it should is not finished.
    """
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(directory)}
    for shard in range(run.shards):
        if (size := sizes.get(run.shard_name(shard))) is None:
            continue
        statistics = None
        if run.statistics_name(shard) in sizes:
            statistics = ShardStatistics.from_json((directory / run.statistics_name(shard)).read_bytes(), run)
        if statistics is None or (statistics.shard, statistics.file_bytes) != (shard, size):
            statistics = _recount(directory, run, shard, size)
        # An earlier run with --limit may have ended within this shard.
        if statistics is not None and statistics.counts.rows >= len(run.shard_rows(shard, images)):
            yield statistics


def _recount(directory: Path, run: Run, shard: int, size: int) -> ShardStatistics | None:
    path = directory / run.shard_name(shard)
    try:
        info, _ = read_info(path)
        if dataclasses.replace(info, version=run.version) != run.shard_info(shard):
            return None
        statistics = ShardStatistics(shard, read_counts(path), 0.0, size)
    except InputError as error:
        logger.warning("predicting shard %d again: %s", shard, error)
        return None
    write_text_atomically(directory / run.statistics_name(shard), statistics.to_json(run))
    return statistics


def read_counts(path: Path) -> Counts:
    """Counts what a prediction file holds.

    Raises:
        InputError: It is damaged.
    """
    pa = require_pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            return count(file.read(["label", "confidence", "error"]))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def count(table: Any) -> Counts:
    """Counts what a table of predictions holds."""
    labels = {entry["values"]: entry["counts"] for entry in table["label"].drop_null().value_counts().to_pylist()}
    return Counts(
        table.num_rows,
        count_causes(table["error"].drop_null().to_pylist()),
        Counter(labels),
        confidence_histogram(table["confidence"].drop_null().to_numpy()),
    )
