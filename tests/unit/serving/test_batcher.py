import asyncio
import time
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.errors import InputError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.predictions import PredictionBatch
from serving.batcher import Batcher, BatchLimits
from serving.queue import BULK_SHARE, Request, RequestQueue
from support.engines import EchoEngine, marked, marks_of


def limits(
    max_batch_size: int = 8,
    delay_ms: float = 1.0,
    images: int = 10_000,
    size_bytes: int = 1 << 20,
    instances: int = 1,
    preferred_batch_size: int = 0,
) -> BatchLimits:
    return BatchLimits(max_batch_size, preferred_batch_size or max_batch_size, delay_ms, images, size_bytes, instances)


def numbered(sizes: Iterable[int]) -> list[list[int]]:
    """Marks for requests of the given sizes, no mark twice."""
    start, requests = 1000, []
    for size in sizes:
        requests.append(list(range(start, start + size)))
        start += size
    return requests


async def occupy(batcher: Batcher, engine: EchoEngine) -> "asyncio.Task[PredictionBatch]":
    """Holds the engine with one request, so that what follows has to queue."""
    engine.gate.clear()
    plug = asyncio.create_task(batcher.predict(marked([1])))
    assert await asyncio.to_thread(engine.entered.acquire, timeout=30)
    return plug


async def settle() -> None:
    """Lets every task run as far as it can without a thread's or a timer's help."""
    for _ in range(20):
        await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    max_batch_size=st.integers(1, 16),
    instances=st.integers(1, 3),
    delay_ms=st.sampled_from([0.0, 0.1, 1.0]),
    pauses=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    cancelled=st.sets(st.integers(0, 11)),
)
def test_each_request_gets_exactly_its_own_answer(
    sizes: list[int],
    max_batch_size: int,
    instances: int,
    delay_ms: float,
    pauses: list[int],
    cancelled: set[int],
) -> None:
    engine = EchoEngine()
    requests = numbered(sizes)

    async def scenario() -> None:
        batcher = Batcher(engine, limits(max_batch_size, delay_ms, images=sum(sizes), instances=instances))
        calls = []
        for request, pause in zip(requests, pauses, strict=False):
            calls.append(asyncio.create_task(batcher.predict(marked(request))))
            for _ in range(pause):
                await asyncio.sleep(0)
        for i in cancelled & set(range(len(calls))):
            calls[i].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for i, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if i in cancelled and isinstance(answer, asyncio.CancelledError):
                continue
            assert isinstance(answer, PredictionBatch)
            assert marks_of(answer) == request
            assert answer.label_index.tolist() == [mark % 2 for mark in request]
        # Whatever was cancelled or answered has left: the whole queue is free again.
        whole = list(range(sum(sizes)))
        assert marks_of(await batcher.predict(marked(whole))) == whole
        await batcher.close()

    asyncio.run(scenario())
    assert max(len(batch) for batch in engine.batches) <= max_batch_size
    seen = [mark for batch in engine.batches for mark in batch if mark >= 1000]
    assert len(seen) == len(set(seen)), "an image was inferred twice"


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=10), cancelled=st.sets(st.integers(0, 9), min_size=1))
def test_cancelled_requests_never_reach_the_engine(sizes: list[int], cancelled: set[int]) -> None:
    engine = EchoEngine()
    requests = numbered(sizes)

    async def scenario() -> None:
        batcher = Batcher(engine, limits())
        plug = await occupy(batcher, engine)
        calls = [asyncio.create_task(batcher.predict(marked(request))) for request in requests]
        await settle()
        for i in cancelled & set(range(len(calls))):
            calls[i].cancel()
        engine.gate.set()
        await asyncio.gather(plug, *calls, return_exceptions=True)
        await batcher.close()

    asyncio.run(scenario())
    expected = {mark for i, request in enumerate(requests) if i not in cancelled for mark in request}
    assert engine.seen == expected | {1}


async def test_requests_that_wait_together_are_inferred_together() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=16))
    plug = await occupy(batcher, engine)
    calls = [asyncio.create_task(batcher.predict(marked([10 + i]))) for i in range(12)]
    await settle()
    engine.gate.set()
    await asyncio.gather(plug, *calls)
    await batcher.close()
    assert engine.batches == [[1], list(range(10, 22))]


async def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=6, delay_ms=3_600_000))
    await asyncio.gather(*(batcher.predict(marked([2 * i, 2 * i + 1])) for i in range(3)))
    assert engine.batches == [list(range(6))]
    await batcher.close()


