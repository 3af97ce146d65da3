"""The pictures that stand for a pile: every group is covered, whatever its size, and the same ones every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prelabel.selection.clusters import kmeans, nearest, representatives, squared_distances
from prelabel.selection.embed import embed
from prelabel.selection.look import sample_blocks

SIZES = (2000, 300, 40, 8)


def groups(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points around four far centres, one group 250 times as large as another; and the group of each."""
    generator = np.random.default_rng(seed)
    group = generator.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    centres = 20.0 * np.eye(len(SIZES), 10)
    return (centres[group] + generator.normal(size=(len(group), 10))).astype(np.float32), group


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_all_sizes_are_covered_by_typical_images(seed: int) -> None:
    features, group = groups(seed)
    chosen, sizes = representatives(features, 12, np.random.default_rng(seed))
    assert set(group[chosen].tolist()) == {0, 1, 2, 3}
    assert sum(sizes) == len(features)
    for one in chosen:
        of_group = features[group == group[one]]
        remote = np.sort(((of_group - of_group.mean(axis=0)) ** 2).sum(axis=1))
        assert ((features[one] - of_group.mean(axis=0)) ** 2).sum() <= remote[int(0.9 * len(remote))]


def test_random_choice_would_miss_the_small_groups() -> None:
    _, group = groups(0)
    covered = [len(set(group[np.random.default_rng(seed).choice(len(group), 12)])) for seed in range(50)]
    assert np.mean(covered) < 3.0


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    features, _ = groups(0)
    first, again, other = (representatives(features, 20, np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert first == again
    assert first != other


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)
def test_as_many_different_images_as_wanted_even_among_copies(points: list[int], share: float, seed: int) -> None:
    features = np.array(points, np.float32)[:, None]
    k = max(1, round(share * len(points)))
    chosen, sizes = representatives(features, k, np.random.default_rng(seed))
    assert len(chosen) == len(set(chosen)) == len(sizes) == k
    assert sum(sizes) == len(points)
    assert sizes == sorted(sizes, reverse=True)
    different = len(set(points))
    # Different pictures first; copies only where there is nothing else.
    assert len({points[i] for i in chosen}) >= min(k, different)


def test_clusters_are_those_of_the_nearest_mean() -> None:
    features, _ = groups(1)
    clusters = kmeans(features, 6, np.random.default_rng(0))
    means = np.stack([features[clusters == k].mean(axis=0) for k in range(6)])
    assert (nearest(features, means) == clusters).mean() > 0.98


@given(images=st.integers(1, 5000), wanted=st.integers(1, 6000), seed=st.integers(0, 99))
def test_a_sample_is_of_the_wanted_size_in_order_and_without_repeats(images: int, wanted: int, seed: int) -> None:
    positions = [i for block in sample_blocks(images, wanted, seed) for i in block]
    assert positions == sorted(set(positions))
    assert all(0 <= i < images for i in positions)
    if wanted >= images:
        assert len(positions) == images
    else:
        assert wanted <= len(positions) < wanted + 64


def test_pictures_that_look_alike_are_near() -> None:
    generator = np.random.default_rng(0)
    bars = np.zeros((40, 16, 16, 3), np.uint8)
    bars[:20, :, 7:9], bars[20:, 7:9, :] = 200, 200
    pixels = bars + generator.integers(0, 30, bars.shape).astype(np.uint8)
    features = embed(pixels, np.random.default_rng(1))
    distances = squared_distances(features, features)
    assert features.shape == (40, 64)
    assert features.dtype == np.float32
    assert distances[:20, :20].max() < distances[:20, 20:].min()
    assert np.array_equal(features, embed(pixels, np.random.default_rng(1)))


def test_a_pile_of_one_picture_has_features() -> None:
    features = embed(np.full((3, 16, 16, 3), 7, np.uint8), np.random.default_rng(0))
    assert np.isfinite(features).all()
    assert (features == features[0]).all()
