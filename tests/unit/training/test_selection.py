from hypothesis import given
from hypothesis import strategies as st

from training.selection import Selection

LABELS = st.lists(st.sampled_from([None, None, "a", "b"]), min_size=1, max_size=200)


@given(LABELS, st.integers(1, 60))
def test_without_a_draw_every_label_is_kept_and_so_many_of_the_pile(labels: list[str | None], most: int) -> None:
    selection = Selection(len(labels), most, None)
    kept = [label for position, label in enumerate(labels) if selection.keeps(position, label)]
    assert [label for label in kept if label] == [label for label in labels if label]
    assert kept.count(None) <= min(most, labels.count(None))
    assert len(kept) <= selection.most


@given(LABELS, st.integers(1, 60), st.integers(1, 30))
def test_with_a_draw_the_spread_and_what_may_be_drawn_are_kept(labels: list[str | None], most: int, count: int) -> None:
    selection = Selection(len(labels), most, count)
    kept = [position for position, label in enumerate(labels) if selection.keeps(position, label)]
    assert {position for position in range(len(labels)) if selection.is_of_pile(position)} <= set(kept)
    assert len(kept) <= selection.most
    for name in {"a", "b"} & set(labels):
        share = -(-count // 2)
        assert sum(labels[position] == name for position in kept) >= min(share, labels.count(name))
