"""The index of ids that the Label Studio backend keeps in memory."""

import numpy as np

from prelabel.adapters.label_studio.ids import IdIndex, hashes_of, index_of


def test_the_index_finds_what_is_in_it_and_nothing_else() -> None:
    ids = [f"photos/{i}.png" for i in range(5000)]
    index = index_of((identity, i) for i, identity in enumerate(ids))
    assert len(index) == 5000
    assert index.find(ids[::-1]).tolist() == list(range(4999, -1, -1))
    assert index.find(["photos/5000.png", "", "ü"]).tolist() == [-1, -1, -1]
    assert index_of([("a", 5), ("b", 6), ("a", 7)]).find(["a"]).tolist() == [5]
    assert index_of([]).find(["a"]).tolist() == [-1]


def test_an_id_takes_16_bytes() -> None:
    hashes = hashes_of(map(str, range(100_000)))
    assert len(np.unique(hashes)) == 100_000
    index = IdIndex(hashes, np.arange(100_000))
    assert sum(array.nbytes for array in vars(index).values()) == 1_600_000
    assert index.find(["99999", "0", "100000"]).tolist() == [99_999, 0, -1]
