"""Rows that somebody should look at whatever the confidence says; none of them is accepted by the certificate.

What makes a row suspect is known before any answer is read, so that the certificate may leave suspects out.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.answers import NO_CLASS, label_index, read_csv, some
from prelabel.audit.label_errors import likely_label_errors
from prelabel.audit.pile import Pile, probabilities_at
from prelabel.duplicates.table import read_pairs
from prelabel.errors import InputError
from prelabel.spreadsheets import with_lost_zeros
from prelabel.table import require_pyarrow

GIVEN_COLUMN = "label"


class Kind(IntEnum):
    """Why a row is suspect, in the order in which suspects are shown; 0 is no suspect."""

    NONE = 0
    ANSWER = 1
    """A person's answer in the audit is another label."""
    GIVEN_LABEL = 2
    """The label that came with the image is likely wrong."""
    DUPLICATE = 3
    """A near-duplicate has another label."""
    REALNESS = 4
    """The discriminator finds it hardly real."""
    UNDECODABLE = 5
    """There is no prediction."""


@dataclass(frozen=True)
class SuspectConfig:
    """What makes a row suspect. Choose it before you see the answers: the certified set leaves suspects out."""

    realness_quantile: float = 0.01
    """This share of the pile, the least real, is suspect; 0 for none (a `supervised` model has no realness)."""
    duplicates: Path | None = None
    """Parquet with columns `id` and `duplicate_of`, as `prelabel duplicates` writes it."""
    given_labels: Path | None = None
    """CSV with columns `id` and `label` that came with images; likely wrong labels are suspect (extra `audit`)."""


@dataclass
class Suspects:
    """The suspects among N rows."""

    kind: NDArray[np.int8]
    """int8 [N], a `Kind`."""
    severity: NDArray[np.float32]
    """float32 [N]: within a kind, lower ones are shown first."""
    notes: dict[int, str] = field(default_factory=dict)
    """Row -> reason, where it differs from row to row."""
    realness_floor: float | None = None
    """Rows with less realness are suspect, 0..1."""

    def reason(self, row: int, quantile: float) -> str:
        """Returns why a row is suspect."""
        if row in self.notes:
            return self.notes[row]
        if self.kind[row] == Kind.REALNESS:
            return f"realness under {self.realness_floor:.6g}, the {100 * quantile:g} % quantile of the pile"
        return "no prediction: see `error`"

    def mark(self, row: int, kind: Kind, note: str, severity: float = 0.0) -> None:
        """Makes a row suspect, or more so; of several reasons the first in the order of `Kind` counts."""
        if self.kind[row] == Kind.NONE or kind < self.kind[row]:
            self.kind[row], self.severity[row], self.notes[row] = kind, severity, note


def find_suspects(pile: Pile, config: SuspectConfig) -> Suspects:
    """Finds all suspects that do not depend on answers.

    Raises:
        InputError: An option is out of range, or a file is damaged or names ids that are not in the pile.
    """
    if not 0.0 <= config.realness_quantile < 1.0:
        raise InputError(f"--realness-quantile {config.realness_quantile} is not usable: 0 to under 1 wanted")
    suspects = Suspects(np.zeros(len(pile), np.int8), np.zeros(len(pile), np.float32))
    suspects.kind[~pile.predicted] = Kind.UNDECODABLE
    if config.realness_quantile:
        # A value that occurs: float32 and the quantile's own rounding must not decide.
        floor = np.quantile(pile.realness[pile.predicted], config.realness_quantile, method="higher")
        suspects.realness_floor = float(floor)
        low = pile.predicted & (pile.realness < floor)
        suspects.kind[low] = Kind.REALNESS
        suspects.severity[low] = pile.realness[low]
    if config.duplicates is not None:
        _mark_duplicates(suspects, pile, config.duplicates)
    if config.given_labels is not None:
        _mark_given_labels(suspects, pile, config.given_labels)
    return suspects


def mark_answers(suspects: Suspects, pile: Pile, rows: NDArray[np.int64], answers: NDArray[np.int32]) -> None:
    """Makes the audited rows suspect whose answer is another label, after the certificate is made.

    Args:
        suspects: Changed in place.
        pile: The predictions.
        rows: int64 [n], the audited rows.
        answers: int32 [n], -1..K-1, what people said.
    """
    for row, answer in zip(rows.tolist(), answers.tolist(), strict=True):
        if answer != pile.label[row]:
            said = "that it is none of the classes" if answer == NO_CLASS else repr(pile.classes[answer])
            suspects.mark(row, Kind.ANSWER, f"a person says {said} (audit)")


def rows_of(pile: Pile, ids: Any, path: Path) -> NDArray[np.int64]:
    """Returns the rows of ids, int64 [n].

    Raises:
        InputError: An id is not in the pile.
    """
    import pyarrow.compute as pc

    found = pc.index_in(ids, value_set=pile.ids)
    if found.null_count:
        ids = require_pyarrow().array(with_lost_zeros(ids.to_pylist(), pile.ids.to_pylist()), "string")
        found = pc.index_in(ids, value_set=pile.ids)
    if found.null_count:
        unknown = ids.filter(pc.is_null(found)).to_pylist()
        raise InputError(f"{path} names ids that are not in the predictions: {some([str(one) for one in unknown])}")
    rows: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return rows


def _mark_duplicates(suspects: Suspects, pile: Pile, path: Path) -> None:
    pairs = np.stack([rows_of(pile, column, path) for column in read_pairs(path, pile.manifest_hash)], axis=1)
    labels = pile.label[pairs]
    pairs = pairs[(labels[:, 0] != labels[:, 1]) & (labels >= 0).all(axis=1)]
    both = np.concatenate([pairs, pairs[:, ::-1]])
    for (row, twin), name in zip(both.tolist(), pile.ids_at(both[:, 1]), strict=True):
        label = pile.classes[pile.label[twin]]
        suspects.mark(row, Kind.DUPLICATE, f"near-duplicate of {name}, whose label is {label!r}")


def _mark_given_labels(suspects: Suspects, pile: Pile, path: Path) -> None:
    given = [(identity, name) for identity, name in read_csv(path, GIVEN_COLUMN) if name]
    if not given:
        raise InputError(f"{path} holds no labels")
    rows = rows_of(pile, require_pyarrow().array([identity for identity, _ in given]), path)
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"{path} gives an id a label twice")
    labels = np.array([label_index(path, identity, name, pile.classes) for identity, name in given], np.int32)
    usable = pile.predicted[rows] & (labels != NO_CLASS)
    rows, labels = rows[usable], labels[usable]
    if len(found := np.unique(labels)) < 2:
        which = f"are all {pile.classes[found[0]]!r}" if len(found) else "are of no class, or of images without one"
        raise InputError(
            f"--given-labels {path}: its labels {which}: errors can be found among labels of two classes or more"
        )
    for order, i in enumerate(likely_label_errors(labels, probabilities_at(pile.directory, rows))):
        row, name = int(rows[i]), pile.classes[labels[i]]
        suspects.mark(row, Kind.GIVEN_LABEL, f"its given label {name!r} is likely wrong (cleanlab)", order)
