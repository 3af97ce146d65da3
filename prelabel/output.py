"""The output directory of bulk work: whose it is, which shards are finished, and that one process writes it.

    part-00000-<key>.parquet ...   finished shards; a file under its final name is whole
    _run.json                       which input and model the directory belongs to
    _summary.json                   written at the end of a run
    .lock                          held by the running process

A shard is `shard_size` images in the order of the input. The key in its name stands for input and model.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prelabel import __version__
from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from prelabel.table import FILE_PATTERN, ShardInfo, read_info, require_pyarrow

logger = logging.getLogger(__name__)

# Readers of Parquet data sets pass over names that start with an underscore.
RUN_FILE = "_run.json"
SUMMARY_FILE = "_summary.json"
LOCK_FILE = ".lock"
_OURS = re.compile(r"part-\d{5,}-[0-9a-f]{12}\.parquet$|_summary\.json$")


@dataclass(frozen=True)
class Run:
    """What an output directory belongs to; the content of `_run.json`."""

    input: str
    """Path of the input as it was given."""
    manifest_hash: str
    """Hash of the input."""
    images: int
    """Images in the whole input."""
    model_id: str
    """The model."""
    classes: tuple[str, ...]
    """Class names in label order."""
    shard_size: int
    """Images per shard; the last has what is left."""
    version: str = __version__
    """Version of prelabel that started the run."""

    @property
    def key(self) -> str:
        """12 hexadecimal characters that stand for input and model."""
        return hashlib.sha256(f"{self.manifest_hash} {self.model_id}".encode()).hexdigest()[:12]

    def shard_name(self, shard: int) -> str:
        """Returns the file name of a shard."""
        return f"part-{shard:05d}-{self.key}.parquet"

    def shard_info(self, shard: int) -> ShardInfo:
        """Returns what the file of a shard says about itself."""
        return ShardInfo(self.version, self.model_id, self.classes, self.manifest_hash, shard, shard * self.shard_size)


@dataclass(frozen=True)
class ShardCounts:
    """What a shard holds."""

    rows: int
    """Images, failed ones too."""
    errors: int
    """Images that got an error instead of a prediction."""
    labels: Counter[str]
    """Class name -> images."""


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
    for prefix in ("part-", RUN_FILE, SUMMARY_FILE):
        for left_over in directory.glob(f".{prefix}*.tmp"):
            left_over.unlink()
    known = read_run(directory)
    if known is not None and overwrite:
        for path in [*directory.glob(FILE_PATTERN), directory / SUMMARY_FILE]:
            if _OURS.match(path.name):
                path.unlink(missing_ok=True)
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


def finished_shards(directory: Path, run: Run, images: int) -> dict[int, ShardCounts]:
    """Returns shard number -> counts of the finished shards.

    Args:
        directory: The output of `run`.
        run: The run.
        images: The first `images` images are wanted: a shard that holds fewer of them than it should is not finished.
    """
    finished = {}
    for shard in range(-(-run.images // run.shard_size)):
        path = directory / run.shard_name(shard)
        if not path.exists():
            continue
        try:
            info, rows = read_info(path)
            counts = read_counts(path)
        except InputError as error:
            logger.warning("predicting shard %d again: %s", shard, error)
            continue
        # An earlier run with --limit may have ended within this shard.
        wanted = min(images - shard * run.shard_size, run.shard_size)
        if rows >= wanted and dataclasses.replace(info, version=run.version) == run.shard_info(shard):
            finished[shard] = counts
    return finished


def read_counts(path: Path) -> ShardCounts:
    """Counts the rows, errors and labels of a prediction file.

    Raises:
        InputError: It is damaged.
    """
    pa = require_pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            return count(file.read(["label", "error"]))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def count(table: Any) -> ShardCounts:
    """Counts the rows, errors and labels of a table of predictions."""
    labels = {entry["values"]: entry["counts"] for entry in table["label"].drop_null().value_counts().to_pylist()}
    return ShardCounts(table.num_rows, table.num_rows - table["error"].null_count, Counter(labels))
