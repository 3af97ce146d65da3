"""Prediction rows as Parquet: the schema, one file per shard, and reading a whole output directory back.

Columns: `id` string, `path` string, `label` string, `confidence` float32 (0..1), `probabilities` fixed-size list of
float32 [K] (0..1, sums to 1), `realness` float32 (0..1), `model_id` string, `error` string. In an error row `label`,
`confidence`, `realness` and each of the K `probabilities` are null; in all others `error` is. (Not the list itself: no
pyarrow up to 22 writes or reads a null among fixed-size lists, apache/arrow issues 35692 and 35697.)
Every file's schema metadata says under
`prelabel` (JSON) who made it and where it belongs.
"""

import contextlib
import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prelabel.errors import InputError
from prelabel.predictions import PredictionBatch
from prelabel.reading import readable, readable_parquet
from prelabel.storage import Storage, is_url, open_storage, printable
from prelabel.storage_local import LocalStorage

METADATA_KEY = b"prelabel"
FILE_PATTERN = "part-*.parquet"


@dataclass(frozen=True)
class ShardInfo:
    """Who made a prediction file and which rows of the input it holds; its metadata under `prelabel`."""

    version: str
    """Version of prelabel."""
    model_id: str
    """The model that made every row."""
    classes: tuple[str, ...]
    """Class names in label order: column k of `probabilities` is class k."""
    manifest_hash: str
    """Hash of the whole input."""
    shard: int
    """Number of the shard, from 0."""
    start: int
    """Position of its first row in the input."""


