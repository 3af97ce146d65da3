"""The promise: of the accepted rows at most a share alpha has a wrong label, with confidence 1 - delta.

Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052) with fixed-sequence testing:

1. Candidates are the rows with a prediction that is not suspect. The nested sets A_1 in A_2 in ..., where A_j is the
   candidates with confidence >= t_j, and the places where sequences start follow from the predictions, the number of
   audited rows and the options of the draw alone. No answer is read for them: for given predictions they are fixed.
2. H_j says "more than alpha of A_j is wrong". The audited rows are a uniform draw without replacement, so those of them
   that lie in A_j, given how many they are, are a uniform draw of A_j, and the wrong ones among them are
   hypergeometric: `prelabel.bounds.p_value` is a valid p-value of H_j.
3. From a start on, sets are tested with level delta until one fails; the last that passed is accepted. If that one
   breaks the promise, then the first true H_j from the start on was rejected. Which one that is, is fixed, so the
   probability is <= delta.
4. With two starts, a before b, sets from a up to b are tested with level delta_a, and those from b on with delta_b =
   delta - delta_a, or, where all before b passed, with delta (the fallback procedure, Wiens 2003). If an H_j before b
   is true, the promise is broken only if the first of those is rejected (<= delta_a) or else the first from b on, at
   delta_b; if none is, only the first from b on can be, at no more than delta. So again the probability is <= delta.

The sets are of the confidence as the model gave it. The temperature, which is fitted on the same answers, takes no
part: with more than two classes it can reorder rows, and the sets would then depend on the answers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.bounds import answers_needed_of, binomial_tail, p_value, upper_bound

STEPS = 50
"""Sets that are tried at most, each about 2 % of the candidates larger. Fewer lose coverage by their coarseness; many
more gain nothing, because a single wrong answer then ends the sequence at more places (tried by simulation)."""
COVERAGE = 0.6
"""The share of the drawn-from rows with which the sequence starts unless the draw says otherwise."""
SECOND_LEVEL = 0.2
"""Share of delta for a second sequence, in case that the set at the coverage is too bad. By simulation: there it mostly
certifies a smaller one; elsewhere it costs at most 6 in 100 audits their set (a tenth of delta is hardly cheaper)."""
SECOND_COVERAGE = 0.5
"""The second sequence starts at this share of the coverage: who would be glad of 60 % can use 30 %."""
LATEST_ROOMY_START = 2 / 3
"""Where the set at the coverage has too few answers, the sequence starts where one wrong answer does no harm, if that
set is at most this share of the drawn-from rows."""
MOSTLY = 0.8
"""Share of the samples of the size that `answers_to_draw` names that are to certify a set."""
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
class Start:
    """Where a sequence starts, and how strictly it tests."""

    index: int
    """Index of its first set."""
    level: float
    """Level of its tests, over 0 and under 1."""


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
    """Index of the step at which the main sequence starts."""
    accepted: int | None
    """Index of the last step that passed in a row; None where the first failed."""
    steps: tuple[Step, ...]
    """The sets, small to large; empty where there is no candidate."""
    coverage: float
    """The share of the frame at which the sequence was to start, over 0 and at most 1."""
    second_start: int | None
    """Index of the step at which a sequence of smaller sets starts; None where the sample has no room for one."""
    level: float
    """Level of the test that the accepted set passed, at most delta; delta where none did."""

    @property
    def set(self) -> Step | None:
        """The set that is certified, None where there is none."""
        return None if self.accepted is None else self.steps[self.accepted]

    @property
    def bound(self) -> float | None:
        """Upper bound of the certified set's error rate with confidence 1 - level, 0..alpha."""
        return None if self.set is None else upper_bound(self.set.wrong, self.set.audited, self.set.size, self.level)


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


def starts(
    sizes: Counts, frame: int, drawn: int, alpha: float, delta: float, coverage: float = COVERAGE
) -> tuple[Start, ...]:
    """Returns where the sequences start, small sets first: one, or two where the sample is large enough for it.

    The main one starts with the set that is `coverage` of the frame: smaller ones could end the sequence by bad luck,
    before it comes to what is wanted. A set with too few answers cannot pass even if all are right; so it starts later
    where that set probably has too few for one wrong answer, or, where only large sets hold as many, for none. The
    second one takes its share of delta only where it has room for a wrong answer. All of this is a matter of power;
    any choice that reads no answers keeps the promise.

    Args:
        sizes: int64 [s], s >= 1, rows in each set, ascending.
        frame: Rows that the sample was drawn from.
        drawn: Rows in the sample.
        alpha: Error rate, over 0 and under 1.
        delta: Chance that the promise is broken, over 0 and under 1.
        coverage: Over 0 and at most 1.
    """
    share = sizes / frame
    expected = drawn * share
    likely = expected - np.sqrt(expected * (1.0 - share) * (1.0 - drawn / frame))
    # Rounding must not take an answer away where all rows were drawn.
    answers = np.floor(np.maximum(likely, 0.0) + 1e-6).astype(np.int64)

    def roomy(errors: int, level: float, largest_share: float) -> int | None:
        for j in np.flatnonzero(share <= largest_share):
            if p_value(errors, int(answers[j]), int(sizes[j]), alpha) <= level:
                return int(j)
        return None

    earliest = roomy(1, delta, LATEST_ROOMY_START)
    if earliest is None:
        earliest = roomy(0, delta, 1.0)
    main = len(sizes) - 1 if earliest is None else max(earliest, step_of(sizes, frame, coverage))
    second = roomy(1, SECOND_LEVEL * delta, 1.0)
    if second is None or max(second, step_of(sizes, frame, SECOND_COVERAGE * coverage)) >= main:
        return (Start(main, delta),)
    second = max(second, step_of(sizes, frame, SECOND_COVERAGE * coverage))
    return Start(second, SECOND_LEVEL * delta), Start(main, (1.0 - SECOND_LEVEL) * delta)