async def test_big_requests_are_split_and_their_rest_is_joined_with_the_next() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=4))
    plug = await occupy(batcher, engine)
    big = asyncio.create_task(batcher.predict(marked(range(10, 20))))
    small = asyncio.create_task(batcher.predict(marked([20, 21])))
    await settle()
    engine.gate.set()
    assert marks_of(await big) == list(range(10, 20))
    assert marks_of(await small) == [20, 21]
    await plug
    await batcher.close()
    assert engine.batches == [[1], [10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20, 21]]


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


async def test_inferences_run_side_by_side() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=1, instances=2))
    engine.gate.clear()
    calls = [asyncio.create_task(batcher.predict(marked([i]))) for i in range(3)]
    for _ in range(2):
        assert await asyncio.to_thread(engine.entered.acquire, timeout=30)
    await settle()
    assert len(engine.batches) == 2, "more inferences than instances"
    engine.gate.set()
    await asyncio.gather(*calls)
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


async def test_an_engine_error_concerns_the_requests_of_its_batch_only() -> None:
    engine = EchoEngine(broken=frozenset({12}))
    batcher = Batcher(engine, limits(max_batch_size=2))
    plug = await occupy(batcher, engine)
    requests = [[10], [11], [12], [13], [14], [15]]
    calls = [asyncio.create_task(batcher.predict(marked(request))) for request in requests]
    await settle()
    engine.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, RemoteError) for answer in answers] == [False, False, True, True, False, False]
    assert isinstance(answers[2], RemoteError)
    assert str(answers[2].__cause__) == "secret of the engine"
    assert "secret" not in str(answers[2])
    await plug
    await batcher.close()


async def test_the_rest_of_a_failed_request_is_not_inferred() -> None:
    engine = EchoEngine(broken=frozenset({10}))
    batcher = Batcher(engine, limits(max_batch_size=2))
    with pytest.raises(RemoteError):
        await batcher.predict(marked(range(10, 30)))
    assert marks_of(await batcher.predict(marked([5]))) == [5]
    await batcher.close()
    # The next batch may be formed before the failure is known to the caller; the rest of the queue is not.
    assert len(engine.seen & set(range(10, 30))) <= 4


async def test_answers_that_are_not_finite_are_errors_of_their_rows_in_every_request() -> None:
    engine = EchoEngine(not_finite=frozenset({11, 21}))
    batcher = Batcher(engine, limits(max_batch_size=3))
    plug = await occupy(batcher, engine)
    calls = [asyncio.create_task(batcher.predict(marked(request))) for request in ([10, 11], [20, 21, 22, 23])]
    await settle()
    engine.gate.set()
    first, second = await asyncio.gather(*calls)
    assert (list(first.errors), marks_of(first)) == ([1], [10])
    assert (list(second.errors), marks_of(second)) == ([1], [20, 22, 23])
    assert "NaN" in second.errors[1]
    await plug
    await batcher.close()


async def test_an_expired_request_is_dropped() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits())
    with pytest.raises(TimeoutError):
        await batcher.predict(marked([7]), timeout_s=0)
    assert marks_of(await batcher.predict(marked([8]), timeout_s=60)) == [8]
    await batcher.close()
    assert engine.seen == {8}


async def test_close_answers_everything_accepted_and_takes_nothing_new() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(delay_ms=3_600_000))
    engine.gate.clear()
    requests = numbered([3, 9, 1, 20])
    calls = [asyncio.create_task(batcher.predict(marked(request))) for request in requests]
    await settle()
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(ServerUnavailableError, match="stopping"):
        await batcher.predict(marked([1]))
    engine.gate.set()
    assert [marks_of(answer) for answer in await asyncio.gather(*calls)] == requests
    await closing


async def test_an_engine_that_answers_another_number_of_rows_is_an_error() -> None:
    class Short(EchoEngine):
        def predict(self, images: np.ndarray) -> PredictionBatch:
            return super().predict(images[:-1])

    batcher = Batcher(Short(), limits())
    with pytest.raises(RemoteError):
        await batcher.predict(marked([1, 2]))
    await batcher.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_batch_size", 0),
        ("preferred_batch_size", 0),
        ("max_queue_delay_ms", -1.0),
        ("max_queue_delay_ms", float("nan")),
        ("max_queue_images", 0),
        ("max_queue_bytes", 0),
        ("instances", 0),
    ],
)
def test_limits_that_make_no_sense_are_refused(field: str, value: float) -> None:
    good = {"max_batch_size": 1, "preferred_batch_size": 1, "max_queue_delay_ms": 0, "max_queue_images": 1}
    good |= {"max_queue_bytes": 1, "instances": 1}
    with pytest.raises(InputError, match=f"{field} is {value}"):
        BatchLimits(**{**good, field: value})


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
