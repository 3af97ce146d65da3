"""Millions of names in little memory."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Names(Sequence[str]):
    """File names, end to end in one piece of memory: their own bytes and eight more each, where a `str` takes fifty."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Adds a name at the end; it may hold bytes that are not UTF-8, as surrogates."""
        self._bytes += os.fsencode(name)
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
        return os.fsdecode(bytes(self._bytes[self._ends[index] : self._ends[index + 1]]))

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


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
