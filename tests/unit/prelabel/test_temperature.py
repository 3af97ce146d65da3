"""Temperature scaling: it keeps what wins, is found again, and never makes things worse where it was fitted."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prelabel.calibration import (
    SMALLEST_PROBABILITY,
    expected_calibration_error,
    negative_log_likelihood,
)
from prelabel.errors import InputError
from prelabel.temperature import TEMPERATURES, apply_temperature, fit_temperature
from support.answers import GOOD, Answers, answers, sampled, softmax


@given(answers(), st.floats(0.01, 100.0))
def test_a_temperature_keeps_rows_and_winners(given_answers: Answers, temperature: float) -> None:
    probabilities, _ = given_answers
    scaled = apply_temperature(probabilities, temperature)
    assert scaled.sum(axis=1) == pytest.approx(1.0)
    # The winner stays among the most probable: two probabilities may become equal, but never change places.
    winners = probabilities.argmax(axis=1)
    assert scaled[np.arange(len(winners)), winners].tolist() == scaled.max(axis=1).tolist()
    confidence = probabilities.max(axis=1)
    assert (
        scaled.max(axis=1) <= confidence + 1e-6 if temperature >= 1 else scaled.max(axis=1) >= confidence - 1e-6
    ).all()


@given(answers())
def test_temperature_one_changes_nothing(given_answers: Answers) -> None:
    probabilities, _ = given_answers
    assert apply_temperature(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-6)


@given(answers())
def test_a_fitted_temperature_is_never_worse_where_it_was_fitted(given_answers: Answers) -> None:
    probabilities, labels = given_answers
    temperature = fit_temperature(probabilities, labels)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    best = exact_loss(probabilities, labels, temperature)
    for other in (0.05, 0.5, 0.99 * temperature, 1.0, 1.01 * temperature, 2.0, 20.0):
        if TEMPERATURES[0] <= other <= TEMPERATURES[1]:
            loss = exact_loss(probabilities, labels, other)
            assert best <= loss + 1e-6 * (1.0 + loss)
    after = negative_log_likelihood(apply_temperature(probabilities, temperature), labels)
    assert after <= negative_log_likelihood(probabilities, labels) + 1e-5


def exact_loss(probabilities: NDArray[Any], labels: NDArray[np.int64], temperature: float) -> float:
    """The likelihood loss without a smallest probability after the scaling: what the fit minimises."""
    log_p = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY)) / temperature
    log_p -= log_p.max(axis=1, keepdims=True)
    return float((np.log(np.exp(log_p).sum(axis=1)) - log_p[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fit_finds_the_temperature_that_was_put_in(temperature: float) -> None:
    logits, labels = sampled(20_000, 10, 2.0, seed=0)
    off = softmax(logits * temperature).astype(np.float32)
    fitted = fit_temperature(off, labels)
    assert fitted == pytest.approx(temperature, rel=0.03)
    assert expected_calibration_error(apply_temperature(off, fitted), labels) < 0.01
    if temperature != 1.0:
        assert expected_calibration_error(off, labels) > 0.05


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 4.0))
def test_the_fit_undoes_a_temperature_exactly(seed: int, temperature: float) -> None:
    logits, labels = sampled(60, 4, 1.5, seed)
    fitted = fit_temperature(softmax(logits), labels)
    again = fit_temperature(apply_temperature(softmax(logits), temperature), labels)
    if 0.1 < fitted < 10.0:  # away from the ends of the range
        assert again * temperature == pytest.approx(fitted, rel=1e-3)


def test_an_image_that_stands_for_three_counts_as_three() -> None:
    logits, labels = sampled(50, 4, 1.5, seed=1)
    probabilities, weights = softmax(logits * 2), np.where(np.arange(50) % 2, 3.0, 1.0)
    repeated = np.repeat(np.arange(50), weights.astype(int))
    fitted = fit_temperature(probabilities, labels, weights)
    assert fitted == pytest.approx(fit_temperature(probabilities[repeated], labels[repeated]), rel=1e-5)
    assert fitted != pytest.approx(fit_temperature(probabilities, labels), rel=1e-3)


@pytest.mark.parametrize("weights", [np.ones(3), np.array([1.0, 0.0]), np.array([1.0, np.nan])])
def test_bad_weights_are_named(weights: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="weights have shape"):
        fit_temperature(GOOD, np.array([0, 1]), weights)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperatures_are_named(temperature: float) -> None:
    with pytest.raises(InputError, match=f"temperature is {temperature}"):
        apply_temperature(GOOD, temperature)
