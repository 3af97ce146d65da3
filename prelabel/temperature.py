"""Temperature scaling: one number that makes a classifier's probabilities as certain as they are right.

Arrays are those of `prelabel.calibration`; logarithms are natural, so losses are in nats.
"""

import math

import numpy as np
from numpy.typing import NDArray

from prelabel.calibration import SMALLEST_PROBABILITY, Labels, Probabilities, Scores, check_labels, check_probabilities
from prelabel.errors import InputError

TEMPERATURES = (0.01, 100.0)
"""Range of fitted temperatures; a model whose best one lies outside is broken, not miscalibrated."""
_LOG_TEMPERATURE_TOLERANCE = 1e-7
_SMALLEST_GAIN = 1e-12
"""Nats; less is rounding."""


def apply_temperature(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """Returns softmax(log p / T), float64 [n, K]: a T over 1 makes the answers less certain, and no other class wins.

    As log p is the logits less a number per row, this is softmax(logits / T) (Guo et al. 2017, eq. 9). Probabilities
    under `SMALLEST_PROBABILITY` count as that.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1.
        temperature: T, over 0.

    Raises:
        InputError: The array has no images, another shape, or values out of range; or T is not over 0.
    """
    check_probabilities(probabilities)
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise InputError(f"temperature is {temperature}: a finite number over 0 wanted")
    log_p = _log(probabilities) / temperature
    powers = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(probabilities: Probabilities, labels: Labels, weights: Scores | None = None) -> float:
    """Returns the temperature T within `TEMPERATURES` that minimises the negative log-likelihood of the labels.

    The loss is convex in 1 / T, so its slope changes sign once, and bisection over log T finds where. The slope keeps
    its sign where the loss itself is lost in rounding. Where no T is better than 1, for example because every answer
    is right and certain, the result is 1; where every answer is right and some are uncertain, it is (nearly) the lower
    end of the range: take more images then.

    Args:
        probabilities: float [n, K], 0..1, rows sum to 1: answers to images whose labels training did not see.
        labels: int [n], 0..K-1, the right classes.
        weights: float [n], over 0: how many images each one stands for; None where all stand for as many.

    Raises:
        InputError: An array has no images, another shape, or values out of range.
    """
    check_probabilities(probabilities)
    check_labels(labels, probabilities)
    if weights is not None and (weights.shape != labels.shape or not weights.min() > 0.0):
        raise InputError(f"weights have shape {list(weights.shape)}: {list(labels.shape)} numbers over 0 wanted")
    log_p = _log(probabilities)
    log_p -= log_p.max(axis=1, keepdims=True)
    of_label = log_p[np.arange(len(labels)), labels]

    def loss(temperature: float) -> float:
        losses = np.log(np.exp(log_p / temperature).sum(axis=1)) - of_label / temperature
        return float(np.average(losses, weights=weights))

    def slope(temperature: float) -> float:
        """The derivative of the loss by 1 / T: the expected less the observed log p."""
        powers = np.exp(log_p / temperature)
        slopes = (powers * log_p).sum(axis=1) / powers.sum(axis=1) - of_label
        return float(np.average(slopes, weights=weights))

    low, high = (math.log(end) for end in TEMPERATURES)
    while high - low > _LOG_TEMPERATURE_TOLERANCE:
        middle = (low + high) / 2.0
        if slope(math.exp(middle)) < 0.0:
            high = middle
        else:
            low = middle
    best = math.exp((low + high) / 2.0)
    return best if loss(1.0) - loss(best) > _SMALLEST_GAIN else 1.0


def _log(probabilities: Probabilities) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY))
    return logs
