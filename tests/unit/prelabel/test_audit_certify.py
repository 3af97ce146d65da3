"""The promise, by simulation on piles whose truth is known, beside a threshold chosen naively."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from prelabel.audit.certify import (
    STEPS,
    Certificate,
    Step,
    answers_to_draw,
    certify,
    first_step,
    fixed_sequence,
    make_steps,
)
from prelabel.bounds import answers_needed_of

REPETITIONS = 1000
ALPHA, DELTA = 0.01, 0.05


@dataclass(frozen=True)
class Simulated:
    """Rows and wrong ones in each of the cells between two thresholds, the most confident cell first."""

    rows: NDArray[np.int64]
    wrong: NDArray[np.int64]
    drawn: int
    alpha: float = ALPHA


def of_rates(rates: NDArray[np.float64], size: int, drawn: int, alpha: float = ALPHA) -> Simulated:
    rows = np.full(len(rates), size // len(rates))
    return Simulated(rows, np.round(rates * rows).astype(np.int64), drawn, alpha)


COVERAGE = (np.arange(STEPS) + 0.5) / STEPS
PILES = {
    # The error rate of a cell is 1 - confidence; over all 3 %.
    "well calibrated": of_rates(0.03 * 9 * COVERAGE**8, 50_000, 800),
    # Sure of everything, and wrong in more than was promised nearly everywhere.
    "overconfident": of_rates(0.009 + 0.01 * COVERAGE, 50_000, 1500),
    # Confidence says nothing, and the error rate is just over alpha: the hardest case for an honest procedure.
    "adversarially flat": of_rates(np.full(STEPS, 1.02 * ALPHA), 500_000, 800),
    # Whatever is added to a good start is just bad enough.
    "bad behind a good start": of_rates(np.where(COVERAGE < 0.62, 0.002, 0.04), 50_000, 800),
    # The most confident are the wrong ones.
    "upside down": of_rates(np.where(COVERAGE < 0.5, 0.022, 0.0), 50_000, 1500),
    "tiny": of_rates(np.full(STEPS, 0.06), 2_500, 150, 0.05),
    # 100 rows, 6 of them wrong, of which most are audited.
    "tiny and audited nearly whole": Simulated(np.full(10, 10), np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2]), 80, 0.05),
}


def accepted_in(pile: Simulated, delta: float, seed: int) -> tuple[list[int | None], list[int | None]]:
    """Returns for each repetition the index of the set that is certified, and of the one chosen naively."""
    generator = np.random.default_rng(seed)
    cells = len(pile.rows)
    colours = np.concatenate([pile.rows - pile.wrong, pile.wrong])
    counts = generator.multivariate_hypergeometric(colours, pile.drawn, size=REPETITIONS, method="marginals")
    wrong = np.cumsum(counts[:, cells:], axis=1)
    audited = np.cumsum(counts[:, :cells], axis=1) + wrong
    sizes = np.cumsum(pile.rows)
    start = first_step(sizes, int(sizes[-1]), pile.drawn, pile.alpha, delta)
    certified = [fixed_sequence(sizes, a, w, start, pile.alpha, delta) for a, w in zip(audited, wrong, strict=True)]
    naive = []
    for a, w in zip(audited, wrong, strict=True):
        seems_good = np.flatnonzero((a > 0) & (w <= pile.alpha * a))
        naive.append(int(seems_good[-1]) if len(seems_good) else None)
    return certified, naive


def broken(pile: Simulated, accepted: list[int | None]) -> int:
    true_rate = np.cumsum(pile.wrong) / np.cumsum(pile.rows)
    return sum(one is not None and true_rate[one] > pile.alpha for one in accepted)


def most_broken(delta: float) -> int:
    """What chance exceeds once in a thousand simulations if each promise is broken with probability delta."""
    tail = 1.0
    for count in range(REPETITIONS):
        tail -= math.comb(REPETITIONS, count) * delta**count * (1 - delta) ** (REPETITIONS - count)
        if tail < 1e-3:
            return count
    raise AssertionError


@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize("name", PILES)
def test_the_promise_is_broken_in_at_most_delta_of_all_audits(name: str, delta: float) -> None:
    pile = PILES[name]
    certified, _ = accepted_in(pile, delta, seed=7)
    assert broken(pile, certified) <= most_broken(delta)


def test_a_naive_threshold_breaks_it_far_more_often() -> None:
    for name, pile in PILES.items():
        certified, naive = accepted_in(pile, DELTA, seed=8)
        assert broken(pile, naive) > 5 * max(broken(pile, certified), REPETITIONS * DELTA / 2), name


def test_it_certifies_most_of_what_may_be_accepted() -> None:
    """Who certifies nothing keeps every promise."""
    for name, least in (("well calibrated", 0.7), ("bad behind a good start", 0.55)):
        pile = PILES[name]
        sizes, wrong = np.cumsum(pile.rows), np.cumsum(pile.wrong)
        best = sizes[np.flatnonzero(wrong <= ALPHA * sizes)[-1]]
        certified, _ = accepted_in(pile, DELTA, seed=9)
        assert np.mean([0 if one is None else sizes[one] for one in certified]) > least * best, name


def test_whole_audits_keep_the_promise_in_all_classes_at_once() -> None:
    """Steps made anew from each draw, as a user's audit does it; three classes, with Bonferroni."""
    generator = np.random.default_rng(3)
    size, drawn, alpha, delta = 600, 300, 0.05, 0.2
    confidence = generator.random((3, size), np.float32)
    wrong = np.arange(size)[None] < np.array([[32], [32], [32]])  # 5.3 %, whatever the confidence
    broken_promises = 0
    for _ in range(300):
        for c, w in zip(confidence, wrong, strict=True):
            rows = generator.choice(size, drawn, replace=False)
            made = certify(make_steps(c, c[rows], w[rows]), size, drawn, alpha, delta / 3)
            if made.set and w[c >= np.float32(made.set.threshold)].mean() > alpha:
                broken_promises += 1
                break
    assert broken_promises <= 0.2 * 300 + 3.1 * math.sqrt(300 * 0.2 * 0.8)


