"""What the page needs of an output directory: a few columns of all N rows, and everything of the rows that it shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.answers import some
from prelabel.audit.lanes import LANES
from prelabel.audit.pile import shards
from prelabel.errors import InputError
from prelabel.reading import readable
from prelabel.report.causes import Causes
from prelabel.spreadsheets import with_lost_zeros
from prelabel.table import ordered_files, read_info, require_pyarrow

BATCH_ROWS = 16_384
"""Rows that are read at a time: with 1,000 classes their probabilities are 66 MB."""


@dataclass(frozen=True)
class Lanes:
    """The columns that `prelabel audit apply` adds."""

    lane: NDArray[np.int8]
    """int8 [N], index into `prelabel.audit.lanes.LANES`."""
    rank: NDArray[np.int64]
    """int64 [N], 1 is looked at first, in `review` and in `suspect`; 0 in `accept`."""
    confidence: NDArray[np.float32]
    """float32 [N], 0..1, calibrated; NaN where there is no prediction."""


@dataclass(frozen=True)
class Rows:
    """The predictions of one model for one input."""

    directory: Path
    """Where they lie."""
    model_id: str
    """The model that made them."""
    manifest_hash: str
    """Hash of the input."""
    version: str
    """Version of prelabel that made them."""
    classes: tuple[str, ...]
    """K class names in label order."""
    label: NDArray[np.int32]
    """int32 [N], -1..K-1: the predicted class, -1 where there is no prediction."""
    confidence: NDArray[np.float32]
    """float32 [N], 0..1, NaN where there is no prediction."""
    realness: NDArray[np.float32]
    """float32 [N], 0..1, NaN where there is no prediction."""
    causes: Causes
    """The rows without a prediction."""
    lanes: Lanes | None
    """None where the directory is that of a run."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Bool [N]."""
        return self.label >= 0


def read_rows(directory: Path) -> Rows:
    """Reads the columns, batch by batch.

    Raises:
        InputError: There are no predictions, one file is damaged or missing, or they are not of one model and input.
    """
    pa = require_pyarrow()
    import pyarrow.compute as pc

    first = ordered_files(directory)[0]
    about, _ = read_info(first)
    has_lanes = "lane" in pa.parquet.read_schema(first).names
    added = ["lane", "review_rank", "calibrated_confidence"] if has_lanes else []
    classes, lane_names, causes = pa.array(about.classes, pa.string()), pa.array(LANES), Causes()
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("label", "confidence", "realness", *added)}
    for _, batch in batches(directory, ["id", "error", *parts]):
        failed = batch.filter(pc.is_valid(batch["error"]))
        for identity, message in zip(failed["id"].to_pylist(), failed["error"].to_pylist(), strict=True):
            causes.add(identity, message)
        label = pc.fill_null(pc.index_in(batch["label"], value_set=classes), -1)
        parts["label"].append(_numpy(label, np.int32))
        for name in ("confidence", "realness", *added[2:]):
            parts[name].append(_numpy(batch[name], np.float32))
        if has_lanes:
            parts["lane"].append(_numpy(pc.index_in(batch["lane"], value_set=lane_names), np.int8))
            parts["review_rank"].append(_numpy(pc.fill_null(batch["review_rank"], 0), np.int64))
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    return Rows(
        directory=directory,
        model_id=about.model_id,
        manifest_hash=about.manifest_hash,
        version=about.version,
        classes=about.classes,
        label=whole["label"],
        confidence=whole["confidence"],
        realness=whole["realness"],
        causes=causes,
        lanes=Lanes(*(whole[name] for name in added)) if has_lanes else None,
    )


def batches(directory: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yields (position of the first row, `pyarrow.RecordBatch`) until all rows were there, in the order of the input.

    Raises:
        InputError: A file is damaged, or has no such column.
    """
    pa = require_pyarrow()
    for path, start in shards(directory):
        damaged = readable(f"{path} is damaged", OSError, pa.ArrowException, fix="delete it and run again")
        with damaged, pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield start, batch
                start += len(batch)


def details_at(rows: Rows, wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Returns row -> all its columns, for the rows that are shown."""
    pa = require_pyarrow()
    columns = ["id", "path", "probabilities", "error", *(["lane_reason"] if rows.lanes else [])]
    positions, found = np.unique(np.array(wanted, np.int64)), {}
    for start, batch in batches(rows.directory, columns):
        first, last = np.searchsorted(positions, [start, start + len(batch)])
        inside = positions[first:last]
        for row, fields in zip(inside.tolist(), batch.take(pa.array(inside - start)).to_pylist(), strict=True):
            found[row] = fields
    return found


def positions_of(directory: Path, ids: Any, path: Path) -> NDArray[np.int64]:
    """Returns the rows of ids, int64 [n].

    Args:
        directory: The predictions.
        ids: `pyarrow.Array` of n different strings.
        path: The file that names them, for the error.

    Raises:
        InputError: An id is not in the predictions.
    """
    position = _find(directory, ids)
    if (position < 0).any():
        known = [identity for _, batch in batches(directory, ["id"]) for identity in batch["id"].to_pylist()]
        position = _find(directory, require_pyarrow().array(with_lost_zeros(ids.to_pylist(), known), "string"))
    if unknown := np.flatnonzero(position < 0).tolist():
        names = [str(ids[i]) for i in unknown]
        raise InputError(f"{path} names ids that are not in the predictions: {some(names)}")
    return position


def _find(directory: Path, ids: Any) -> NDArray[np.int64]:
    """Returns the rows of ids, int64 [n], -1 where there is none."""
    import pyarrow.compute as pc

    position = np.full(len(ids), -1, np.int64)
    for start, batch in batches(directory, ["id"]):
        found = pc.index_in(batch["id"], value_set=ids)
        known = np.flatnonzero(_numpy(pc.is_valid(found), np.bool_))
        position[_numpy(found.drop_null(), np.int64)] = start + known
    return position


def _numpy(column: Any, kind: Any) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False).astype(kind, copy=False)
    return values
