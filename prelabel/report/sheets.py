"""Which rows the page shows, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.answers import NO_CLASS
from prelabel.audit.label_errors import likely_label_errors
from prelabel.audit.lanes import REVIEW, SUSPECT
from prelabel.audit.pile import probabilities_at
from prelabel.contact_sheet import choose
from prelabel.errors import InputError
from prelabel.report.duplicates import Duplicates
from prelabel.report.figures import Comparison
from prelabel.report.rows import Lanes, Rows

SHEET_IMAGES = 48
"""Four rows on a wide screen: more is for the labelling tool."""
FEW_CLASSES = 20
CLASS_IMAGES = {True: 8, False: 4}
"""Images of a class for each of certain, uncertain and unreal, by whether there are at most `FEW_CLASSES`."""
MAX_CLASSES = 100
"""Sheets of classes: the most frequent ones."""


@dataclass(frozen=True)
class Sheet:
    """Images under one heading."""

    title: str
    """What they have in common; not escaped."""
    note: str
    """How they were chosen, in a sentence; not escaped."""
    rows: tuple[int, ...]
    """In the order in which they are shown."""


@dataclass(frozen=True)
class ClassSheets:
    """The sheets of one class."""

    label: int
    """Class index."""
    rows: int
    """How many rows are predicted as it."""
    sheets: tuple[Sheet, ...]
    """Certain, uncertain, unreal."""


def whole_sheets(rows: Rows) -> list[Sheet]:
    """Returns the sheets that need nothing but predictions, and those of the lanes where there are any."""
    predicted = np.flatnonzero(rows.predicted)
    by_confidence = predicted[np.argsort(-rows.confidence[predicted], kind="stable")]
    by_realness = predicted[np.argsort(rows.realness[predicted], kind="stable")]
    sheets = [
        _sheet("Most certain", "The highest confidence of all rows.", by_confidence),
        _sheet("Least certain", "The lowest confidence of all rows.", by_confidence[::-1]),
    ]
    if rows.lanes is not None:
        sheets += [
            _sheet(
                "Review first",
                "The head of the review lane: most informative first, different confusions in turns.",
                _by_rank(rows.lanes, REVIEW),
            ),
            _sheet(
                "Suspects",
                "The head of the suspect lane, in the order of their reasons.",
                _by_rank(rows.lanes, SUSPECT),
            ),
        ]
    least_real = "The lowest realness of all rows: what the discriminator would rather call generated."
    return [*sheets, _sheet("Least real", least_real, by_realness)]


def class_sheets(rows: Rows) -> list[ClassSheets]:
    """Returns the sheets of the most frequent predicted classes, in the order of the classes."""
    counts = np.bincount(rows.label[rows.predicted], minlength=len(rows.classes))
    shown = sorted(k for k in np.argsort(-counts, kind="stable")[:MAX_CLASSES].tolist() if counts[k])
    images = CLASS_IMAGES[len(shown) <= FEW_CLASSES]
    return [
        ClassSheets(
            k,
            int(counts[k]),
            tuple(
                Sheet(block, "", tuple(found[:images]))
                for block, found in choose(rows.label, rows.confidence, rows.realness, k).items()
            ),
        )
        for k in shown
    ]


def label_error_sheet(rows: Rows, comparison: Comparison, sample: int, seed: int) -> Sheet:
    """Returns the rows whose label is likely wrong, the most likely first.

    Args:
        rows: The predictions.
        comparison: With labels.
        sample: Rows that are searched, 2 or more; where more have a label, they are drawn at random.
        seed: Of that draw.
    """
    title, usable = "Likely label errors", np.flatnonzero(comparison.label != NO_CLASS)
    searched = f"all {len(usable):,} rows with a label and a prediction"
    if len(usable) > sample:
        searched = (
            f"a random sample of {sample:,} of the {len(usable):,} rows with a label and a prediction, seed {seed}"
        )
        usable = np.sort(np.random.default_rng(seed).choice(usable, sample, replace=False))
    chosen = comparison.rows[usable]
    try:
        issues = likely_label_errors(comparison.label[usable], probabilities_at(rows.directory, chosen))
    except InputError as error:  # one class only, or no cleanlab: the rest of the page needs neither
        return Sheet(title, f"Not searched: {error}.", ())
    return _sheet(title, f"{len(issues):,} found by cleanlab in {searched}.", chosen[issues])


def duplicate_sheet(duplicates: Duplicates) -> Sheet:
    """Returns pairs, one row after the other, those with different labels first."""
    note = (
        f"{len(duplicates.pairs):,} images repeat an earlier one; {duplicates.different:,} of them have another label "
        "than it. Each is followed by the one that it repeats; pairs with different labels come first."
    )
    return _sheet("Duplicates", note, duplicates.pairs.reshape(-1))


def all_rows(sheets: Sequence[Sheet], classes: Sequence[ClassSheets]) -> list[int]:
    """Returns the rows of all sheets, as often as they are shown."""
    return [row for sheet in [*sheets, *(one for group in classes for one in group.sheets)] for row in sheet.rows]


def _sheet(title: str, note: str, rows: NDArray[np.int64]) -> Sheet:
    return Sheet(title, note, tuple(rows[:SHEET_IMAGES].tolist()))


def _by_rank(lanes: Lanes, lane: int) -> NDArray[np.int64]:
    members = np.flatnonzero(lanes.lane == lane)
    return members[np.argsort(lanes.rank[members], kind="stable")]
