"""All pairs of images that are alike, without comparing each with each.

Two 64-bit hashes that differ in at most d bits agree in at least two of d + 2 blocks of their bits (each bit that
differs spoils one block). So for each two blocks the hashes are sorted by the bits of both, and only those with the
same bits are compared (G. S. Manku, A. Jain, A. Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007). The
result is exact. Within the same bits, images are sorted by brightness and compared while that is near enough.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.duplicates.fingerprints import Fingerprints
from prelabel.errors import InputError
from prelabel.images import Pixels

MAX_DISTANCE = 16
"""Over that, blocks have 3 bits and nearly everything is compared with everything; unrelated images differ in 32."""
COMPARED_AT_ONCE = 1 << 16
"""Thumbnails that are compared in one step: 50 MB of numbers."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]
"""int64 [p], int64 [p], uint8 [p]: earlier image, later image, and in how many bits their hashes differ."""


@dataclass(frozen=True)
class Near:
    """When two images count as near-duplicates: both must hold."""

    distance: int = 4
    """Most bits in which their perceptual hashes differ, of 64: a picture saved anew as JPEG differs in up to 4."""
    difference: float = 3.0
    """Most mean difference of their thumbnails, in grey levels 0..255: JPEG of quality 50 makes up to 3."""

    def __post_init__(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise InputError(f"--distance {self.distance} is not usable: 0 to {MAX_DISTANCE} bits are wanted")
        if not 0 <= self.difference <= 255:
            raise InputError(f"--difference {self.difference} is not usable: 0 to 255 grey levels are wanted")


def near_pairs(prints: Fingerprints, members: NDArray[np.int64], near: Near) -> Iterator[Pairs]:
    """Yields all pairs of near-duplicates among `members`, each once, in pieces.

    Besides its arguments it needs memory for a few numbers per member, however many pairs there are.

    Args:
        prints: n images.
        members: int64 [m], ascending: the places of those that are compared.
        near: What counts.
    """
    masks = _masks(near.distance + 2)
    limit = int(near.difference * prints.thumbnails.shape[1])
    hashes, brightness = prints.hashes[members], prints.brightness[members]
    for one, other in itertools.combinations(range(len(masks)), 2):
        keys = hashes & (masks[one] | masks[other])
        order = np.lexsort((brightness, keys))
        keys, light, placed = keys[order], brightness[order], members[order]
        sorted_hashes = hashes[order]
        left = np.arange(len(placed))
        for step in itertools.count(1):
            # Who has no partner at this step has none further on: keys and brightness are sorted.
            left = left[left + step < len(placed)]
            right = left + step
            left = left[(keys[left] == keys[right]) & (light[right] - light[left] <= limit)]
            if not len(left):
                break
            differ = sorted_hashes[left] ^ sorted_hashes[left + step]
            bits = np.bitwise_count(differ)
            close = np.flatnonzero(bits <= near.distance)
            close = close[_first_agreement(differ[close], masks, one, other)]
            first, second = placed[left[close]], placed[left[close] + step]
            alike = _differences(prints.thumbnails, first, second) <= limit
            if alike.any():
                first, second = first[alike], second[alike]
                yield np.minimum(first, second), np.maximum(first, second), bits[close[alike]]


def _masks(blocks: int) -> NDArray[np.uint64]:
    """uint64 [blocks]: the 64 bits cut into blocks of nearly the same size."""
    edges = [64 * i // blocks for i in range(blocks + 1)]
    return np.array([(1 << stop) - (1 << start) for start, stop in itertools.pairwise(edges)], np.uint64)


def _first_agreement(differ: NDArray[np.uint64], masks: NDArray[np.uint64], one: int, other: int) -> NDArray[np.bool_]:
    """Says of each pair whether `one` and `other` are the first two blocks in which it agrees: there it is counted."""
    earlier = np.zeros(len(differ), np.int64)
    for block in range(other):
        earlier += (differ & masks[block]) == 0
    before_one = np.zeros(len(differ), np.int64)
    for block in range(one):
        before_one += (differ & masks[block]) == 0
    first: NDArray[np.bool_] = (before_one == 0) & (earlier == 1)
    return first


def _differences(thumbnails: Pixels, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns int64 [p]: the sum of absolute differences of two thumbnails each."""
    sums = np.empty(len(first), np.int64)
    for start in range(0, len(first), COMPARED_AT_ONCE):
        rows = slice(start, start + COMPARED_AT_ONCE)
        difference = thumbnails[first[rows]].astype(np.int16) - thumbnails[second[rows]]
        sums[rows] = np.abs(difference).sum(axis=1)
    return sums
