"""The output directory of bulk work: whose it is, which shards are finished, and that one process writes it.

    part-00000-<key>.parquet ...   finished shards; a file under its final name is whole
    _part-00000-<key>.json ...      what each of them holds, so that nobody has to read it again for that
    _manifest.parquet               names and sizes of the input's files (`prelabel.manifest`)
    _run.json                       which input and model the directory belongs to, and what computed the first rows
    _summary.json                   written at the end of a run
    .lock                          held by the running process

The key in a shard's name stands for input and model (`prelabel.shards`). A shard's rows are written before its
statistics: a kill between the two leaves rows without statistics, and the next run counts them.
"""

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prelabel.errors import InputError
from prelabel.feed import Batch
from prelabel.manifest import MANIFEST_FILE, other_contents, what_changed, write_manifest
from prelabel.predictions import PredictionBatch, joined
from prelabel.shards import Counts, Run, ShardStatistics, confidence_histogram, count_causes
from prelabel.sources import Source
from prelabel.storage import Storage, open_storage
from prelabel.table import read_columns, to_table, write_table

logger = logging.getLogger(__name__)

# Readers of Parquet data sets pass over names that start with an underscore; `datasets` wants a pattern.
RUN_FILE = "_run.json"
SUMMARY_FILE = "_summary.json"
_OURS = re.compile(
    r"part-\d{5,}-[0-9a-f]{12}\.parquet$|_part-\d{5,}-[0-9a-f]{12}\.json$|_summary\.json$|_manifest\.parquet$"
)


def claim(output: Storage, run: Run, source: Source, *, overwrite: bool) -> Run:
    """Makes a locked directory the output of `run`, or finds that it is already.

    Args:
        output: Held by `Storage.lock`.
        run: The run that is about to start.
        source: Its input.
        overwrite: Remove what an earlier run left; files of others are never touched.

    Returns:
        What `_run.json` says: `run`, or the run that is taken up.

    Raises:
        InputError: It belongs to another model or another input, or holds something else.
    """
    names = output.names()
    known = _owner(output, names, run, source, overwrite=overwrite)
    for name in names:
        if name.startswith(
            (".part-", "._part-", f".{RUN_FILE}", f".{SUMMARY_FILE}", f".{MANIFEST_FILE}")
        ) and name.endswith(".tmp"):
            output.delete(name)
    if known is None or overwrite:
        for name in names:
            if _OURS.match(name):
                output.delete(name)
        # Replaced last: a kill before this leaves a run that resumes, not files without an owner.
        write_run(output, run)
        write_manifest(output, source, run.manifest_hash, run.input)
        return run
    if MANIFEST_FILE not in names:  # a kill came before it
        write_manifest(output, source, run.manifest_hash, run.input)
    return known


def refuse_others(output: Storage, run: Run, source: Source, *, overwrite: bool) -> None:
    """Raises what `claim` would, of a directory that is not locked yet and need not exist; changes nothing.

    The lock is a file: it must not stay behind in a directory that turns out to be somebody else's. To delete it there
    would let in two runs, one that holds the deleted file and one that makes a new one.
    """
    if _can_look_into(output):
        _owner(output, output.names(), run, source, overwrite=overwrite)


def _can_look_into(output: Storage) -> bool:
    """Whether it is a folder and lets us in; of one that does not, the lock says why."""
    try:
        return output.kind() == "folder"
    except OSError:
        return False


def _owner(output: Storage, names: Sequence[str], run: Run, source: Source, *, overwrite: bool) -> Run | None:
    """Returns whose output a directory is; None where it holds nothing.

    Args:
        output: The directory.
        names: What it held before this call: `_run.json` is the first file of a run that starts meanwhile.
        run: The run that is about to start.
        source: Its input.
        overwrite: Another run's will do.

    Raises:
        InputError: See `claim`.
    """
    known = read_run(output)
    if known is None:
        others = [name for name in names if not name.startswith(".")]
        if others:
            raise InputError(
                f"--output {output.shown()} holds other files ({', '.join(others[:3])}) and no {RUN_FILE}: "
                "choose an empty or new directory"
            )
        return None
    if overwrite:
        return known
    differences = {
        "predictions of model": (known.model_id, run.model_id),
        "predictions for input": (known.input, run.input),
        "shards of size": (known.shard_size, run.shard_size),
    }
    if known.manifest_hash == run.manifest_hash:
        # The same images, moved; or others of the same names and sizes.
        differences["predictions for input"] = other_contents(output, run.manifest_hash, source, run.input) or ("", "")
    elif known.input == run.input:
        changed = what_changed(output, known.manifest_hash, source)
        changes = f": {changed}" if changed else ""
        differences["predictions for input"] = (
            f"{known.input} as it was ({known.images} images, manifest {known.manifest_hash[:12]})",
            f"as it is now ({run.images} images, manifest {run.manifest_hash[:12]}){changes}",
        )
    for what, (there, wanted) in differences.items():
        if there != wanted:
            go_on = f"give --shard-size {there} to go on, " if what == "shards of size" else ""
            raise InputError(
                f"--output {output.shown()} holds {what} {there}, not {wanted}: {go_on}choose another directory, "
                "or start over with --overwrite"
            )
    return known


