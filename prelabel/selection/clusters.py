"""K-means, and of each cluster the image that stands for it. N images with D features, k clusters."""

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 25
"""Lloyd's algorithm moves little after that, and a selection needs no exact minimum."""
CHUNK_VALUES = 1 << 22
"""Distances in memory at a time: 16 MB, and a few copies of them."""

Features = NDArray[np.float32]


def kmeans(features: Features, k: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Returns the cluster of each image, int64 [N], 0..k-1; where many images are the same, some clusters are empty.

    Lloyd's algorithm from a start by greedy k-means++ (Arthur and Vassilvitskii 2007, section 7).

    Args:
        features: float32 [N, D], N at least k.
        k: Number of clusters, 1 or more.
        generator: Decides the start.
    """
    centres = features[_spread(features, k, generator)]
    clusters = nearest(features, centres)
    for _ in range(ITERATIONS):
        order = np.argsort(clusters, kind="stable")
        present, starts = np.unique(clusters[order], return_index=True)
        sums = np.add.reduceat(features[order], starts, axis=0)
        centres[present] = sums / np.diff(starts, append=len(features))[:, None]
        before, clusters = clusters, nearest(features, centres)
        if np.array_equal(before, clusters):
            break
    return clusters


def nearest(features: Features, centres: Features) -> NDArray[np.int64]:
    """Returns the index of the nearest centre of each image, int64 [N]; the first of several."""
    result = np.empty(len(features), np.int64)
    rows = max(1, CHUNK_VALUES // len(centres))
    for start in range(0, len(features), rows):
        result[start : start + rows] = squared_distances(features[start : start + rows], centres).argmin(axis=1)
    return result


def squared_distances(one: Features, other: Features) -> Features:
    """Returns the squared Euclidean distances of float32 [n, D] to float32 [m, D]: float32 [n, m], 0 or more."""
    squares = (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1)[None, :] - 2.0 * one @ other.T
    distances: Features = np.maximum(squares, 0.0, dtype=np.float32)
    return distances


def representatives(features: Features, k: int, generator: np.random.Generator) -> tuple[list[int], list[int]]:
    """Returns k different images and how many images each stands for, those of the largest clusters first.

    The images are divided into k clusters by k-means, and the image nearest to the mean of each is taken: so they are
    different from each other and none is an oddity. Where the pile holds fewer than k different pictures, there are
    fewer clusters; the rest is drawn at random and stands for 0 images.

    Args:
        features: float32 [N, D].
        k: 1..N.
        generator: Decides the start of k-means.
    """
    clusters = kmeans(features, k, generator)
    sizes = np.bincount(clusters, minlength=k)
    order = np.argsort(-sizes, kind="stable")
    chosen = []
    for cluster in order[: np.count_nonzero(sizes)].tolist():
        members = np.flatnonzero(clusters == cluster)
        mean = features[members].mean(axis=0, keepdims=True)
        chosen.append(int(members[squared_distances(features[members], mean)[:, 0].argmin()]))
    others = np.setdiff1d(np.arange(len(features)), chosen)
    chosen += generator.choice(others, k - len(chosen), replace=False).tolist()
    return chosen, sizes[order].tolist()


def _spread(features: Features, k: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Returns k different images far from each other.

    Each is the best of a few, drawn by their squared distance to those before: it leaves the smallest sum of squared
    distances. One draw alone rarely comes upon a small group beside large ones.
    """
    trials = 2 + int(np.log(k))
    chosen = np.empty(k, np.int64)
    chosen[0] = generator.integers(len(features))
    closest = squared_distances(features, features[chosen[:1]])[:, 0].astype(np.float64)
    for i in range(1, k):
        closest[chosen[i - 1]] = 0.0  # not a rounding error
        if closest.any():
            drawn = generator.choice(len(features), trials, p=closest / closest.sum())
        else:  # all others are copies of what was chosen
            drawn = generator.choice(np.setdiff1d(np.arange(len(features)), chosen[:i]), 1)
        after = np.minimum(closest[:, None], squared_distances(features, features[drawn]))
        best = int(after.sum(axis=0).argmin())
        chosen[i], closest = drawn[best], after[:, best].copy()
    return chosen
