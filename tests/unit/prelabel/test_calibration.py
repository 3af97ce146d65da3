"""Calibration figures: by hand, against slow definitions, and what must hold for any answers."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prelabel.calibration import (
    SMALLEST_PROBABILITY,
    auroc,
    brier_score,
    entropy,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from prelabel.errors import InputError
from prelabel.temperature import TEMPERATURES, apply_temperature, fit_temperature
from support.answers import GOOD, Answers, answers

SCORES = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0]) | st.floats(-1e6, 1e6), min_size=1, max_size=30).map(
    np.array
)


def test_figures_worked_out_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 1])
    # Bins of width 0.2: .6 is the top of the third; .8 of the fourth; the two .9 are in the fifth, one of them right.
    bins = reliability_bins(probabilities, labels, 5)
    assert [one.count for one in bins] == [0, 0, 1, 1, 2]
    assert [one.accuracy for one in bins] == [None, None, 1.0, 1.0, 0.5]
    assert bins[4].confidence == pytest.approx(0.9)
    assert (bins[4].low, bins[4].high) == (0.8, 1.0)
    assert expected_calibration_error(probabilities, labels, 5) == pytest.approx((0.4 + 0.2 + 2 * 0.4) / 4)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(-math.log(0.9 * 0.1 * 0.6 * 0.8) / 4)
    assert brier_score(probabilities, labels) == pytest.approx(2 * (0.01 + 0.81 + 0.16 + 0.04) / 4)


def test_certain_answers() -> None:
    right, labels = np.eye(3, dtype=np.float32), np.arange(3)
    assert expected_calibration_error(right, labels) == 0.0
    assert negative_log_likelihood(right, labels) == 0.0
    assert brier_score(right, labels) == 0.0
    assert fit_temperature(right, labels) == 1.0
    wrong = np.roll(labels, 1)
    assert expected_calibration_error(right, wrong) == 1.0
    assert negative_log_likelihood(right, wrong) == pytest.approx(-math.log(SMALLEST_PROBABILITY))
    assert brier_score(right, wrong) == 2.0
    assert fit_temperature(right, wrong) == pytest.approx(TEMPERATURES[1])
    assert entropy(right).tolist() == [0.0, 0.0, 0.0]


def test_more_classes_than_bins_edges_and_vague_answers_are_fine() -> None:
    vague = np.full((2, 30), 1 / 30)
    assert reliability_bins(vague, np.array([0, 1]))[0].count == 2
    assert fit_temperature(vague, np.array([0, 1])) == 1.0
    assert entropy(vague) == pytest.approx(math.log(30))


@given(answers(), st.integers(1, 20))
def test_bins_hold_every_image_once_and_add_up_to_the_accuracy(given_answers: Answers, count: int) -> None:
    probabilities, labels = given_answers
    bins = reliability_bins(probabilities, labels, count)
    assert len(bins) == count
    assert (bins[0].low, bins[-1].high) == (0.0, 1.0)
    assert all(one.high == other.low for one, other in itertools.pairwise(bins))
    assert sum(one.count for one in bins) == len(labels)
    for one in bins:
        assert (one.confidence is None) == (one.accuracy is None) == (one.count == 0)
        if one.confidence is not None:
            assert one.low - 1e-6 <= one.confidence <= one.high + 1e-6
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    assert sum(one.count * (one.accuracy or 0.0) for one in bins) / len(labels) == pytest.approx(accuracy)


@given(answers())
def test_figures_stay_in_their_ranges(given_answers: Answers) -> None:
    probabilities, labels = given_answers
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    gap = abs(accuracy - probabilities.max(axis=1).mean())
    error = expected_calibration_error(probabilities, labels)
    assert gap - 1e-6 <= error <= 1.0 + 1e-6  # one bin cannot say more than many
    assert expected_calibration_error(probabilities, labels, 1) == pytest.approx(gap, abs=1e-6)
    assert 0.0 <= negative_log_likelihood(probabilities, labels) <= -math.log(SMALLEST_PROBABILITY)
    assert 0.0 <= brier_score(probabilities, labels) <= 2.0 + 1e-6
    assert (entropy(probabilities) >= 0.0).all()
    assert (entropy(probabilities) <= math.log(probabilities.shape[1]) + 1e-6).all()


@given(answers(), st.randoms(use_true_random=False))
def test_order_of_images_and_of_classes_does_not_matter(given_answers: Answers, random: Any) -> None:
    probabilities, labels = given_answers
    images, classes = list(range(len(labels))), list(range(probabilities.shape[1]))
    random.shuffle(images)
    random.shuffle(classes)
    moved, moved_labels = probabilities[images][:, classes], np.argsort(classes)[labels[images]]
    for figure in (negative_log_likelihood, brier_score, fit_temperature):
        assert figure(moved, moved_labels) == pytest.approx(figure(probabilities, labels), rel=1e-4, abs=1e-9)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(inside: NDArray[Any], outside: NDArray[Any]) -> None:
    pairs = inside[:, None] - outside[None, :]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert auroc(inside, outside) == pytest.approx(expected, abs=1e-12)
    assert auroc(inside, outside) + auroc(outside, inside) == pytest.approx(1.0, abs=1e-12)
    assert auroc(-outside, -inside) == pytest.approx(expected, abs=1e-12)
    assert auroc(inside, inside) == 0.5


def test_auroc_of_scores_that_separate_and_of_constant_ones() -> None:
    low, high = np.linspace(0, 0.4, 7), np.linspace(0.5, 1, 9)
    assert auroc(high, low) == 1.0
    assert auroc(low, high) == 0.0
    assert auroc(np.ones(5, np.float32), np.ones(3, np.float32)) == 0.5


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.zeros((0, 3)), r"shape \[0, 3\]"),
        (np.ones((3, 1)), r"shape \[3, 1\]: \[n >= 1, K >= 2\]"),
        (np.array([0.5, 0.5]), r"shape \[2\]"),
        (np.array([[0, 1], [1, 0]]), "are int64: a float array"),
        (np.array([[0.5, 0.5], [np.nan, 1.0]]), "image 1 are not finite"),
        (np.array([[0.5, 0.5], [np.inf, 0.0]]), "image 1 are not finite"),
        (np.array([[2.0, -1.0], [0.5, 0.5]]), "from -1 to 2: 0 to 1 wanted, not logits"),
        (np.array([[0.5, 0.5], [0.5, 0.25]]), "image 1 sum to 0.75"),
    ],
)
@pytest.mark.parametrize(
    "figure",
    [
        reliability_bins,
        expected_calibration_error,
        negative_log_likelihood,
        brier_score,
        fit_temperature,
        lambda probabilities, _: apply_temperature(probabilities, 2.0),
        lambda probabilities, _: entropy(probabilities),
    ],
)
def test_bad_probabilities_are_named(
    figure: Callable[[Any, Any], object], probabilities: NDArray[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        figure(probabilities, np.zeros(len(probabilities), np.int64))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 2]), "from 0 to 2: 0 to 1 wanted"),
        (np.array([-1, 0]), "from -1 to 0: 0 to 1 wanted"),
        (np.array([0.0, 1.0]), "are float64: an integer array"),
        (np.array([0]), r"shape \[1\], but there are 2 images"),
        (np.array([[0, 1]]), r"shape \[1, 2\]"),
    ],
)
@pytest.mark.parametrize(
    "figure",
    [reliability_bins, expected_calibration_error, negative_log_likelihood, brier_score, fit_temperature],
)
def test_bad_labels_are_named(figure: Callable[[Any, Any], object], labels: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figure(GOOD, labels)


def test_bad_bins_are_named() -> None:
    with pytest.raises(InputError, match="bins is 0"):
        reliability_bins(GOOD, np.array([0, 1]), 0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([]), r"shape \[0\]"),
        (np.array([[1.0]]), r"shape \[1, 1\]"),
        (np.array([1.0, np.nan]), "score 1 is nan"),
        (np.array([1, 2]), "are int64"),
    ],
)
def test_bad_scores_are_named(scores: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match="inside.*" + message):
        auroc(scores, np.array([1.0]))
    with pytest.raises(InputError, match="outside.*" + message):
        auroc(np.array([1.0]), scores)
