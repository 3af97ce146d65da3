import itertools

from hypothesis import given
from hypothesis import strategies as st

from training.spread import evenly_spread


@given(st.integers(1, 5000), st.integers(2, 600))
def test_both_ends_and_what_lies_between_in_equal_steps(count: int, most: int) -> None:
    places = evenly_spread(count, most).tolist()
    assert len(places) == min(count, most)
    assert (places[0], places[-1]) == (0, count - 1)
    steps = {after - before for before, after in itertools.pairwise(places)}
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_of_nothing_there_is_nothing() -> None:
    assert evenly_spread(0, 500).tolist() == []
