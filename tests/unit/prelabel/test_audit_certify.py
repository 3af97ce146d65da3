"""The promise, by simulation on piles whose truth is known, beside a threshold chosen naively."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from prelabel.audit.certify import (
    STEPS,
    Certificate,
    Start,
    Step,
    accepted_step,
    answers_to_draw,
    certify,
    make_steps,
    starts,
)
from prelabel.bounds import answers_needed_of, p_value

REPETITIONS = 1000
ALPHA, DELTA = 0.01, 0.05


@dataclass(frozen=True)
class Simulated:
    """Rows and wrong ones in each of the cells between two thresholds, the most confident cell first."""

    rows: NDArray[np.int64]
    wrong: NDArray[np.int64]
    drawn: int
    alpha: float = ALPHA
    coverage: float = 0.6


def of_rates(rates: NDArray[np.float64], size: int, drawn: int, alpha: float = ALPHA, **more: float) -> Simulated:
    rows = np.full(len(rates), size // len(rates))
    return Simulated(rows, np.round(rates * rows).astype(np.int64), drawn, alpha, **more)


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
    # Room for a second sequence, which passes and hands its level on; the set of 60 % is just too bad.
    "bad for the main start": of_rates(
        np.where(COVERAGE < 0.55, 0.0, np.where(COVERAGE < 0.6, 0.102, 1.02 * ALPHA)), 500_000, 6000
    ),
    "bad for two starts": of_rates(np.full(STEPS, 1.02 * ALPHA), 500_000, 6000),
    "bad for a late start": of_rates(np.full(STEPS, 1.02 * ALPHA), 500_000, 3000, coverage=0.9),
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
    sequences = starts(sizes, int(sizes[-1]), pile.drawn, pile.alpha, delta, pile.coverage)
    found = [accepted_step(sizes, a, w, sequences, pile.alpha) for a, w in zip(audited, wrong, strict=True)]
    certified = [None if one is None else one[0] for one in found]
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


SIZES, AUDITED = np.array([1000, 2000, 3000, 4000]), np.array([400, 800, 1200, 1600])


def test_a_sequence_ends_at_the_first_set_that_fails() -> None:
    def accepted(start: int, *wrong: int) -> int | None:
        found = accepted_step(SIZES, AUDITED, np.array(wrong), (Start(start, DELTA),), ALPHA)
        return None if found is None else found[0]

    assert accepted(0, 0, 1, 40, 40) == 1
    assert accepted(0, 9, 9, 9, 4) is None
    assert accepted(3, 9, 9, 9, 4) == 3


def test_two_sequences_share_delta_and_the_first_hands_its_part_on() -> None:
    def accepted(*wrong: int) -> tuple[int, float] | None:
        return accepted_step(SIZES, AUDITED, np.array(wrong), (Start(0, 0.03), Start(2, 0.07)), ALPHA)

    assert 0.07 < p_value(8, 1200, 3000, ALPHA) <= 0.1
    assert accepted(0, 1, 8, 40) == (2, pytest.approx(0.1))  # all before it passed
    assert accepted(0, 9, 8, 40) == (0, 0.03)
    assert accepted(0, 9, 7, 40) == (2, 0.07)  # the larger set counts
    assert accepted(9, 9, 9, 40) is None


def start_sizes(drawn: int, coverage: float = 0.6) -> list[int]:
    sizes = np.arange(1, 51) * 1000
    return [int(sizes[one.index]) for one in starts(sizes, 50_000, drawn, ALPHA, DELTA, coverage)]


def test_the_sequence_starts_where_the_draw_wants_it_or_where_there_are_answers_enough() -> None:
    assert start_sizes(800) == [31_000]  # 496 expected: room for one wrong answer
    assert start_sizes(800, 0.8) == [40_000]
    assert start_sizes(473) == [33_000]  # 312 expected: for none
    assert start_sizes(299) == [50_000]
    assert start_sizes(10) == [50_000]


def test_a_large_sample_does_not_start_below_the_coverage_and_has_a_second_start() -> None:
    assert start_sizes(1600) == [21_000, 30_000]  # one wrong answer with delta / 5
    assert start_sizes(3000) == start_sizes(20_000) == [15_000, 30_000]
    assert start_sizes(3000, 0.2) == [10_000]
    levels = [one.level for one in starts(np.arange(1, 51) * 1000, 50_000, 3000, ALPHA, DELTA)]
    assert levels == pytest.approx([0.01, 0.04])


def test_more_answers_certify_more() -> None:
    """.5 % wrong among the most certain 70 %: a sequence that began with few answers would mostly end by bad luck."""
    rates = np.where(COVERAGE < 0.7, 0.005, 0.005 + 0.3 * (COVERAGE - 0.7))
    shares = []
    for drawn in (789, 1578, 3945):
        certified, _ = accepted_in(of_rates(rates, 60_000, drawn), DELTA, seed=10)
        shares.append(np.mean([one is not None for one in certified]))
    assert shares[0] > 0.2
    assert shares[1] > shares[0] + 0.1
    assert shares[2] > 0.8


def test_a_coverage_that_is_too_hopeful_still_certifies_something() -> None:
    pile = of_rates(np.where(COVERAGE < 0.4, 0.001, 0.03), 60_000, 2400)
    certified, _ = accepted_in(pile, DELTA, seed=11)
    assert np.mean([one is not None for one in certified]) > 0.8


def made(wrong: int, audited: int, drawn: int) -> Certificate:
    return certify((Step(0.9, 6000, audited, wrong), Step(0.5, 10_000, drawn, 50)), 10_000, drawn, ALPHA, DELTA)


def test_it_says_what_a_larger_sample_would_need() -> None:
    """As the main sequence would test it, with 4 % of the 5 %, in the set that is 60 % of the rows."""
    assert made(0, 60, 100).set is None
    assert answers_to_draw(made(0, 60, 100)) == math.ceil(answers_needed_of(0, 6000, ALPHA, 0.8 * DELTA) / 0.6)
    # One in 300: of 657 answers two wrong ones are expected, but more than two in a third of the samples.
    assert answers_to_draw(made(1, 300, 500)) == math.ceil(answers_needed_of(4, 6000, ALPHA, 0.8 * DELTA) / 0.6)
    assert answers_to_draw(made(5, 300, 500)) is None  # more than alpha is wrong
    assert answers_to_draw(certify((), 10, 5, ALPHA, DELTA)) is None


def test_a_smaller_set_may_be_what_a_larger_sample_certifies() -> None:
    steps = (Step(0.9, 3000, 240, 0), Step(0.8, 6000, 480, 10), Step(0.5, 10_000, 800, 50))
    needed = answers_to_draw(certify(steps, 10_000, 800, ALPHA, DELTA))
    assert needed == math.ceil(answers_needed_of(0, 3000, ALPHA, 0.2 * DELTA) / 0.3)


def test_a_sample_of_the_size_that_it_says_mostly_does_it() -> None:
    pile = of_rates(np.full(STEPS, 0.004), 60_000, 789)
    found = (Step(0.9, 36_000, 500, 2), Step(0.5, 60_000, 789, 4))
    needed = answers_to_draw(certify(found, 60_000, 789, ALPHA, DELTA))
    assert needed is not None
    certified, _ = accepted_in(dataclasses.replace(pile, drawn=needed), DELTA, seed=12)
    assert 0.7 < np.mean([one is not None for one in certified]) < 0.9


def test_no_more_answers_are_asked_for_than_there_are_rows() -> None:
    """A small pile at a low alpha: an answer for each row of a set decides it."""
    certificate = certify((Step(0.9, 800, 200, 0), Step(0.5, 1500, 380, 9)), 1530, 394, 0.001, DELTA)
    assert certificate.set is None
    assert (needed := answers_to_draw(certificate)) is not None
    assert 394 < needed <= 1530


def test_where_all_rows_are_audited_no_set_is_too_small() -> None:
    sizes = np.array([500, 1000, 1500])

    def first(drawn: int, alpha: float) -> int:
        return starts(sizes, 1530, drawn, alpha, DELTA, coverage=0.3)[-1].index

    assert first(1530, 0.002) == 0
    assert first(1530, 0.0005) == 0
    assert first(394, 0.0005) == 2


def test_the_certificate_states_a_bound_under_alpha() -> None:
    certificate = certify((Step(0.9, 6000, 480, 1), Step(0.5, 10_000, 800, 30)), 10_000, 800, ALPHA, DELTA)
    assert certificate.set is not None
    assert certificate.set.threshold == 0.9
    assert certificate.bound is not None
    assert 0.009 < certificate.bound <= ALPHA
