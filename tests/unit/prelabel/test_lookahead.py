"""The parallel map: in order, not too far ahead, and its threads end."""

import contextlib
import threading
from collections.abc import Iterator

import pytest

from prelabel.lookahead import map_ahead


def test_results_come_in_order_whichever_is_ready_first() -> None:
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_done.wait(30)
        if item == 1:
            second_done.set()
        return 10 * item

    assert list(map_ahead(work, range(20), 2)) == [10 * item for item in range(20)]
    assert list(map_ahead(work, [], 2)) == []


def test_it_reads_a_bounded_number_of_items_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    with contextlib.closing(map_ahead(lambda item: item, items(), 3)) as results:
        for result in results:
            assert len(taken) <= result + 1 + 2 * 3
            if result == 50:
                break
    assert len(taken) < 60


def test_an_error_comes_in_the_place_of_its_item_and_the_threads_end() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    before = threading.active_count()
    results = map_ahead(work, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert threading.active_count() == before
