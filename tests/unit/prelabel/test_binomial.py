"""The interval of Clopper and Pearson against its definition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.planning.binomial import exact_interval


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