def step_of(sizes: Counts, frame: int, coverage: float) -> int:
    """Returns the index of the smallest set that is at least this share of the frame, or else of the largest set."""
    return min(int(np.searchsorted(sizes, coverage * frame - 1e-6)), len(sizes) - 1)


def accepted_step(
    sizes: Counts, audited: Counts, wrong: Counts, sequences: tuple[Start, ...], alpha: float
) -> tuple[int, float] | None:
    """Tests the sets of each sequence until one fails; returns the last that passed, and the level of its test.

    A sequence that passes up to the start of the next one hands its level on.

    Args:
        sizes: int64 [s], rows in each set, ascending.
        audited: int64 [s], audited rows in each.
        wrong: int64 [s], wrong ones among those.
        sequences: From `starts`.
        alpha: Error rate, over 0 and under 1.
    """
    accepted, inherited = None, 0.0
    stops = [*(one.index for one in sequences[1:]), len(sizes)]
    for start, stop in zip(sequences, stops, strict=True):
        level, passed = start.level + inherited, start.index
        while passed < stop and p_value(int(wrong[passed]), int(audited[passed]), int(sizes[passed]), alpha) <= level:
            passed += 1
        accepted = (passed - 1, level) if passed > start.index else accepted
        inherited = level if passed == stop else 0.0
    return accepted


def certify(
    steps: tuple[Step, ...],
    frame: int,
    drawn: int,
    alpha: float,
    delta: float,
    class_name: str | None = None,
    coverage: float = COVERAGE,
) -> Certificate:
    """Certifies the largest set that the answers allow; see the module for the promise.

    Args:
        steps: From `make_steps`.
        frame: Rows that the sample was drawn from, uniformly.
        drawn: Rows in the sample.
        alpha: Error rate, over 0 and under 1.
        delta: Chance that the promise is broken, over 0 and under 1.
        class_name: The class that the frame is about, None for all.
        coverage: The share of the frame that is to be certified at least, over 0 and at most 1.
    """
    if not steps:
        return Certificate(class_name, alpha, delta, frame, drawn, 0, None, steps, coverage, None, delta)
    sizes, audited, wrong = (
        np.array([getattr(step, name) for step in steps], np.int64) for name in ("size", "audited", "wrong")
    )
    sequences = starts(sizes, frame, drawn, alpha, delta, coverage)
    accepted, level = accepted_step(sizes, audited, wrong, sequences, alpha) or (None, delta)
    second = sequences[0].index if len(sequences) > 1 else None
    return Certificate(
        class_name, alpha, delta, frame, drawn, sequences[-1].index, accepted, steps, coverage, second, level
    )


def answers_to_draw(certificate: Certificate) -> int | None:
    """Returns how large a sample would mostly certify a set, at the error rates that this one found.

    An estimate, not a promise: what the set at the coverage and the one where the second sequence starts need at their
    observed error rates, times the share of answers that fall into them; the cheaper one counts. None where both error
    rates are too near alpha or over it.
    """
    if not certificate.steps:
        return None
    sizes = np.array([step.size for step in certificate.steps], np.int64)
    totals = []
    for share, level in ((1.0, 1.0 - SECOND_LEVEL), (SECOND_COVERAGE, SECOND_LEVEL)):
        step = certificate.steps[step_of(sizes, certificate.frame, share * certificate.coverage)]
        needed = _answers_needed_at(step, certificate.alpha, level * certificate.delta)
        totals += [] if needed is None else [math.ceil(needed * certificate.frame / step.size)]
    return min(totals, default=None)


def _answers_needed_at(step: Step, alpha: float, delta: float) -> int | None:
    """Returns how many answers in a set would mostly do, at the error rate that was found in it."""
    if step.audited and step.wrong >= alpha * step.audited:
        return None
    rate = step.wrong / step.audited if step.audited else 0.0
    for errors in range(MOST_ERRORS_PLANNED + 1):
        needed = answers_needed_of(errors, step.size, alpha, delta)
        if needed is None or not rate or binomial_tail(errors, needed, rate) >= MOSTLY:
            return needed
    return None
