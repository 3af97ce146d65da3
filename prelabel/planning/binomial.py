"""The exact interval for a share of which only a sample was seen."""

import numpy as np
from numpy.typing import NDArray

STEPS = 60
"""Halvings of 0..1: the limits of double precision."""


def exact_interval(found: int, drawn: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the lowest and highest share in the whole, 0..1, that fit `found` among `drawn` images.

    C. J. Clopper and E. S. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial",
    1934. For images drawn without replacement it is on the safe side.

    Args:
        found: Images in the sample that have the property, 0..drawn.
        drawn: Images in the sample, 1 or more.
        confidence: How often the interval holds the true share, at least; over 0 and under 1.
    """
    tail = (1 - confidence) / 2
    log_counts = _log_choose(drawn)
    low = 0.0 if found == 0 else _solve(log_counts[found:], np.arange(found, drawn + 1), drawn, tail, rising=True)
    high = 1.0 if found == drawn else _solve(log_counts[: found + 1], np.arange(found + 1), drawn, tail, rising=False)
    return low, high


def _solve(
    log_counts: NDArray[np.float64], found: NDArray[np.int64], drawn: int, tail: float, *, rising: bool
) -> float:
    """Returns the share at which the probability of all the numbers in `found` is `tail`."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        share = (low + high) / 2
        probability = float(np.exp(log_counts + found * np.log(share) + (drawn - found) * np.log1p(-share)).sum())
        if (probability < tail) == rising:
            low = share
        else:
            high = share
    return (low + high) / 2


def _log_choose(drawn: int) -> NDArray[np.float64]:
    """float64 [drawn + 1]: logarithms of the numbers of subsets of each size."""
    sizes = np.arange(1, drawn + 1)
    return np.concatenate([[0.0], np.cumsum(np.log(drawn - sizes + 1) - np.log(sizes))])
