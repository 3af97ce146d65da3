"""Who waits in front of the engine, and for how long: priorities, a full queue, the delay for company."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.errors import OverloadedError
from prelabel.predictions import Priority
from serving.batcher import Batcher, BatchLimits
from serving.observer import BatchRun, Unobserved
from serving.queue import BULK_SHARE, Held, Request, RequestQueue
from support.batchers import limits, occupy, settle
from support.engines import EchoEngine, marked, marks_of


async def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=6, delay_ms=3_600_000))
    await asyncio.gather(*(batcher.predict(marked([2 * i, 2 * i + 1])) for i in range(3)))
    assert engine.batches == [list(range(6))]
    await batcher.close()


async def test_people_go_before_piles_and_piles_keep_their_share() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=4))
    plug = await occupy(batcher, engine)
    pile = asyncio.create_task(batcher.predict(marked(range(100, 108)), priority="bulk"))
    await settle()
    people = [asyncio.create_task(batcher.predict(marked([10 + i]))) for i in range(16)]
    await settle()
    engine.gate.set()
    assert marks_of(await pile) == list(range(100, 108))
    await asyncio.gather(plug, *people)
    await batcher.close()
    # One batch in four is the pile's; the rest of it follows once nobody else waits.
    starts = (10, 14, 18, 100, 22, 104)
    assert engine.batches[1:] == [[*range(start, start + 4)] for start in starts]


async def test_a_persons_few_images_do_not_take_as_long_as_a_full_batch() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=4))
    plug = await occupy(batcher, engine)
    pile = asyncio.create_task(batcher.predict(marked(range(100, 104)), priority="bulk"))
    await settle()
    person = asyncio.create_task(batcher.predict(marked([5])))
    await settle()
    engine.gate.set()
    await asyncio.gather(plug, pile, person)
    assert engine.batches[1:] == [[5], [100, 101, 102, 103]]
    await batcher.close()


@settings(max_examples=60, deadline=None)
@given(
    max_rows=st.integers(1, 9),
    pile=st.integers(1, 30),
    people=st.lists(st.integers(1, 5), min_size=1, max_size=30),
)
def test_neither_priority_starves(max_rows: int, pile: int, people: list[int]) -> None:
    loop = asyncio.new_event_loop()
    queue = RequestQueue(10_000, 1 << 20)
    for size in people:
        queue.add(Request(marked(range(size)), loop.create_future(), 0.0, 1.0, "interactive"))
    queue.add(Request(marked(range(pile)), loop.create_future(), 0.0, 1.0, "bulk"))
    loop.close()
    left = {"interactive": sum(people), "bulk": pile}
    since_bulk = 0
    while batch := queue.take(max_rows, 0.0):
        (priority,) = {piece.request.priority for piece in batch}
        both = all(left.values())
        rows = sum(piece.stop - piece.start for piece in batch)
        assert rows == min(max_rows, left[priority]), "a batch has room while somebody of its priority waits"
        left[priority] -= rows
        assert queue.waiting_images == sum(left.values())
        since_bulk = 0 if priority == "bulk" else since_bulk + 1
        if both:
            assert since_bulk <= 1 / BULK_SHARE - 1, "while both wait, every fourth batch is the pile's"
    assert not any(left.values())


async def test_a_full_pile_leaves_room_for_people_and_one_big_request_is_taken() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(images=16))
    plug = await occupy(batcher, engine)
    pile = asyncio.create_task(batcher.predict(marked(range(100, 115)), priority="bulk"))
    await settle()
    engine.gate.set()
    assert marks_of(await pile) == list(range(100, 115)), "over seven eighths, but alone"
    engine.gate.clear()
    waiting = [asyncio.create_task(batcher.predict(marked(range(n, n + 7)), priority="bulk")) for n in (200, 300)]
    await settle()
    with pytest.raises(OverloadedError):
        await batcher.predict(marked([400]), priority="bulk")
    person = asyncio.create_task(batcher.predict(marked([5, 6])))
    await settle()
    engine.gate.set()
    assert marks_of(await person) == [5, 6]
    await asyncio.gather(plug, *waiting)
    await batcher.close()


@pytest.mark.parametrize("full", [limits(images=10), limits(size_bytes=40)], ids=["images", "bytes"])
async def test_a_full_queue_refuses_and_recovers(full: BatchLimits) -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, full)
    plug = await occupy(batcher, engine)
    waiting = asyncio.create_task(batcher.predict(marked(range(10, 19))))
    await settle()
    with pytest.raises(OverloadedError, match="10 images, 40 bytes unanswered"):
        await batcher.predict(marked([99]))
    engine.gate.set()
    await asyncio.gather(plug, waiting)
    assert marks_of(await batcher.predict(marked([99]))) == [99]
    await batcher.close()


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["hold", "add", "take over", "leave"]), st.integers(1, 9), st.booleans()), max_size=40
    )
)
def test_held_places_count_and_nobody_else_gets_them(steps: list[tuple[str, int, bool]]) -> None:
    queue = RequestQueue(16, 64)
    held: list[Held] = []
    added: list[Request] = []

    def rows(size: int, priority: Priority) -> Request:
        return Request(marked(range(size)), cast(Any, None), float(number), 1.0, priority)

    for number, (kind, size, is_bulk) in enumerate(steps):
        priority: Priority = "bulk" if is_bulk else "interactive"
        if kind == "take over" and held:
            queue.release(last := held.pop())
            added.append(rows(max(1, last.images - size % 2), last.priority))  # one may have been no image
            queue.add(added[-1])
        elif kind == "leave" and added:
            queue.remove(added.pop(0))
        elif kind in ("hold", "add"):
            with contextlib.suppress(OverloadedError):
                if kind == "hold":
                    places = Held(size, 4 * size + size % 5, priority, float(number))
                    queue.hold(places)
                    held.append(places)
                else:
                    one = rows(size, priority)
                    queue.add(one)
                    added.append(one)
        images = sum(one.images for one in held) + sum(len(one.images) for one in added)
        size_bytes = sum(one.size_bytes for one in held) + sum(one.images.nbytes for one in added)
        assert queue.unanswered_images == images <= 16
        state = queue.state()
        assert sum(one.unanswered_bytes for one in state.values()) == size_bytes <= 64
        assert sum(one.waiting_images for one in state.values()) == images, "nothing is taken, all of it waits"
        assert queue.waiting_images == sum(len(one.images) for one in added), "only rows can be taken"
        for of, shown in state.items():
            since_s = [places.since_s for places in held if places.priority == of]
            since_s += [request.arrived_at_s for request in added if request.priority == of]
            assert shown.oldest_arrived_at_s == min(since_s, default=None)


class Noted(Unobserved):
    def __init__(self) -> None:
        self.runs: list[BatchRun] = []
        self.arrivals_s: list[float] = []

    def batch_ran(self, run: BatchRun) -> None:
        self.runs.append(run)

    def request_left(self, arrived_at_s: float, priority: Priority, runs: Sequence[BatchRun]) -> None:
        self.arrivals_s.append(arrived_at_s)


async def test_what_is_told_and_reckoned_does_not_take_the_event_loops_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 0.0)  # uvloop's stands still for milliseconds
    engine, noted = EchoEngine(), Noted()
    batcher = Batcher(engine, limits(delay_ms=0.0, images=10), noted)
    before_s = time.monotonic()
    await batcher.predict(marked(range(5)))
    (run,), (arrived_at_s,) = noted.runs, noted.arrivals_s
    assert before_s <= arrived_at_s <= run.formed_at_s <= run.started_at_s <= run.ended_at_s <= time.monotonic()
    plug = await occupy(batcher, engine)
    waiting = asyncio.create_task(batcher.predict(marked(range(9))))
    await settle()
    with pytest.raises(OverloadedError) as caught:
        await batcher.predict(marked([99]))
    # Ten wait, and five are half of them: what the engine needed for five is the least.
    assert (caught.value.retry_after_s or 0.0) >= run.ended_at_s - run.started_at_s
    assert (caught.value.retry_after_s or 0.0) <= time.monotonic() - before_s
    engine.gate.set()
    await asyncio.gather(plug, waiting)
    await batcher.close()


async def test_an_expired_request_is_dropped() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits())
    with pytest.raises(TimeoutError):
        await batcher.predict(marked([7]), timeout_s=0)
    assert marks_of(await batcher.predict(marked([8]), timeout_s=60)) == [8]
    await batcher.close()
    assert engine.seen == {8}


async def test_enough_rows_do_not_wait_for_a_full_batch() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=100, delay_ms=3_600_000.0, preferred_batch_size=4))
    requests = [asyncio.create_task(batcher.predict(marked([mark]))) for mark in range(4)]
    assert [marks_of(answer) for answer in await asyncio.gather(*requests)] == [[0], [1], [2], [3]]
    assert engine.batches == [[0, 1, 2, 3]]
    await batcher.close()


async def test_a_request_that_comes_alone_waits_only_where_there_was_company_lately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(delay_ms=3_600_000.0))
    first = asyncio.create_task(batcher.predict(marked([1])))
    await settle()
    assert not engine.batches  # a new batcher expects company
    much_later_s = time.monotonic() + 51 * 3600
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: much_later_s)
    second = asyncio.create_task(batcher.predict(marked([2])))  # finds company: both have waited long enough
    await asyncio.gather(first, second)
    third = asyncio.create_task(batcher.predict(marked([3])))
    await settle()
    assert engine.batches == [[1, 2]]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: much_later_s + 60)
    third.cancel()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: much_later_s + 51 * 3600)
    await settle()
    assert marks_of(await batcher.predict(marked([4]))) == [4]
    assert engine.batches == [[1, 2], [4]]
    monkeypatch.undo()
    await batcher.close()
