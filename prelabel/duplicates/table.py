"""The file of `prelabel duplicates`: one Parquet row for each image that is a duplicate of an earlier one.

Columns, none of them null: `id` string, the image; `duplicate_of` string, the id of an earlier image that stands
for it and has no row of its own; `distance` int32 (0..64), bits in which their perceptual hashes differ; `kind` string,
`exact` (the decoded pixels of the two are the same) or `near`. Rows are in the order of the input. The schema metadata
says under `prelabel` (JSON) what was compared: `DuplicatesInfo`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prelabel.duplicates.fingerprints import Fingerprints
from prelabel.duplicates.groups import Groups
from prelabel.errors import InputError
from prelabel.files import write_atomically
from prelabel.reading import readable, readable_parquet
from prelabel.table import METADATA_KEY, require_pyarrow

KIND = "duplicates"
PAIR_COLUMNS = ("id", "duplicate_of")


@dataclass(frozen=True)
class DuplicatesInfo:
    """What a file of duplicates is about; its metadata under `prelabel`."""

    version: str
    """Version of prelabel."""
    manifest_hash: str
    """Hash of the whole input."""
    images: int
    """Images of the input."""
    unreadable: int
    """Images among them that could not be decoded; they are no duplicates of anything."""
    exact: int
    """Rows of kind `exact`."""
    near: int
    """Rows of kind `near`."""
    distance: int | None
    """Most bits in which hashes of near-duplicates differ; None: only exact duplicates were looked for."""
    difference: float | None
    """Most mean difference of their thumbnails, in grey levels 0..255; None as above."""
    kind: str = KIND
    """What the file is."""


def write_duplicates(path: Path, prints: Fingerprints, groups: Groups, info: DuplicatesInfo) -> None:
    """Writes the file, whole or not at all.

    Raises:
        InputError: pyarrow is missing.
    """
    pa = require_pyarrow()
    found = np.flatnonzero(groups.duplicate_of >= 0)
    fields = [("id", pa.string()), ("duplicate_of", pa.string()), ("distance", pa.int32()), ("kind", pa.string())]
    schema = pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in fields], {METADATA_KEY: json.dumps(asdict(info))}
    )
    columns = [
        pa.array([prints.ids[i] for i in found], pa.string()),
        pa.array([prints.ids[i] for i in groups.duplicate_of[found]], pa.string()),
        pa.array(groups.distance[found].astype(np.int32)),
        pa.array(np.where(groups.exact[found], "exact", "near"), pa.string()),
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    write_atomically(path, lambda file: pa.parquet.write_table(table, file, compression="zstd"))


def read_duplicates(path: Path) -> tuple[Any, DuplicatesInfo]:
    """Returns the rows as `pyarrow.Table`, and what they are about.

    Raises:
        InputError: pyarrow is missing, or the file cannot be read, or is none of `prelabel duplicates`.
    """
    pa = require_pyarrow()
    with readable_parquet(str(path)), pa.parquet.ParquetFile(path) as file:
        table = file.read()
    try:
        fields = json.loads(table.schema.metadata[METADATA_KEY])
        if fields["kind"] != KIND:
            raise KeyError
        return table, DuplicatesInfo(**fields)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} is no file of duplicates: make one with `prelabel duplicates`") from None


def read_pairs(path: Path, manifest_hash: str) -> tuple[Any, Any]:
    """Returns each duplicate's id and the id of the image that stands for it: two Arrow columns of strings.

    A table that other software wrote will do: it needs these two columns and nothing else.

    Args:
        path: The file.
        manifest_hash: Of the input that it is to be about; other software's table does not say.

    Raises:
        InputError: pyarrow is missing, the file cannot be read, has no such columns, or is about another input.
    """
    pa = require_pyarrow()
    complaint = f"{path} is no table of duplicates ({' and '.join(PAIR_COLUMNS)})"
    with readable(complaint, OSError, KeyError, pa.ArrowException):
        with pa.parquet.ParquetFile(path) as file:
            table = file.read(list(PAIR_COLUMNS))
        # A row without `duplicate_of` is no duplicate.
        table = table.drop_null()
        duplicates, originals = (table[name].cast(pa.string()) for name in PAIR_COLUMNS)
    if METADATA_KEY in (table.schema.metadata or {}):
        check_input(path, read_duplicates(path)[1], manifest_hash)
    return duplicates, originals


def check_input(path: Path, info: DuplicatesInfo, manifest_hash: str) -> None:
    """Raises `InputError` unless a file of duplicates is about an input: ids that are numbers are those of any."""
    if info.manifest_hash != manifest_hash:
        raise InputError(
            f"{path} is about another input (manifest {info.manifest_hash[:12]}, not {manifest_hash[:12]}): make it "
            "again with `prelabel duplicates`"
        )