def write_run(output: Storage, run: Run) -> None:
    """Writes `_run.json`."""
    write_text(output, RUN_FILE, json.dumps(dataclasses.asdict(run), indent=2) + "\n")


def write_text(output: Storage, name: str, text: str) -> None:
    """Writes a text file, whole or not at all."""
    output.write(name, lambda file: file.write(text.encode()))


def read_run(output: Storage) -> Run | None:
    """Returns whose output the directory is, None where there is no `_run.json`.

    Raises:
        InputError: `_run.json` is damaged.
    """
    try:
        fields = json.loads(output.read(RUN_FILE))
        return Run(**{**fields, "classes": tuple(fields["classes"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{output.shown(RUN_FILE)} is damaged ({type(error).__name__}: {error}): choose another directory"
        ) from None


def unfinished_text(where: str | Path, rows: int) -> str | None:
    """Returns a warning where predictions are those of a run that is not finished; None where they are whole.

    Args:
        where: Path or URL of the predictions.
        rows: Rows that they have.

    Raises:
        InputError: `_run.json` is damaged.
    """
    run = read_run(open_storage(where))
    if run is None or rows >= run.images:
        return None
    return (
        f"warning: {where} has {rows:,} of the {run.images:,} images: the same `prelabel run`, without --limit, does "
        "the rest"
    )


def recorded_provider(where: str | Path, model_id: str) -> str:
    """Returns what computed the first rows in an output, such as `OpenVINO bfloat16`; it need not exist.

    Args:
        where: Path or URL of the output.
        model_id: The model that is to go on.

    Returns:
        "" where there are none of this model, or it is not known.

    Raises:
        InputError: `_run.json` is damaged.
    """
    run = _recorded(where)
    return run.execution_provider if run is not None and run.model_id == model_id else ""


def recorded_model(where: str | Path) -> str:
    """Returns the model_id of the predictions in an output, which need not exist; "" where there are none.

    Args:
        where: Path or URL of the output.

    Raises:
        InputError: `_run.json` is damaged.
    """
    run = _recorded(where)
    return "" if run is None else run.model_id


def _recorded(where: str | Path) -> Run | None:
    output = open_storage(where)
    return read_run(output) if _can_look_into(output) else None


def save_shard(
    output: Storage, run: Run, shard: int, answers: Sequence[tuple[Batch, PredictionBatch]], wall_s: float
) -> ShardStatistics:
    """Writes a shard's rows, then its statistics; each whole or not at all.

    Args:
        output: The output of `run`.
        run: The run.
        shard: Number of the shard.
        answers: All its rows, in order.
        wall_s: How long it took to label them.
    """
    ids = [one for batch, _ in answers for one in batch.ids]
    paths = [one for batch, _ in answers for one in batch.paths]
    table = to_table(ids, paths, joined([answer for _, answer in answers]), run.shard_info(shard))
    output.delete(run.statistics_name(shard))  # those of a shorter shard that an earlier --limit made
    file_bytes = write_table(output, run.shard_name(shard), table)
    statistics = ShardStatistics(shard, count(table), wall_s, file_bytes)
    write_text(output, run.statistics_name(shard), statistics.to_json(run))
    return statistics


def finished_shards(output: Storage, run: Run, images: int) -> Iterator[ShardStatistics]:
    """Yields the statistics of the finished shards, in order.

    A shard without statistics, or with those of another file, is counted and gets them.

    Args:
        output: The output of `run`.
        run: The run.
        images: The first `images` images are wanted: a shard that holds fewer of them than it should is not finished.
    """
    sizes = output.sizes()  # of all at once: a store takes tens of milliseconds to tell the size of one
    shards = [shard for shard in range(run.shards) if run.shard_name(shard) in sizes]
    described = [shard for shard in shards if run.statistics_name(shard) in sizes]
    contents = output.read_many(map(run.statistics_name, described))
    for shard in shards:
        statistics = None
        if run.statistics_name(shard) in sizes:
            content = next(contents)
            statistics = None if isinstance(content, OSError) else ShardStatistics.from_json(content, run)
        file_bytes = sizes[run.shard_name(shard)]
        if statistics is None or (statistics.shard, statistics.file_bytes) != (shard, file_bytes):
            statistics = _recount(output, run, shard, file_bytes)
        # An earlier run with --limit may have ended within this shard.
        if statistics is not None and statistics.counts.rows >= len(run.shard_rows(shard, images)):
            yield statistics


def _recount(output: Storage, run: Run, shard: int, file_bytes: int) -> ShardStatistics | None:
    try:
        info, table = read_columns(output, run.shard_name(shard), ["label", "confidence", "error"])
        if dataclasses.replace(info, version=run.version) != run.shard_info(shard):
            return None
        statistics = ShardStatistics(shard, count(table), 0.0, file_bytes)
    except InputError as error:
        logger.warning("predicting shard %d again: %s", shard, error)
        return None
    write_text(output, run.statistics_name(shard), statistics.to_json(run))
    return statistics


def count(table: Any) -> Counts:
    """Counts what a table of predictions holds."""
    labels = {entry["values"]: entry["counts"] for entry in table["label"].drop_null().value_counts().to_pylist()}
    return Counts(
        table.num_rows,
        count_causes(table["error"].drop_null().to_pylist()),
        Counter(labels),
        confidence_histogram(table["confidence"].drop_null().to_numpy()),
    )
