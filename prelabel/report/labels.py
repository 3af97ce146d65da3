"""Labels that the predictions are compared with: of a CSV file, or of the images themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.answers import label_index, read_csv, some
from prelabel.audit.suspects import GIVEN_COLUMN
from prelabel.audit.tasks import ANSWER_COLUMN
from prelabel.errors import InputError
from prelabel.report.rows import Rows, positions_of
from prelabel.sources import Source, open_source
from prelabel.spreadsheets import read_header
from prelabel.table import require_pyarrow

UNLABELLED = -2
"""Label index of rows without a label; `prelabel.audit.answers.NO_CLASS` is a label: none of the classes."""


@dataclass(frozen=True)
class Labels:
    """The labels of N rows."""

    index: NDArray[np.int32]
    """int32 [N], -2..K-1."""
    of_audit: bool = False
    """Whether they are answers of an audit, which decide the lanes of their own rows."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows have one, bool [N]."""
        known: NDArray[np.bool_] = self.index != UNLABELLED
        return known


def read_labels(given: str, rows: Rows) -> Labels:
    """Reads a CSV file (columns `id` and `label`, or the tasks of an audit), or the labels that an input carries.

    Raises:
        InputError: It is damaged, of another input, names an id that is not there or twice, a label that is no class,
            or holds no label.
    """
    is_csv = given.lower().endswith(".csv")
    of_audit = is_csv and _column(Path(given)) == ANSWER_COLUMN
    labels = Labels(np.full(len(rows), UNLABELLED, np.int32), of_audit)
    if is_csv:
        _fill_from_csv(labels, Path(given), rows)
    else:
        for row, label in _of_source(source_of(given, rows, "--labels"), len(rows)):
            labels.index[row] = label_index(Path(given), f"row {row}", label, rows.classes)
    if not labels.known.any():
        raise InputError(f"{given} holds no labels for these predictions: leave --labels out")
    return labels


def source_of(where: str, rows: Rows, option: str) -> Source:
    """Opens the images that were predicted.

    Raises:
        InputError: It is no input, or another one.
    """
    source = open_source(where)
    if source.manifest_hash != rows.manifest_hash:
        raise InputError(
            f"{option} {where} is another input (manifest {source.manifest_hash[:12]}) than that of the predictions "
            f"({rows.manifest_hash[:12]}): give it as it was given to `prelabel run`"
        )
    return source


def _fill_from_csv(labels: Labels, path: Path, rows: Rows) -> None:
    given = [(identity, name) for identity, name in read_csv(path, _column(path)) if name]
    ids = [identity for identity, _ in given]
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = [one for one in ids if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
        raise InputError(f"{path} labels more than once: {some(twice)}; leave one label each")
    positions = positions_of(rows.directory, require_pyarrow().array(ids, "string"), path)
    labels.index[positions] = [label_index(path, identity, name, rows.classes) for identity, name in given]


def _column(path: Path) -> str:
    header = read_header(path)
    return ANSWER_COLUMN if GIVEN_COLUMN not in header and ANSWER_COLUMN in header else GIVEN_COLUMN


def _of_source(source: Source, count: int) -> Iterator[tuple[int, str]]:
    """Yields (row, label) of images that have one; every image is read, none decoded."""
    for row, sample in enumerate(source.read(0, count)):
        if sample.label is not None:
            yield row, sample.label
