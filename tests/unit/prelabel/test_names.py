"""Names in little memory: every name comes back, whatever bytes it has, alone, in order, and from a part."""

import os

from hypothesis import given
from hypothesis import strategies as st

from prelabel.sources.names import Names

RAW = st.lists(st.binary(min_size=1, max_size=12), max_size=20)
"""Names as a file system has them: any bytes."""


@given(RAW)
def test_names_come_back_as_they_were(raw: list[bytes]) -> None:
    known = [os.fsdecode(name) for name in raw]
    names = Names(known)
    assert len(names) == len(known)
    assert list(names) == known == names[:]
    assert [names[i] for i in range(len(names))] == known
    assert list(names.encoded()) == raw


@given(RAW, st.data())
def test_a_part_holds_its_names_and_no_others(raw: list[bytes], data: st.DataObject) -> None:
    known = [os.fsdecode(name) for name in raw]
    start = data.draw(st.integers(0, len(known)))
    stop = data.draw(st.integers(start, len(known)))
    part = Names(known).part(start, stop)
    assert list(part) == known[start:stop] == part[:]
    assert list(part.part(0, len(part))) == known[start:stop]
