"""Which image is a duplicate of which: one image stands for each group, and is itself nobody's duplicate.

Images are taken in their order: one that equals or is near an earlier image that was kept is that one's duplicate, all
others are kept. So no chain of small steps (frames of a film) makes images that differ much one group, and
`duplicate_of` never has to be followed twice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.duplicates.fingerprints import Fingerprints
from prelabel.duplicates.pairs import Near, near_pairs

SLICE_IMAGES = 1 << 20
"""Most images that are decided at once: each slice costs sorting all that are kept."""
MAX_PAIRS = 1 << 24
"""Pairs held in memory, 300 MB; where there are more, slices get smaller."""
PAIRS_PER_IMAGE = 16
"""Where many images are alike, pairs cost more than sorting: with more of them per image, slices get smaller."""
FEW_PAIRS = 1 << 16
"""So many cost no more than what each slice costs anyway."""


@dataclass(frozen=True)
class Groups:
    """The duplicates among n images."""

    duplicate_of: NDArray[np.int64]
    """int64 [n]: the earlier image that each is a duplicate of, by its place among the n; -1 where it is none."""
    distance: NDArray[np.uint8]
    """uint8 [n]: in how many bits their perceptual hashes differ."""
    exact: NDArray[np.bool_]
    """bool [n]: the same pixels as `duplicate_of`."""

    @property
    def exact_count(self) -> int:
        """Images with the same pixels as an earlier one that was kept."""
        return int(self.exact.sum())

    @property
    def near_count(self) -> int:
        """Images that are near an earlier one that was kept, and not equal to it."""
        return int((self.duplicate_of >= 0).sum()) - self.exact_count


def find_groups(
    prints: Fingerprints, near: Near | None, *, slice_images: int = SLICE_IMAGES, max_pairs: int = MAX_PAIRS
) -> Groups:
    """Finds duplicates.

    Args:
        prints: n images.
        near: What counts as near; None: only the same pixels count.
        slice_images: See `SLICE_IMAGES`.
        max_pairs: See `MAX_PAIRS`.
    """
    original, places = _first_of_same(prints.digests), np.arange(len(prints))
    duplicate_of = np.full(len(prints), -1, np.int64)
    distance = np.zeros(len(prints), np.uint8)
    copies = original != places
    if near is not None:
        _decide(prints, near, places[~copies], duplicate_of, distance, slice_images, max_pairs)
    # A copy of a near-duplicate is in the group of its original.
    grouped = duplicate_of[original] >= 0
    exact = copies & ~grouped
    duplicate_of = np.where(copies, np.where(grouped, duplicate_of[original], original), duplicate_of)
    return Groups(duplicate_of, np.where(copies, distance[original], distance), exact)


def _first_of_same(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns int64 [n]: the first place with the same digest (uint64 [n, 2])."""
    order = np.lexsort(digests.T)  # stable: of the same ones the first comes first
    ordered = digests[order]
    starts = np.ones(len(digests), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(digests), np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def _decide(
    prints: Fingerprints,
    near: Near,
    candidates: NDArray[np.int64],
    duplicate_of: NDArray[np.int64],
    distance: NDArray[np.uint8],
    slice_images: int,
    max_pairs: int,
) -> None:
    """Fills `duplicate_of` and `distance` of the candidates, slice by slice."""
    kept, start, size = candidates[:0], 0, slice_images
    while start < len(candidates):
        fresh = candidates[start : start + size]
        members = np.concatenate([kept, fresh])
        limit = min(max_pairs, max(FEW_PAIRS, PAIRS_PER_IMAGE * len(members))) if len(fresh) > 1 else None
        pairs = _collect(prints, members, near, limit)
        if pairs is None:
            size = len(fresh) // 2
            continue
        earlier, later, bits = pairs
        # By later image; the nearest partner first, of several the earliest.
        order = np.lexsort((earlier, bits, later))
        earlier, later, bits = earlier[order], later[order], bits[order]
        for image, low, count in zip(*np.unique(later, return_index=True, return_counts=True), strict=True):
            usable = np.flatnonzero(duplicate_of[earlier[low : low + count]] < 0)
            if len(usable):
                duplicate_of[image], distance[image] = earlier[low + usable[0]], bits[low + usable[0]]
        kept = np.concatenate([kept, fresh[duplicate_of[fresh] < 0]])
        start, size = start + len(fresh), min(2 * size, slice_images)


def _collect(
    prints: Fingerprints, members: NDArray[np.int64], near: Near, max_pairs: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]] | None:
    """Returns all pairs of the members, or None where there are too many."""
    pieces, count = [(members[:0], members[:0], np.empty(0, np.uint8))], 0
    for piece in near_pairs(prints, members, near):
        pieces.append(piece)
        count += len(piece[0])
        if max_pairs is not None and count > max_pairs:
            return None
    earlier, later, bits = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return earlier, later, bits
