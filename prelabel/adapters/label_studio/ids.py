"""Ids -> numbers in bounded memory: 16 bytes an id, whatever its length."""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.table import read_predictions


class IdIndex:
    """Looks ids up by 64-bit hashes; two of a million ids share one with a probability of 3e-8."""

    def __init__(self, hashes: NDArray[np.uint64], values: NDArray[np.int64]) -> None:
        """Sorts the index.

        Args:
            hashes: uint64 [N], of `hashes_of`.
            values: int64 [N], not negative.
        """
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._values = hashes[order], values[order]

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def values(self) -> NDArray[np.int64]:
        """int64 [N]: all values."""
        return self._values

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Returns int64 [n]: the value of each id, of several the first one; -1 where it is not known."""
        wanted = hashes_of(ids)
        if not len(self._hashes):
            return np.full(len(wanted), -1, np.int64)
        place = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.where(self._hashes[place] == wanted, self._values[place], -1)


def hash_of(identity: str) -> int:
    """Returns a 64-bit hash of an id."""
    return int.from_bytes(blake2b(identity.encode("utf-8", "backslashreplace"), digest_size=8).digest(), "little")


def hashes_of(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Returns uint64 [n]: the hash of each id."""
    return np.array(array("Q", map(hash_of, ids)), np.uint64)


def index_of(pairs: Iterable[tuple[str, int]]) -> IdIndex:
    """Returns the index of (id, value) pairs, which are read as a stream."""
    hashes, values = array("Q"), array("q")
    for identity, value in pairs:
        hashes.append(hash_of(identity))
        values.append(value)
    return IdIndex(np.array(hashes, np.uint64), np.array(values, np.int64))


def check_ids(directory: Path) -> None:
    """Raises `InputError`, with an id that occurs twice, if there is one in a directory of predictions."""
    import pyarrow.compute as pc

    ids = read_predictions(directory, ["id"])["id"]
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()["values"]
        raise InputError(f"{directory} holds the id {twice!r} twice: an id must be that of one image")
