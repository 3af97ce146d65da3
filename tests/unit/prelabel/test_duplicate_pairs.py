"""The search for pairs and groups against the plain, slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prelabel.duplicates.fingerprints import Fingerprints
from prelabel.duplicates.groups import find_groups
from prelabel.duplicates.pairs import MAX_DISTANCE, Near, near_pairs
from prelabel.errors import InputError

THUMBNAIL = 6


@st.composite
def piles(draw: st.DrawFn) -> Fingerprints:
    """Images around a few centres: many pairs are just within a distance, or just not, and some are equal."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, centres = draw(st.integers(0, 60)), draw(st.integers(1, 6))
    flips, levels = draw(st.integers(0, 10)), draw(st.integers(1, 9))
    chosen = generator.integers(0, centres, count)
    hashes = generator.integers(0, 2**64, centres, np.uint64)[chosen]
    for i in range(count):
        for bit in generator.integers(0, 64, generator.integers(0, flips + 1)):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    thumbnails = generator.integers(0, 200, (centres, THUMBNAIL))[chosen]
    thumbnails = (thumbnails + generator.integers(0, levels, (count, THUMBNAIL))).astype(np.uint8)
    digests = generator.integers(0, draw(st.integers(1, 60)), (count, 2)).astype(np.uint64)
    # Equal pictures have equal hashes.
    for i in range(count):
        same = np.flatnonzero((digests == digests[i]).all(axis=1))[0]
        hashes[i], thumbnails[i] = hashes[same], thumbnails[same]
    return Fingerprints(np.arange(count), tuple(map(str, range(count))), digests, hashes, thumbnails)


def alike(pile: Fingerprints, one: int, other: int, near: Near) -> bool:
    bits = int(pile.hashes[one] ^ pile.hashes[other]).bit_count()
    difference = np.abs(pile.thumbnails[one].astype(int) - pile.thumbnails[other]).mean()
    return bits <= near.distance and bool(difference <= near.difference)


def expected_groups(pile: Fingerprints, near: Near | None) -> list[tuple[int, int, bool]]:
    """Takes the images in their order, each with each earlier one that was kept."""
    found: list[tuple[int, int, bool]] = []
    kept: list[int] = []
    for i in range(len(pile)):
        same = [j for j in range(i) if (pile.digests[i] == pile.digests[j]).all()]
        close = [j for j in kept if near is not None and alike(pile, i, j, near)]
        if same:
            of, distance, _ = found[same[0]]
            found.append((same[0], 0, True) if of < 0 else (of, distance, False))
        elif close:
            distance, of = min((int(pile.hashes[i] ^ pile.hashes[j]).bit_count(), j) for j in close)
            found.append((of, distance, False))
        else:
            found.append((-1, 0, False))
            kept.append(i)
    return found


nears = st.builds(Near, distance=st.integers(0, MAX_DISTANCE), difference=st.sampled_from([0.0, 1.5, 4.0, 255.0]))


@given(piles(), nears, st.data())
def test_pairs_are_those_of_brute_force_each_once(pile: Fingerprints, near: Near, data: st.DataObject) -> None:
    members = np.array([i for i in range(len(pile)) if data.draw(st.booleans())], np.int64)
    pairs: list[tuple[int, int, int]] = []
    for earlier, later, bits in near_pairs(pile, members, near):
        pairs += zip(earlier.tolist(), later.tolist(), bits.tolist(), strict=True)
    wanted = [
        (i, j, int(pile.hashes[i] ^ pile.hashes[j]).bit_count())
        for i in members.tolist()
        for j in members.tolist()
        if i < j and alike(pile, i, j, near)
    ]
    assert sorted(pairs) == wanted


@given(piles(), st.none() | nears, st.integers(1, 70), st.integers(0, 40))
def test_groups_are_those_of_one_pass_whatever_the_slices(
    pile: Fingerprints, near: Near | None, slice_images: int, max_pairs: int
) -> None:
    groups = find_groups(pile, near, slice_images=slice_images, max_pairs=max_pairs)
    found = zip(groups.duplicate_of.tolist(), groups.distance.tolist(), groups.exact.tolist(), strict=True)
    assert list(found) == expected_groups(pile, near)
    copies = groups.duplicate_of >= 0
    assert (groups.duplicate_of[groups.duplicate_of[copies]] == -1).all()
    assert groups.exact_count + groups.near_count == copies.sum()


def test_a_chain_of_small_steps_is_not_one_group() -> None:
    hashes: NDArray[np.uint64] = np.array([(1 << 3 * i) - 1 for i in range(9)], np.uint64)  # 3 bits apart
    digests = np.arange(18, dtype=np.uint64).reshape(9, 2)
    pile = Fingerprints(np.arange(9), tuple("abcdefghi"), digests, hashes, np.zeros((9, THUMBNAIL), np.uint8))
    assert find_groups(pile, Near(distance=4)).duplicate_of.tolist() == [-1, 0, -1, 2, -1, 4, -1, 6, -1]


@pytest.mark.parametrize(("options", "message"), [({"distance": 17}, "--distance 17"), ({"difference": -1}, "--diff")])
def test_thresholds_have_limits(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Near(**options)
