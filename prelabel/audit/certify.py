"""The promise: of the accepted rows at most a share alpha has a wrong label, with confidence 1 - delta.

Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052) with fixed-sequence testing:

1. Candidates are the rows with a prediction that is not suspect. The nested sets A_1 in A_2 in ..., where A_j is the
   candidates with confidence >= t_j, and the place where the sequence starts follow from the predictions and the number
   of audited rows alone. No answer is read for them: for given predictions they are fixed.
2. H_j says "more than alpha of A_j is wrong". The audited rows are a uniform draw without replacement, so those of them
   that lie in A_j, given how many they are, are a uniform draw of A_j, and the wrong ones among them are
   hypergeometric: `prelabel.bounds.p_value` is a valid p-value of H_j.
3. From the start on, sets are tested with level delta until one fails; the last that passed is accepted. If that one
   breaks the promise, then the first true H_j from the start on was rejected. Which one that is, is fixed, so the
   probability is <= delta.

The sets are of the confidence as the model gave it. The temperature, which is fitted on the same answers, takes no
part: with more than two classes it can reorder rows, and the sets would then depend on the answers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.bounds import answers_needed_of, p_value, upper_bound

STEPS = 50
"""Sets that are tried at most, each about 2 % of the candidates larger. Fewer lose coverage by their coarseness; many
more gain nothing, because a single wrong answer then ends the sequence at more places (tried by simulation)."""
LATEST_ROOMY_START = 2 / 3
"""The sequence starts where one wrong answer does no harm, if that set is at most this share of the drawn-from rows."""
MOST_ERRORS_PLANNED = 100
"""Wrong answers up to which more answers are planned; where it would take more, the error rate is too near alpha."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One set of the sequence, and what the audit found in it."""

    threshold: float
    """The set is the candidates with at least this confidence, 0..1."""
    size: int
    """Rows in it."""
    audited: int
    """How many of them people answered."""
    wrong: int
    """How many of those answers differ from the prediction."""


@dataclass(frozen=True)
class Certificate:
    """What was certified for all candidates, or for those of one class."""

    class_name: str | None
    """The predicted class that it is about; None for all."""
    alpha: float
    """Error rate, over 0 and under 1."""
    delta: float
    """Chance that the promise is broken, over 0 and under 1."""
    frame: int
    """Rows that the sample was drawn from."""
    drawn: int
    """Rows in the sample."""
    start: int
    """Index of the first step that was tested."""
    accepted: int | None
    """Index of the last step that passed in a row; None where the first failed."""
    steps: tuple[Step, ...]
    """The sets, small to large; empty where there is no candidate."""

    @property
    def set(self) -> Step | None:
        """The set that is certified, None where there is none."""
        return None if self.accepted is None else self.steps[self.accepted]

    @property
    def bound(self) -> float | None:
        """Upper bound of the certified set's error rate with confidence 1 - delta, 0..alpha."""
        return None if self.set is None else upper_bound(self.set.wrong, self.set.audited, self.set.size, self.delta)


def make_steps(
    confidence: NDArray[np.float32], audited: NDArray[np.float32], wrong: NDArray[np.bool_]
) -> tuple[Step, ...]:
    """Builds the nested sets from the candidates' confidence and counts the answers in each.

    Args:
        confidence: float32 [m], 0..1, of all candidates.
        audited: float32 [n], 0..1, of the audited candidates.
        wrong: bool [n], whether the answer differs from the prediction.
    """
    if not len(confidence):
        return ()
    descending = -np.sort(-confidence)
    ends = np.ceil(np.arange(1, STEPS + 1) * len(confidence) / STEPS).astype(np.int64)
    thresholds = np.unique(descending[ends - 1])[::-1]
    return tuple(
        Step(
            threshold=float(threshold),
            size=int(np.searchsorted(-descending, -threshold, side="right")),
            audited=int((audited >= threshold).sum()),
            wrong=int((wrong & (audited >= threshold)).sum()),
        )
        for threshold in thresholds
    )