def require_pyarrow() -> Any:
    """Returns the module `pyarrow` with `pyarrow.parquet` loaded.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet files need pyarrow: pip install 'prelabel[parquet]'") from None
    return pa


def schema(info: ShardInfo) -> Any:
    """Returns the Arrow schema of a shard, metadata included."""
    pa = require_pyarrow()
    columns = {
        "id": "string",
        "path": "string",
        "label": "string",
        "confidence": "float32",
        "probabilities": None,
        "realness": "float32",
        "model_id": "string",
        "error": "string",
    }
    probabilities = pa.list_(pa.field("element", pa.float32()), len(info.classes))
    never_null = ("id", "path", "probabilities", "model_id")
    fields = [
        pa.field(name, pa.type_for_alias(kind) if kind else probabilities, nullable=name not in never_null)
        for name, kind in columns.items()
    ]
    features: dict[str, Any] = {name: {"dtype": kind, "_type": "Value"} for name, kind in columns.items()}
    features["probabilities"] = {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": len(info.classes),
        "_type": "List",
    }
    metadata = {
        METADATA_KEY: json.dumps(asdict(info)),
        # `datasets.load_dataset("parquet", ...)` reads its feature types from here.
        b"huggingface": json.dumps({"info": {"features": features}}),
    }
    return pa.schema(fields, metadata)


def to_table(ids: Sequence[str], paths: Sequence[str], batch: PredictionBatch, info: ShardInfo) -> Any:
    """Returns B prediction rows as a `pyarrow.Table`.

    Args:
        ids: B ids.
        paths: B paths.
        batch: The answers for these B images, float32 [B, K] probabilities over the classes of `info`.
        info: The shard that the rows belong to.

    Raises:
        ValueError: The lengths differ.
    """
    pa = require_pyarrow()
    total, wanted = len(batch), schema(info)
    if not len(ids) == len(paths) == total or batch.probabilities.shape != (total, len(info.classes)):
        raise ValueError(f"{len(ids)} ids and {len(paths)} paths for probabilities {list(batch.probabilities.shape)}")
    failed = np.zeros(total, bool)
    failed[list(batch.errors)] = True
    values = pa.array(
        np.ascontiguousarray(batch.probabilities, np.float32).reshape(-1), mask=np.repeat(failed, len(info.classes))
    )
    columns = [
        pa.array(ids, pa.string()),
        pa.array(paths, pa.string()),
        pa.array(info.classes, pa.string()).take(pa.array(batch.label_index, mask=failed)),
        pa.array(batch.confidence.astype(np.float32), mask=failed),
        pa.FixedSizeListArray.from_arrays(values, type=wanted.field("probabilities").type),
        pa.array(batch.realness.astype(np.float32), mask=failed),
        pa.repeat(pa.scalar(batch.model_id, pa.string()), total),
        pa.array([batch.errors.get(i) for i in range(total)], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def write_table(storage: Storage, name: str, table: Any) -> int:
    """Writes a table as one Parquet file, whole or not at all; returns its size in bytes."""
    pa = require_pyarrow()
    buffer = pa.BufferOutputStream()
    pa.parquet.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    storage.write(name, lambda file: file.write(content))
    return int(content.size)


def write_shard(path: Path, table: Any) -> None:
    """Writes a table as one Parquet file on a disk, whole or not at all."""
    write_table(LocalStorage(path.parent), path.name, table)


def read_info(path: Path) -> tuple[ShardInfo, int]:
    """Returns the metadata of a prediction file and its number of rows; see `read_stored_info`."""
    return read_stored_info(open_storage(path.parent), path.name)


def read_stored_info(storage: Storage, name: str) -> tuple[ShardInfo, int]:
    """Returns the metadata of a prediction file and its number of rows.

    Raises:
        InputError: The file cannot be read, or prelabel did not write it.
    """
    with _opened(storage, name) as file:
        return _info_of(file, storage, name)


def read_columns(storage: Storage, name: str, columns: list[str] | None) -> tuple[ShardInfo, Any]:
    """Returns the metadata of a prediction file and its rows, with the columns wanted, or all.

    Raises:
        InputError: It is damaged, or prelabel did not write it.
    """
    pa = require_pyarrow()
    with _opened(storage, name) as file:
        info, _ = _info_of(file, storage, name)
        with readable(f"{storage.shown(name)} is damaged", OSError, pa.ArrowException, fix="delete it and run again"):
            return info, file.read(columns)


@contextlib.contextmanager
def _opened(storage: Storage, name: str) -> Iterator[Any]:
    pa = require_pyarrow()
    with contextlib.ExitStack() as stack:
        with readable_parquet(storage.shown(name)):
            # Not read_table: it takes folder names such as `set=1` for columns.
            file = stack.enter_context(pa.parquet.ParquetFile(stack.enter_context(storage.open(name))))
        yield file


def _info_of(file: Any, storage: Storage, name: str) -> tuple[ShardInfo, int]:
    try:
        return _parse_info(file.metadata.metadata), file.metadata.num_rows
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{storage.shown(name)} is no prediction file: its metadata {METADATA_KEY.decode()!r} is missing"
        ) from None


def table_info(table: Any) -> ShardInfo:
    """Returns what a table of `to_table` or `read_predictions` says about itself; the whole counts as shard 0."""
    return _parse_info(table.schema.metadata)


def _parse_info(metadata: Any) -> ShardInfo:
    fields = json.loads(metadata[METADATA_KEY])
    return ShardInfo(**{**fields, "classes": tuple(fields["classes"])})


def ordered_files(directory: Path) -> list[Path]:
    """Returns the prediction files of an output directory in the order of the input; their rows are not read.

    Raises:
        InputError: There are none, one is damaged or missing, or they are not of one model and one input.
    """
    if is_url(directory):
        raise InputError(
            f"{printable(str(directory))} lies in an object store; these files are read from a disk: copy them there"
        )
    paths = sorted(directory.glob(FILE_PATTERN))
    if not paths:
        raise InputError(f"{directory} holds no predictions ({FILE_PATTERN}): make them with `prelabel run`")
    known = sorted(((*read_info(path), path) for path in paths), key=lambda entry: entry[0].shard)
    first, expected_start = known[0][0], 0
    for info, rows, path in known:
        _check_next(info, directory, path.name, first, known[0][2].name, expected_start)
        expected_start += rows
    return [path for _, _, path in known]


def read_predictions(directory: str | Path, columns: list[str] | None = None) -> Any:
    """Reads all prediction files of an output directory at once; `prediction_tables` reads one after the other.

    Args:
        directory: The output of `prelabel run`, a path or URL.
        columns: The columns wanted; None for all.

    Returns:
        `pyarrow.Table` with all rows in the order of the input; `table_info` reads its metadata.

    Raises:
        InputError: There are none, one is damaged or missing, or they are not of one model and one input.
    """
    return require_pyarrow().concat_tables(prediction_tables(directory, columns))


def prediction_tables(directory: str | Path, columns: list[str] | None = None) -> Iterator[Any]:
    """Yields the rows of one prediction file after the other, in the order of the input; see `read_predictions`.

    The files are checked on the way: what a caller has seen before an error is right.
    """
    storage = open_storage(directory)
    names = _prediction_files(storage)
    if not names:
        raise InputError(f"{directory} holds no predictions ({FILE_PATTERN}): make them with `prelabel run`")
    first, expected_start, metadata = None, 0, None
    for name in names:
        info, table = read_columns(storage, name, columns)
        if first is None:
            first, metadata = info, table.schema.metadata  # that of the first shard, which starts the whole
        _check_next(info, directory, name, first, names[0], expected_start)
        expected_start += table.num_rows
        yield table.replace_schema_metadata(metadata)


def _check_next(
    info: ShardInfo, directory: str | Path, name: str, first: ShardInfo, first_name: str, expected_start: int
) -> None:
    """Raises `InputError` unless a file goes on at the row where the one before it ended, in the run of the first."""
    for field in ("model_id", "classes", "manifest_hash"):
        if getattr(info, field) != getattr(first, field):
            raise InputError(
                f"{directory}/{name} does not belong to {first_name}: its {field} is {getattr(info, field)}, "
                f"not {getattr(first, field)}; keep the outputs of different runs in different directories"
            )
    if info.start != expected_start:
        raise InputError(
            f"{directory} has a gap or an overlap before {name}: it starts at row {info.start}, "
            f"wanted is {expected_start}; run `prelabel run` with the same options again"
        )


def holds_predictions(directory: str | Path) -> bool:
    """Whether there is a prediction file."""
    storage = open_storage(directory)
    return storage.kind() == "folder" and bool(_prediction_files(storage))


def _prediction_files(storage: Storage) -> list[str]:
    """Returns the names in the order of the shards; a number of more than five digits sorts behind them."""
    try:
        names = storage.names()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(fnmatch.filter(names, FILE_PATTERN), key=lambda name: (len(name.split("-")[1]), name))