def test_steps_are_nested_sets_of_equal_confidence() -> None:
    confidence = np.array([1, 1, 1, 0.9, 0.8, 0.8, 0.5], np.float32)
    steps = make_steps(confidence, confidence[[0, 3, 5]], np.array([False, True, True]))
    assert [(round(one.threshold, 6), one.size, one.audited, one.wrong) for one in steps] == [
        (1.0, 3, 1, 0),
        (0.9, 4, 2, 1),
        (0.8, 6, 3, 2),
        (0.5, 7, 3, 2),
    ]
    assert make_steps(confidence[:0], confidence[:0], np.zeros(0, bool)) == ()


def test_a_large_pile_gets_a_set_for_each_two_percent() -> None:
    confidence = np.random.default_rng(0).random(10_000, np.float32)
    sizes = [one.size for one in make_steps(confidence, confidence[:1], np.zeros(1, bool))]
    assert sizes == [200 * i for i in range(1, STEPS + 1)]


def test_the_sequence_ends_at_the_first_set_that_fails() -> None:
    sizes, audited = np.array([1000, 2000, 3000, 4000]), np.array([400, 800, 1200, 1600])
    assert fixed_sequence(sizes, audited, np.array([0, 1, 40, 40]), 0, ALPHA, DELTA) == 1
    assert fixed_sequence(sizes, audited, np.array([9, 9, 9, 4]), 0, ALPHA, DELTA) is None
    assert fixed_sequence(sizes, audited, np.array([9, 9, 9, 4]), 3, ALPHA, DELTA) == 3


def test_where_the_sequence_starts() -> None:
    sizes = np.arange(1, 51) * 1000
    assert sizes[first_step(sizes, 50_000, 800, ALPHA, DELTA)] == 31_000  # 496 expected: room for one wrong answer
    assert sizes[first_step(sizes, 50_000, 473, ALPHA, DELTA)] == 33_000  # 312 expected: for none
    assert sizes[first_step(sizes, 50_000, 299, ALPHA, DELTA)] == 50_000
    assert sizes[first_step(sizes, 50_000, 10, ALPHA, DELTA)] == 50_000


def made(wrong: int, audited: int, drawn: int) -> Certificate:
    return certify((Step(0.9, 6000, audited, wrong), Step(0.5, 10_000, drawn, 50)), 10_000, drawn, ALPHA, DELTA)


def test_it_says_what_a_larger_sample_would_need() -> None:
    assert made(0, 60, 100).set is None
    # In a set of 6,000 a few answers fewer do than the 299 and the 628 (two wrong ones expected) of a set of any size.
    assert answers_to_draw(made(0, 60, 100)) == math.ceil(287 / 0.6)
    assert answers_to_draw(made(1, 300, 500)) == math.ceil(answers_needed_of(2, 6000, ALPHA, DELTA) / 0.6)
    assert answers_to_draw(made(5, 300, 500)) is None  # more than alpha is wrong
    assert answers_to_draw(certify((), 10, 5, ALPHA, DELTA)) is None


def test_no_more_answers_are_asked_for_than_there_are_rows() -> None:
    """A small pile at a low alpha: an answer for each row of a set decides it."""
    certificate = certify((Step(0.9, 800, 200, 0), Step(0.5, 1500, 380, 9)), 1530, 394, 0.001, DELTA)
    assert certificate.set is None
    assert (needed := answers_to_draw(certificate)) is not None
    assert 394 < needed <= 1530


def test_where_all_rows_are_audited_a_small_set_may_start() -> None:
    sizes = np.array([500, 1000, 1500])
    assert first_step(sizes, 1530, 1530, 0.002, DELTA) == 0
    assert first_step(sizes, 1530, 1530, 0.0005, DELTA) == 0
    assert first_step(sizes, 1530, 394, 0.0005, DELTA) == 2


def test_the_certificate_states_a_bound_under_alpha() -> None:
    certificate = certify((Step(0.9, 6000, 480, 1), Step(0.5, 10_000, 800, 30)), 10_000, 800, ALPHA, DELTA)
    assert certificate.set is not None
    assert certificate.set.threshold == 0.9
    assert certificate.bound is not None
    assert 0.009 < certificate.bound <= ALPHA
