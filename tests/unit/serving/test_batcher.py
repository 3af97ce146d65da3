import asyncio
import contextlib
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.errors import InputError, RemoteError, ServerUnavailableError
from prelabel.predictions import PredictionBatch
from serving.batcher import Batcher, BatchLimits
from support.batchers import limits, numbered, occupy, settle
from support.engines import EchoEngine, entered, marked, marks_of


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


async def test_inferences_run_side_by_side() -> None:
    engine = EchoEngine()
    batcher = Batcher(engine, limits(max_batch_size=1, instances=2))
    engine.gate.clear()
    calls = [asyncio.create_task(batcher.predict(marked([i]))) for i in range(3)]
    for _ in range(2):
        await entered(engine)
    await settle()
    assert len(engine.batches) == 2, "more inferences than instances"
    engine.gate.set()
    await asyncio.gather(*calls)
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


@pytest.mark.usefixtures("no_collector")
async def test_a_closed_batcher_lets_go_of_its_engine() -> None:
    """The garbage collector does not look at what a server made before it served."""
    engine = EchoEngine(broken=frozenset({7}))
    batcher = Batcher(engine, limits())
    assert marks_of(await batcher.predict(marked([1, 2]))) == [1, 2]
    with contextlib.suppress(RemoteError):
        await batcher.predict(marked([7]))
    last = asyncio.create_task(batcher.predict(marked([3])))
    await entered(engine)
    await batcher.close()
    assert marks_of(await last) == [3]
    freed = weakref.ref(engine)
    del engine
    assert freed() is None


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
