"""Millions of names in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload


class Names(Sequence[str]):
    """File names, end to end in one piece of memory: their own bytes and eight more each, where a `str` takes fifty.

    Bytes that are not UTF-8 are surrogates in a `str`, as `os.fsdecode` makes them.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Adds a name at the end."""
        self._bytes += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogateescape") for name in self.encoded())

    def encoded(self) -> Iterator[bytearray]:
        """Yields the bytes of each name."""
        start = 0
        for end in islice(self._ends, 1, None):
            yield self._bytes[start:end]
            start = end

    def part(self, start: int, stop: int) -> "Names":
        """Returns the names at positions start (included) to stop (excluded)."""
        part = Names()
        ends = self._ends[start : stop + 1]
        part._bytes = self._bytes[ends[0] : ends[-1]]
        part._ends = array("Q", (end - ends[0] for end in ends))
        return part


def first_twice(names: Sequence[str], shown: Iterable[tuple[str, str]]) -> str | None:
    """Returns a text that two names are shown as, None where all texts are different.

    Args:
        names: Different names.
        shown: (name, how it is shown) of those names that are not shown as they are.
    """
    altered: set[str] = set()
    for _, text in shown:
        if text in altered:
            return text
        altered.add(text)
    return next((name for name in names if name in altered), None) if altered else None
