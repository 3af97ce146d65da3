"""What an audit reads of an output directory of `prelabel run`: a few columns whole, probabilities batch by batch.

N rows, K classes. A million rows of ten classes take about 100 MB.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.files import sha256_file
from prelabel.table import ordered_files, read_info, read_predictions, require_pyarrow, table_info

BATCH_ROWS = 65_536
"""Rows whose probabilities are in memory at a time."""


@dataclass(frozen=True)
class Pile:
    """The predictions of one model for one input."""

    directory: Path
    """Where they lie."""
    sha256: str
    """Hash over the files' bytes: the same hash, the same pile."""
    model_id: str
    """The model that made them."""
    manifest_hash: str
    """Hash of the input."""
    classes: tuple[str, ...]
    """Class names in label order."""
    ids: Any
    """`pyarrow.ChunkedArray` of N strings."""
    label: NDArray[np.int32]
    """int32 [N], -1..K-1: the predicted class, -1 where there is no prediction."""
    confidence: NDArray[np.float32]
    """float32 [N], 0..1, NaN where there is no prediction."""
    realness: NDArray[np.float32]
    """float32 [N], 0..1, NaN where there is no prediction."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which rows have a prediction, bool [N]: an audit is about those."""
        return self.label >= 0

    def ids_at(self, rows: NDArray[np.int64]) -> list[str]:
        """Returns the ids of rows int64 [n]."""
        found: list[str] = self.ids.take(require_pyarrow().array(rows)).to_pylist()
        return found


def read_pile(directory: Path) -> Pile:
    """Reads the columns that an audit needs.

    Raises:
        InputError: There are no predictions, they are damaged, or none of them has a label.
    """
    pa = require_pyarrow()
    import pyarrow.compute as pc

    table = read_predictions(directory, ["id", "label", "confidence", "realness"])
    made_by = table_info(table)
    label = pc.fill_null(pc.index_in(table["label"], value_set=pa.array(made_by.classes)), -1)
    pile = Pile(
        directory=directory,
        sha256=_hash(directory),
        model_id=made_by.model_id,
        manifest_hash=made_by.manifest_hash,
        classes=made_by.classes,
        ids=table["id"],
        label=label.to_numpy().astype(np.int32, copy=False),
        confidence=table["confidence"].to_numpy().astype(np.float32, copy=False),
        realness=table["realness"].to_numpy().astype(np.float32, copy=False),
    )
    if not pile.predicted.any():
        raise InputError(f"{directory} holds {len(pile):,} rows and no prediction: there is nothing to audit")
    return pile


def holds_lanes(directory: Path) -> bool:
    """Whether these predictions are output of `prelabel audit apply`."""
    return "lane" in require_pyarrow().parquet.read_schema(shards(directory)[0][0]).names


def shards(directory: Path) -> list[tuple[Path, int]]:
    """Returns the prediction files and the position of the first row of each, in the order of the input."""
    return [(path, read_info(path)[0].start) for path in ordered_files(directory)]


def probability_batches(directory: Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yields (position of the first row, float32 [n, K] 0..1) until all rows were there; NaN where no prediction is."""
    pa = require_pyarrow()
    for path, start in shards(directory):
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["probabilities"]):
                column = batch.column(0)
                values = column.flatten().to_numpy(zero_copy_only=False)
                yield start, values.reshape(len(column), -1).astype(np.float32, copy=False)
                start += len(column)


def probabilities_at(directory: Path, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns float32 [n, K], 0..1, of rows int64 [n] in any order."""
    order = np.argsort(rows, kind="stable")
    parts = []
    for start, values in probability_batches(directory):
        first, last = np.searchsorted(rows[order], [start, start + len(values)])
        parts.append(values[rows[order[first:last]] - start])
    found = np.concatenate(parts)
    result = np.empty_like(found)
    result[order] = found
    return result


def _hash(directory: Path) -> str:
    digest = hashlib.sha256()
    for path, _ in shards(directory):
        digest.update(sha256_file(path).encode())
    return digest.hexdigest()
