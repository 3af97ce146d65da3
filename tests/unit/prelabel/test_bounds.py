"""Bounds against their definitions, known figures and exact fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.bounds import (
    answers_needed,
    answers_needed_of,
    binomial_tail,
    exact_interval,
    hypergeometric_tail,
    p_value,
    upper_bound,
)


@pytest.mark.parametrize(
    ("alpha", "needed"),
    [(0.05, [59, 93, 124]), (0.02, [149, 236, 313]), (0.01, [299, 473, 628]), (0.005, [598, 947, 1258])],
)
def test_known_sample_sizes(alpha: float, needed: list[int]) -> None:
    assert [answers_needed(errors, alpha, 0.05) for errors in range(3)] == needed


@given(st.integers(0, 30), st.floats(0.001, 0.9), st.floats(0.001, 0.9))
def test_the_needed_answers_are_the_fewest(errors: int, alpha: float, delta: float) -> None:
    needed = answers_needed(errors, alpha, delta)
    assert binomial_tail(errors, needed, alpha) <= delta < binomial_tail(errors, needed - 1, alpha)


@given(st.integers(0, 5), st.integers(1, 400), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_a_set_of_known_size_needs_no_more(errors: int, size: int, alpha: float, delta: float) -> None:
    needed = answers_needed_of(errors, size, alpha, delta)
    if needed is None:
        assert errors > math.floor(alpha * size)
        return
    assert needed <= min(size, answers_needed(errors, alpha, delta))
    assert p_value(errors, needed, size, alpha) <= delta
    assert needed - 1 <= errors or p_value(errors, needed - 1, size, alpha) > delta


@st.composite
def samples(draw: st.DrawFn) -> tuple[int, int, int, int]:
    size = draw(st.integers(1, 60))
    wrong, audited = draw(st.integers(0, size)), draw(st.integers(0, size))
    return draw(st.integers(0, audited)), audited, wrong, size


def exact_tail(errors: int, audited: int, wrong: int, size: int) -> float:
    ways = sum(math.comb(wrong, j) * math.comb(size - wrong, audited - j) for j in range(errors + 1))
    return float(Fraction(ways, math.comb(size, audited)))


@given(samples())
def test_the_hypergeometric_tail_is_exact(sample: tuple[int, int, int, int]) -> None:
    assert hypergeometric_tail(*sample) == pytest.approx(exact_tail(*sample), rel=1e-9, abs=1e-12)


def test_in_a_large_set_it_is_the_binomial_tail() -> None:
    assert hypergeometric_tail(2, 628, 100_000, 10_000_000) == pytest.approx(binomial_tail(2, 628, 0.01), rel=2e-4)


@given(st.integers(1, 60), st.data(), st.floats(0.01, 0.6), st.floats(0.01, 0.3))
def test_a_set_that_breaks_the_promise_passes_with_probability_delta_at_most(
    size: int, data: st.DataObject, alpha: float, delta: float
) -> None:
    audited = data.draw(st.integers(0, size))
    wrong = data.draw(st.integers(0, size))
    passing = [errors for errors in range(audited + 1) if p_value(errors, audited, size, alpha) <= delta]
    if wrong > alpha * size and passing:
        assert exact_tail(max(passing), audited, wrong, size) <= delta + 1e-9


@given(samples(), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_the_bound_is_under_alpha_just_where_the_test_passes(
    sample: tuple[int, int, int, int], alpha: float, delta: float
) -> None:
    errors, audited, _, size = sample
    bound = upper_bound(errors, audited, size, delta)
    assert errors / size <= bound <= 1
    assert (bound * size <= math.floor(alpha * size)) == (p_value(errors, audited, size, alpha) <= delta)


def test_a_set_that_was_audited_whole_is_known() -> None:
    assert upper_bound(3, 200, 200, 0.05) == 3 / 200
    assert p_value(2, 200, 200, 0.01) == 0
    assert p_value(3, 200, 200, 0.01) == 1


def probability(found: range, drawn: int, share: float) -> float:
    return math.fsum(math.comb(drawn, k) * share**k * (1 - share) ** (drawn - k) for k in found)


@given(st.integers(1, 150).flatmap(lambda drawn: st.tuples(st.integers(0, drawn), st.just(drawn))))
def test_the_ends_are_where_what_was_found_gets_improbable(counts: tuple[int, int]) -> None:
    found, drawn = counts
    low, high = exact_interval(found, drawn)
    assert 0 <= low <= found / drawn <= high <= 1
    if found == 0:
        assert low == 0
    else:
        assert probability(range(found, drawn + 1), drawn, low) == pytest.approx(0.025, rel=1e-6)
    if found == drawn:
        assert high == 1
    else:
        assert probability(range(found + 1), drawn, high) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("drawn", [1, 1000, 100_000])
def test_nothing_found_in_a_sample_of_any_size(drawn: int) -> None:
    assert exact_interval(0, drawn)[1] == pytest.approx(1 - 0.025 ** (1 / drawn), rel=1e-6)
    assert exact_interval(drawn, drawn)[0] == pytest.approx(0.025 ** (1 / drawn), rel=1e-6)


def test_a_published_value() -> None:
    """10 of 100: 4.9 % to 17.6 %, as in textbooks."""
    assert exact_interval(10, 100) == (pytest.approx(0.0490, abs=5e-5), pytest.approx(0.1762, abs=5e-5))
