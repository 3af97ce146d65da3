"""The numbers of the page, over all rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.answers import NO_CLASS
from prelabel.audit.lanes import LANES
from prelabel.calibration import ReliabilityBin, calibration_error_of, confidence_bins
from prelabel.report.labels import Labels
from prelabel.report.rows import Rows

HISTOGRAM_BINS = 20
"""Bars over 0..1: 0.05 wide, so that their edges are numbers that people read."""


@dataclass(frozen=True)
class Comparison:
    """The rows that have a prediction and a label."""

    rows: NDArray[np.int64]
    """int64 [n], ascending."""
    label: NDArray[np.int32]
    """int32 [n], -1..K-1, their labels; -1 for none of the classes."""
    right: NDArray[np.bool_]
    """bool [n], whether the prediction says the same."""
    matrix: NDArray[np.int64]
    """int64 [K, K]: rows by label, then by prediction; those of no class are left out."""
    bins: list[ReliabilityBin]
    """By confidence."""
    calibrated_bins: list[ReliabilityBin] | None
    """By calibrated confidence, where there are lanes."""
    of_audit: bool
    """Whether the labels are answers of an audit."""

    @property
    def no_class(self) -> int:
        """Rows whose label is none of the classes: always wrong."""
        return int((self.label == NO_CLASS).sum())

    @property
    def accuracy(self) -> float:
        """Share that is right, 0..1."""
        return float(self.right.mean())

    @property
    def calibration_error(self) -> float:
        """0..1."""
        return calibration_error_of(self.bins)


@dataclass(frozen=True)
class Figures:
    """What is counted of N rows and K classes."""

    confidence: NDArray[np.int64]
    """int64 [HISTOGRAM_BINS], predicted rows by confidence, 0..1."""
    realness: NDArray[np.int64]
    """int64 [HISTOGRAM_BINS], predicted rows by realness, 0..1."""
    per_class: NDArray[np.int64]
    """int64 [K], rows by predicted class."""
    mean_confidence: NDArray[np.float64]
    """float64 [K], of the rows predicted as the class; NaN where there is none."""
    lanes: NDArray[np.int64] | None
    """int64 [K + 1, lanes], rows by predicted class and lane; the last row is of those without a prediction."""
    comparison: Comparison | None
    """None where no predicted row has a label."""


def count_figures(rows: Rows, labels: Labels | None) -> Figures:
    """Counts everything."""
    classes, predicted = len(rows.classes), rows.predicted
    label, confidence = rows.label[predicted], rows.confidence[predicted]
    per_class = np.bincount(label, minlength=classes)
    sums = np.bincount(label, confidence.astype(np.float64), minlength=classes)
    lanes = None
    if rows.lanes is not None:
        group = np.where(predicted, rows.label, classes) * len(LANES) + rows.lanes.lane
        lanes = np.bincount(group, minlength=(classes + 1) * len(LANES)).reshape(classes + 1, len(LANES))
    return Figures(
        confidence=histogram(confidence),
        realness=histogram(rows.realness[predicted]),
        per_class=per_class,
        mean_confidence=np.divide(sums, per_class, out=np.full(classes, np.nan), where=per_class > 0),
        lanes=lanes,
        comparison=None if labels is None else compare(rows, labels),
    )


def histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns int64 [HISTOGRAM_BINS] of values float32 [n], 0..1; a softmax may end a little over 1."""
    counts, _ = np.histogram(np.clip(values, 0.0, 1.0), bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return counts.astype(np.int64)


def compare(rows: Rows, labels: Labels) -> Comparison | None:
    """Compares predictions with labels; None where no row has both."""
    both = np.flatnonzero(rows.predicted & labels.known)
    if not len(both):
        return None
    classes, label, predicted = len(rows.classes), labels.index[both], rows.label[both]
    right = label == predicted
    of_class = label != NO_CLASS
    cell = label[of_class].astype(np.int64) * classes + predicted[of_class]
    calibrated = None if rows.lanes is None else confidence_bins(rows.lanes.confidence[both], right)
    return Comparison(
        rows=both,
        label=label,
        right=right,
        matrix=np.bincount(cell, minlength=classes * classes).reshape(classes, classes),
        bins=confidence_bins(rows.confidence[both], right),
        calibrated_bins=calibrated,
        of_audit=labels.of_audit,
    )
