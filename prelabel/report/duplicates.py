"""Duplicates that were found among the images, with what the model says about both of each pair."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.duplicates.table import read_pairs
from prelabel.report.rows import Rows, positions_of
from prelabel.table import require_pyarrow


@dataclass(frozen=True)
class Duplicates:
    """Pairs of rows, those with different labels first, then in the order of the file."""

    pairs: NDArray[np.int64]
    """int64 [n, 2]: a row, and an earlier one that shows nearly the same."""
    different: int
    """Pairs with two different labels: the first ones."""


def read_duplicates(path: Path, rows: Rows) -> Duplicates:
    """Reads the file of `prelabel duplicates` (Parquet with columns `id` and `duplicate_of`).

    Raises:
        InputError: It is no such file, or names ids that are not in the predictions.
    """
    pa = require_pyarrow()
    import pyarrow.compute as pc

    columns = [column.combine_chunks() for column in read_pairs(path, rows.manifest_hash)]
    ids = pc.unique(pa.chunked_array(columns, pa.string()))
    position = positions_of(rows.directory, ids, path)
    pairs = np.stack(
        [position[pc.index_in(column, value_set=ids).to_numpy(zero_copy_only=False)] for column in columns], axis=1
    )
    labels = rows.label[pairs]
    different = (labels[:, 0] != labels[:, 1]) & (labels >= 0).all(axis=1)
    return Duplicates(pairs[np.argsort(~different, kind="stable")], int(different.sum()))
