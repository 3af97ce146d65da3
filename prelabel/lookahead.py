"""A parallel `map` that keeps the order and works a bounded number of items ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_ahead(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], threads: int
) -> Generator[ResultT, None, None]:
    """Yields `function(item)` for each item, in order; close it to end its threads.

    Args:
        function: Runs in the threads. What it raises comes out in the item's place.
        items: Read in the caller's thread, at most two for each thread ahead of what was yielded: one in work, one
            ready when it is asked for.
        threads: Number of threads, 1 or more.
    """
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
