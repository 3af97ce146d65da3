"""Prediction rows as Parquet: the schema, one file per shard, and reading a whole output directory back.

Columns: `id` string, `path` string, `label` string, `confidence` float32 (0..1), `probabilities` fixed-size list of
float32 [K] (0..1, sums to 1), `realness` float32 (0..1), `model_id` string, `error` string. In an error row `label`,
`confidence`, `realness` and each of the K `probabilities` are null; in all others `error` is. (Not the list itself: no
pyarrow up to 22 writes or reads a null among fixed-size lists, apache/arrow issues 35692 and 35697.)
Every file's schema metadata says under
`prelabel` (JSON) who made it and where it belongs.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prelabel.errors import InputError
from prelabel.files import write_atomically
from prelabel.predictions import PredictionBatch

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
    total, classes = len(batch), np.array(info.classes, object)
    if not len(ids) == len(paths) == total or batch.probabilities.shape != (total, len(classes)):
        raise ValueError(f"{len(ids)} ids and {len(paths)} paths for probabilities {list(batch.probabilities.shape)}")
    failed = np.zeros(total, bool)
    failed[list(batch.errors)] = True
    values = pa.array(
        np.ascontiguousarray(batch.probabilities, np.float32).reshape(-1), mask=np.repeat(failed, len(classes))
    )
    columns = [
        pa.array(ids, pa.string()),
        pa.array(paths, pa.string()),
        pa.array(classes[batch.label_index], pa.string(), mask=failed),
        pa.array(batch.confidence.astype(np.float32), mask=failed),
        pa.FixedSizeListArray.from_arrays(values, type=schema(info).field("probabilities").type),
        pa.array(batch.realness.astype(np.float32), mask=failed),
        pa.array([batch.model_id] * total, pa.string()),
        pa.array([batch.errors.get(i) for i in range(total)], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema(info))


def write_table(path: Path, table: Any) -> int:
    """Writes a table as one Parquet file, whole or not at all; returns its size in bytes."""
    pa = require_pyarrow()
    buffer = pa.BufferOutputStream()
    pa.parquet.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    write_atomically(path, lambda file: file.write(content))
    return int(content.size)


def read_info(path: Path) -> tuple[ShardInfo, int]:
    """Returns the metadata of a prediction file and its number of rows.

    Raises:
        InputError: The file cannot be read, or prelabel did not write it.
    """
    pa = require_pyarrow()
    try:
        metadata = pa.parquet.read_metadata(path)
        return _parse_info(metadata.metadata), metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())}") from None
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} is no prediction file: its metadata {METADATA_KEY.decode()!r} is missing") from None


def table_info(table: Any) -> ShardInfo:
    """Returns what a table of `to_table` or `read_predictions` says about itself; the whole counts as shard 0."""
    return _parse_info(table.schema.metadata)


def _parse_info(metadata: Any) -> ShardInfo:
    fields = json.loads(metadata[METADATA_KEY])
    return ShardInfo(**{**fields, "classes": tuple(fields["classes"])})


def read_predictions(directory: Path, columns: list[str] | None = None) -> Any:
    """Reads all prediction files of an output directory.

    Args:
        directory: The output of `prelabel run`.
        columns: The columns wanted; None for all.

    Returns:
        `pyarrow.Table` with all rows in the order of the input; `table_info` reads its metadata.

    Raises:
        InputError: There are none, one is damaged or missing, or they are not of one model and one input.
    """
    pa = require_pyarrow()
    paths = sorted(directory.glob(FILE_PATTERN))
    if not paths:
        raise InputError(f"{directory} holds no predictions ({FILE_PATTERN}): make them with `prelabel run`")
    known = sorted(((*read_info(path), path) for path in paths), key=lambda entry: entry[0].shard)
    first, expected_start, tables = known[0][0], 0, []
    for info, rows, path in known:
        for name in ("model_id", "classes", "manifest_hash"):
            if getattr(info, name) != getattr(first, name):
                raise InputError(
                    f"{path} does not belong to {known[0][2].name}: its {name} is {getattr(info, name)}, "
                    f"not {getattr(first, name)}; keep the outputs of different runs in different directories"
                )
        if info.start != expected_start:
            raise InputError(
                f"{directory} has a gap or an overlap before {path.name}: it starts at row {info.start}, "
                f"wanted is {expected_start}; run `prelabel run` with the same options again"
            )
        expected_start += rows
        try:
            # Not read_table: it takes folder names such as `set=1` for columns.
            with pa.parquet.ParquetFile(path) as file:
                tables.append(file.read(columns))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} is damaged: {' '.join(str(error).split())}; delete it and run again") from None
    metadata = tables[0].schema.metadata  # that of the first shard, which starts the whole
    return pa.concat_tables([table.replace_schema_metadata(metadata) for table in tables])
