import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.batches import BalancedSampler, EpochSampler


@given(st.integers(1, 50), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_shows_each_image_once(size: int, batch: int, seed: int) -> None:
    sampler = EpochSampler(size, batch, seed)
    flat = np.concatenate([sampler.positions(step) for step in range(-(-3 * size // batch))])
    for epoch in range(3):
        assert sorted(flat[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 30))
def test_a_step_does_not_depend_on_the_steps_before(size: int, batch: int, step: int) -> None:
    walked = EpochSampler(size, batch, 1)
    for earlier in range(step):
        walked.positions(earlier)
    np.testing.assert_array_equal(walked.positions(step), EpochSampler(size, batch, 1).positions(step))


def test_epochs_have_different_orders() -> None:
    sampler = EpochSampler(100, 100, 0)
    assert (sampler.positions(0) != sampler.positions(1)).any()


@given(st.lists(st.integers(1, 9), min_size=2, max_size=50), st.integers(1, 40), st.integers(0, 100))
def test_labelled_batches_hold_classes_equally_whatever_their_sizes(sizes: list[int], batch: int, step: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    counts = np.bincount(labels[BalancedSampler(labels, batch, 0).positions(step)], minlength=len(sizes))
    assert counts.sum() == batch
    assert counts.min() >= batch // len(sizes)
    assert counts.max() <= batch // len(sizes) + 2


@given(st.lists(st.integers(1, 9), min_size=2, max_size=50), st.integers(1, 40), st.integers(1, 30))
def test_each_class_is_drawn_as_often_as_any_other(sizes: list[int], batch: int, steps: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    sampler = BalancedSampler(labels, batch, 0)
    drawn = np.concatenate([sampler.positions(step) for step in range(steps)])
    counts = np.bincount(labels[drawn], minlength=len(sizes))
    assert counts.max() - counts.min() <= 1


def test_a_labelled_batch_repeats_no_image_while_the_class_has_enough() -> None:
    labels = np.repeat(np.arange(4), 10).astype(np.int32)
    positions = BalancedSampler(labels, 32, 3).positions(5)
    assert len(set(positions.tolist())) == 32
