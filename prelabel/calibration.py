"""How far a classifier's probabilities can be trusted: calibration figures, entropy, and AUROC.

Everything here is numpy on arrays of answers; n images, K classes. Logarithms are natural, so losses are in nats.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError

Probabilities = NDArray[np.floating[Any]]
"""float [n, K], 0..1, rows sum to 1."""
Labels = NDArray[np.integer[Any]]
"""int [n], 0..K-1."""
Scores = NDArray[np.floating[Any]]
"""float [n], one finite number for each image."""

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017, so that figures can be compared."""
ROW_SUM_TOLERANCE = 1e-3
"""Rounding in float32 or float16 stays below it; logits or scores of one class against the rest do not."""
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""1.2e-38: a model's float32 softmax answers 0 for less than that, and log 0 would make every mean infinite."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence lies in one interval, open below and closed above (the first: closed)."""

    low: float
    """Lower end of the interval, 0..1."""
    high: float
    """Upper end of the interval, 0..1."""
    count: int
    """Images in it."""
    confidence: float | None
    """Their mean confidence, 0..1; None in an empty bin."""
    accuracy: float | None
    """Share of them whose most probable class is right, 0..1; None in an empty bin."""


def reliability_bins(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> list[ReliabilityBin]:
    """Sorts images by the probability of their most probable class into `bins` intervals of equal width over 0..1.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1.
        labels: int [n], 0..K-1, the right classes.
        bins: Number of intervals.

    Raises:
        InputError: An array has no images, another shape, or values out of range; or `bins` is less than 1.
    """
    check_probabilities(probabilities)
    check_labels(labels, probabilities)
    if bins < 1:
        raise InputError(f"bins is {bins}: 1 or more wanted")
    return confidence_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)


