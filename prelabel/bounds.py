"""What a sample says about the whole: exact bounds for a share of which only some were looked at.

For a finite set, drawn without replacement, the number of wrong ones in the sample is hypergeometric; for a set of any
size it is bounded by the binomial one, which planning uses because the set is not known yet.
"""

import math
from functools import lru_cache

import numpy as np

HALVINGS = 60
"""Of 0..1: the limits of double precision."""


def binomial_tail(errors: int, audited: int, rate: float) -> float:
    """Returns P(X <= errors) for X binomial over `audited` answers, each wrong with probability `rate`, 0..1.

    Args:
        errors: Wrong answers, 0 or more.
        audited: Answers, 0 or more.
        rate: Over 0 and under 1.
    """
    if errors >= audited:
        return 1.0
    counts = np.arange(errors + 1)
    steps = counts[1:]
    log_ways = np.concatenate([[0.0], np.cumsum(np.log(audited - steps + 1) - np.log(steps))])
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    return min(float(np.exp(log_ways + counts * log_rate + (audited - counts) * log_rest).sum()), 1.0)


def exact_interval(found: int, drawn: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the lowest and highest share in the whole, 0..1, that fit `found` among `drawn` images.

    C. J. Clopper and E. S. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial",
    1934. For images drawn without replacement it is on the safe side.

    Args:
        found: Images in the sample that have the property, 0..drawn.
        drawn: Images in the sample, 1 or more.
        confidence: How often the interval holds the true share, at least; over 0 and under 1.
    """
    tail = (1.0 - confidence) / 2.0
    return 1.0 - _highest_share(drawn - found, drawn, tail), _highest_share(found, drawn, tail)


def _highest_share(found: int, drawn: int, tail: float) -> float:
    """Returns the share at which so few as `found` have the probability `tail`."""
    if found == drawn:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (low + high) / 2.0
        low, high = (share, high) if binomial_tail(found, drawn, share) > tail else (low, share)
    return (low + high) / 2.0


@lru_cache(maxsize=1 << 12)
def answers_needed(errors: int, alpha: float, delta: float) -> int:
    """Returns how many answers it takes, `errors` of them wrong, to show that at most `alpha` of a set is wrong.

    With confidence 1 - `delta`. The smallest n with P(X <= errors) <= delta for X binomial(n, alpha), which is the n at
    which the upper bound of Clopper and Pearson (1934) comes down to alpha. It holds for a set of any size.

    Args:
        errors: Wrong answers, 0 or more.
        alpha: Error rate, over 0 and under 1.
        delta: Chance that the promise is broken, over 0 and under 1.
    """
    low, high = errors, errors + 1
    while binomial_tail(errors, high, alpha) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial_tail(errors, middle, alpha) > delta else (low, middle)
    return high


def answers_needed_of(errors: int, size: int, alpha: float, delta: float) -> int | None:
    """Returns how many answers, `errors` of them wrong, show that at most `alpha` of a set of this size is wrong.

    None where so many wrong ones are more than `alpha` of it.

    Args:
        errors: Wrong answers, 0 or more.
        size: Size of the set, 1 or more.
        alpha: Error rate, over 0 and under 1.
        delta: Chance that the promise is broken, over 0 and under 1.
    """
    low, high = errors, size
    if p_value(errors, high, size, alpha) > delta:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if p_value(errors, middle, size, alpha) > delta else (low, middle)
    return high


def hypergeometric_tail(errors: int, audited: int, wrong: int, size: int) -> float:
    """Returns P(X <= errors) for X the wrong ones among `audited` drawn without replacement, 0..1.

    Good to about 1e-9 times the logarithm of the number of samples, that is, far beyond any use of it.

    Args:
        errors: Wrong ones in the sample, 0 or more.
        audited: Sample size, 0..size.
        wrong: Wrong ones in the whole set, 0..size.
        size: Size of the set.
    """
    if errors >= min(audited, wrong):
        return 1.0
    total = _log_choose(size, audited)
    first = max(0, audited - (size - wrong))
    terms = (
        math.exp(_log_choose(wrong, j) + _log_choose(size - wrong, audited - j) - total)
        for j in range(first, errors + 1)
    )
    return min(math.fsum(terms), 1.0)


@lru_cache(maxsize=1 << 16)
def p_value(errors: int, audited: int, size: int, alpha: float) -> float:
    """Returns the p-value of "more than `alpha` of this set is wrong", 0..1: small ones speak for the set.

    The tail at the fewest wrong ones that break the promise, floor(alpha * size) + 1: with more of them few errors in
    the sample are less likely still.

    Args:
        errors: Wrong ones among the audited, 0..audited.
        audited: How many of the set were audited, 0..size.
        size: Size of the set, 1 or more.
        alpha: Error rate, over 0 and under 1.
    """
    return hypergeometric_tail(errors, audited, math.floor(alpha * size) + 1, size)


def upper_bound(errors: int, audited: int, size: int, delta: float) -> float:
    """Returns the largest error rate of the set, 0..1, that the sample does not rule out with confidence 1 - `delta`.

    The bound of Clopper and Pearson (1934), for a finite set.

    Args:
        errors: Wrong ones among the audited, 0..audited.
        audited: How many of the set were audited, 0..size.
        size: Size of the set, 1 or more.
        delta: Over 0 and under 1.
    """
    low, high = errors, size - (audited - errors) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if hypergeometric_tail(errors, audited, middle, size) > delta else (low, middle)
    return low / size


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