def first_step(sizes: Counts, frame: int, drawn: int, alpha: float, delta: float) -> int:
    """Returns the index of the set with which the sequence starts.

    A set with too few answers cannot pass even if all are right, and would end the sequence. So it starts with the
    smallest set that probably holds enough of them, one standard deviation under their expected number: enough for one
    wrong answer, or, where only large sets hold as many, for none. It is a matter of power; any choice that reads no
    answers keeps the promise.

    Args:
        sizes: int64 [s], s >= 1, rows in each set, ascending.
        frame: Rows that the sample was drawn from.
        drawn: Rows in the sample.
        alpha: Error rate, over 0 and under 1.
        delta: Level of the test, over 0 and under 1.
    """
    share = sizes / frame
    expected = drawn * share
    likely = expected - np.sqrt(expected * (1.0 - share) * (1.0 - drawn / frame))
    # Rounding must not take an answer away where all rows were drawn.
    answers = np.floor(np.maximum(likely, 0.0) + 1e-6).astype(np.int64)
    for errors, largest_share in ((1, LATEST_ROOMY_START), (0, 1.0)):
        for j in np.flatnonzero(share <= largest_share):
            if p_value(errors, int(answers[j]), int(sizes[j]), alpha) <= delta:
                return int(j)
    return len(sizes) - 1


def fixed_sequence(sizes: Counts, audited: Counts, wrong: Counts, start: int, alpha: float, delta: float) -> int | None:
    """Tests the sets from `start` on until one fails, and returns the index of the last that passed.

    Args:
        sizes: int64 [s], rows in each set, ascending.
        audited: int64 [s], audited rows in each.
        wrong: int64 [s], wrong ones among those.
        start: Index of the first set to test.
        alpha: Error rate, over 0 and under 1.
        delta: Level of each test, over 0 and under 1.
    """
    passed = None
    for j in range(start, len(sizes)):
        if p_value(int(wrong[j]), int(audited[j]), int(sizes[j]), alpha) > delta:
            break
        passed = j
    return passed


def certify(
    steps: tuple[Step, ...], frame: int, drawn: int, alpha: float, delta: float, class_name: str | None = None
) -> Certificate:
    """Certifies the largest set that the answers allow; see the module for the promise.

    Args:
        steps: From `make_steps`.
        frame: Rows that the sample was drawn from, uniformly.
        drawn: Rows in the sample.
        alpha: Error rate, over 0 and under 1.
        delta: Chance that the promise is broken, over 0 and under 1.
        class_name: The class that the frame is about, None for all.
    """
    if not steps:
        return Certificate(class_name, alpha, delta, frame, drawn, 0, None, steps)
    sizes, audited, wrong = (
        np.array([getattr(step, name) for step in steps], np.int64) for name in ("size", "audited", "wrong")
    )
    start = first_step(sizes, frame, drawn, alpha, delta)
    accepted = fixed_sequence(sizes, audited, wrong, start, alpha, delta)
    return Certificate(class_name, alpha, delta, frame, drawn, start, accepted, steps)


def answers_to_draw(certificate: Certificate) -> int | None:
    """Returns how large a sample would probably certify a set, at the error rates that this one found.

    An estimate, not a promise: for each set the answers that it needs at its observed error rate, times the share of
    answers that fall into it; the cheapest set counts. None where every set's error rate is too near alpha or over it.
    """
    known = (_answers_needed_at(step, certificate) for step in certificate.steps)
    totals = [n * certificate.frame / step.size for n, step in zip(known, certificate.steps, strict=True) if n]
    return math.ceil(min(totals)) if totals else None


def _answers_needed_at(step: Step, certificate: Certificate) -> int | None:
    """Returns how many answers in a set would do, at the error rate that was found in it."""
    if not step.audited:
        return answers_needed_of(0, step.size, certificate.alpha, certificate.delta)
    if step.wrong >= certificate.alpha * step.audited:
        return None
    rate, errors = step.wrong / step.audited, 0
    while errors <= MOST_ERRORS_PLANNED:
        needed = answers_needed_of(errors, step.size, certificate.alpha, certificate.delta)
        if needed is None or needed * rate <= errors + 0.5:
            return needed
        errors = math.ceil(needed * rate - 0.5)
    return None