def confidence_bins(confidence: Scores, right: NDArray[np.bool_], bins: int = BINS) -> list[ReliabilityBin]:
    """Returns `reliability_bins` where only the confidence of each image is known, and whether its label is right.

    Args:
        confidence: float [n], 0..1.
        right: bool [n].
        bins: Number of intervals, 1 or more.
    """
    confidence = confidence.astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    position = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(position, minlength=bins).tolist()
    confidences = np.bincount(position, confidence, minlength=bins).tolist()
    rights = np.bincount(position, right, minlength=bins).tolist()
    return [
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=count,
            confidence=confidences[i] / count if count else None,
            accuracy=rights[i] / count if count else None,
        )
        for i, count in enumerate(counts)
    ]


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Returns the mean over images of |accuracy - confidence| of their bin, 0..1 (Guo et al. 2017, eq. 3).

    Only the most probable class counts. The figure is biased upwards where bins hold few images.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1.
        labels: int [n], 0..K-1, the right classes.
        bins: Number of intervals of equal width.

    Raises:
        InputError: See `reliability_bins`.
    """
    return calibration_error_of(reliability_bins(probabilities, labels, bins))


def calibration_error_of(bins: list[ReliabilityBin]) -> float:
    """Returns the expected calibration error, 0..1, of bins that hold at least one image."""
    gaps = [
        one.count * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    return float(sum(gaps) / sum(one.count for one in bins))


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Returns the mean of -log p(right class) in nats, >= 0.

    A probability under `SMALLEST_PROBABILITY` counts as that, so no image costs more than 87.3 nats.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1.
        labels: int [n], 0..K-1, the right classes.

    Raises:
        InputError: An array has no images, another shape, or values out of range.
    """
    check_probabilities(probabilities)
    check_labels(labels, probabilities)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    # A float32 row can hold 1.0000001.
    return float(-np.log(np.clip(of_label, SMALLEST_PROBABILITY, 1.0)).mean())


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Returns the mean squared distance of the probabilities from the right one-hot row, 0..2 (Brier 1950, eq. 2).

    The sum runs over all classes: for two classes it is twice the score that only looks at one of them.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1.
        labels: int [n], 0..K-1, the right classes.

    Raises:
        InputError: An array has no images, another shape, or values out of range.
    """
    check_probabilities(probabilities)
    check_labels(labels, probabilities)
    distance = probabilities.astype(np.float64)  # a copy: astype's default
    distance[np.arange(len(labels)), labels] -= 1.0
    return float(np.square(distance).sum(axis=1).mean())


def entropy(probabilities: Probabilities) -> NDArray[np.float64]:
    """Returns -sum p log p of each row in nats, float64 [n], 0..log K; 0 log 0 is 0.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1.

    Raises:
        InputError: The array has no images, another shape, or values out of range.
    """
    check_probabilities(probabilities)
    p = probabilities.astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    terms: NDArray[np.float64] = -(p * np.log(np.where(p > 0.0, p, 1.0))).sum(axis=1)
    return np.maximum(terms, 0.0)  # a certain row is -0.0


def auroc(inside: Scores, outside: Scores) -> float:
    """Returns the area under the ROC curve, 0..1: the chance that an inside score is over an outside one, ties half.

    0.5 says nothing, 1 separates the two. This is the Mann-Whitney U statistic over n * m (Hanley & McNeil 1982); for
    out-of-distribution scores see Hendrycks & Gimpel 2017.

    Args:
        inside: float [n], finite: scores of what should score high.
        outside: float [m], finite: scores of what should score low.

    Raises:
        InputError: An array has no scores, another shape, or numbers that are not finite.
    """
    check_scores(inside, "inside")
    check_scores(outside, "outside")
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    below_or_equal = np.searchsorted(ordered, inside, side="right")
    return float((below.sum() + below_or_equal.sum()) / (2 * len(inside) * len(outside)))


def check_probabilities(probabilities: Probabilities) -> None:
    """Raises `InputError` unless the array is float [n >= 1, K >= 2], 0..1, with rows that sum to 1."""
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise InputError(f"probabilities are {probabilities.dtype}: a float array wanted")
    if probabilities.ndim != 2 or probabilities.shape[0] < 1 or probabilities.shape[1] < 2:
        raise InputError(f"probabilities have shape {list(probabilities.shape)}: [n >= 1, K >= 2] wanted")
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise InputError(f"probabilities of image {finite.argmin()} are not finite: leave failed images out")
    low, high = float(probabilities.min()), float(probabilities.max())
    if low < 0.0 or high > 1.0 + ROW_SUM_TOLERANCE:
        raise InputError(f"probabilities go from {low:g} to {high:g}: 0 to 1 wanted, not logits")
    wrong = np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1.0)
    if wrong.max() > ROW_SUM_TOLERANCE:
        worst = int(wrong.argmax())
        total = float(probabilities[worst].sum(dtype=np.float64))
        raise InputError(f"probabilities of image {worst} sum to {total:g}: 1 wanted")


def check_labels(labels: Labels, probabilities: Probabilities) -> None:
    """Raises `InputError` unless the array is int [n], 0..K-1, for probabilities [n, K]."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are {labels.dtype}: an integer array wanted")
    images, classes = probabilities.shape
    if labels.shape != (images,):
        raise InputError(f"labels have shape {list(labels.shape)}, but there are {images} images: [{images}] wanted")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(f"labels go from {low} to {high}: 0 to {classes - 1} wanted for {classes} classes")


def check_scores(scores: Scores, name: str) -> None:
    """Raises `InputError` unless the array is float [n >= 1] and finite."""
    if not np.issubdtype(scores.dtype, np.floating):
        raise InputError(f"{name} scores are {scores.dtype}: a float array wanted")
    if scores.ndim != 1 or len(scores) < 1:
        raise InputError(f"{name} scores have shape {list(scores.shape)}: [n >= 1] wanted")
    finite = np.isfinite(scores)
    if not finite.all():
        raise InputError(f"{name} score {finite.argmin()} is {scores[finite.argmin()]}: finite numbers wanted")
