"""The asyncio client against the test double; the logic that it shares with the other client has tests of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
import pytest

from prelabel.client_aio import AsyncPrelabelClient
from prelabel.errors import InputError, ModelNotFoundError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.images import ImageSpec, Pixels
from prelabel.testing import FakeServer
from support.clients import CLASSES, EXHAUSTED, SPEC, UNAVAILABLE, Time, assert_same, images


@pytest.fixture
async def client(server: FakeServer, time: Time) -> AsyncIterator[AsyncPrelabelClient]:
    async with AsyncPrelabelClient(server.address, timeout_s=30, sleep=time.sleep_aio, clock=time.clock) as connected:
        yield connected


async def test_the_model_is_described(client: AsyncPrelabelClient) -> None:
    model = await client.model()
    assert (model.classes, model.input, model.model_id) == (CLASSES, SPEC, "fake000000000000")


async def test_many_tasks_get_their_own_answers(server: FakeServer, client: AsyncPrelabelClient) -> None:
    answers = await asyncio.gather(*(client.predict(images(2, seed)) for seed in range(50)))
    for seed, answer in enumerate(answers):
        assert_same(answer, server.expected(images(2, seed)))
    assert server.batches == 50


@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED])
async def test_a_failing_call_is_tried_again(
    server: FakeServer, client: AsyncPrelabelClient, time: Time, code: grpc.StatusCode
) -> None:
    server.fail_next(3, code)
    assert_same(await client.predict(images(2)), server.expected(images(2)))
    assert (server.calls, time.sleeps) == (4, 3)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InputError),
        (grpc.StatusCode.INTERNAL, RemoteError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ServerUnavailableError),
    ],
)
async def test_other_failures_are_not_tried_again(
    server: FakeServer, client: AsyncPrelabelClient, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    server.fail_next(1, code)
    with pytest.raises(kind):
        await client.predict(images(2))
    assert server.calls == 1


async def test_an_overloaded_server_is_an_error_of_its_own(server: FakeServer, time: Time) -> None:
    server.fail_next(100, EXHAUSTED)
    async with AsyncPrelabelClient(server.address, retry_for_s=3, sleep=time.sleep_aio, clock=time.clock) as client:
        with pytest.raises(OverloadedError, match=f"{server.address} is overloaded"):
            await client.predict(images(1))


async def test_a_server_that_does_not_answer_is_an_error(server: FakeServer, time: Time) -> None:
    server.hold()
    async with AsyncPrelabelClient(
        server.address, timeout_s=0.2, retry_for_s=0.3, sleep=time.sleep_aio, clock=time.clock
    ) as client:
        with pytest.raises(ServerUnavailableError, match=r"did not answer within 0\.2 s"):
            await client.predict(images(1))
        assert time.sleeps == 0
        with pytest.raises(ServerUnavailableError, match=r"did not answer within 0\.2 s"):
            [answer async for answer in client.predict_stream([images(1)])]
        assert time.sleeps > 0


async def test_a_stream_answers_in_order(server: FakeServer, client: AsyncPrelabelClient) -> None:
    batches = [images(1 + i % 4, seed=i) for i in range(40)]
    answers = [answer async for answer in client.predict_stream(batches, window=5)]
    assert len(answers) == 40
    for batch, answer in zip(batches, answers, strict=True):
        assert_same(answer, server.expected(batch))
    assert (server.calls, server.batches) == (1, 40)
    assert [answer async for answer in client.predict_stream([])] == []


async def test_asynchronous_batches_may_wait_for_earlier_answers_with_a_window_of_one(
    client: AsyncPrelabelClient,
) -> None:
    answered = asyncio.Semaphore(1)

    async def batches() -> AsyncIterator[Pixels]:
        for seed in range(5):
            await answered.acquire()
            yield images(2, seed)

    count = 0
    async for answer in client.predict_stream(batches(), window=1):
        assert len(answer) == 2
        count += 1
        answered.release()
    assert count == 5


async def test_a_stream_that_fails_again_and_again_loses_and_doubles_nothing(
    server: FakeServer, client: AsyncPrelabelClient, time: Time
) -> None:
    for answered, code in enumerate([UNAVAILABLE, EXHAUSTED, UNAVAILABLE, UNAVAILABLE, EXHAUSTED]):
        server.fail_next(1, code, after_answers=answered)
    batches = [images(2, seed=i) for i in range(30)]
    answers = [answer async for answer in client.predict_stream(batches, window=4)]
    assert len(answers) == 30
    for batch, answer in zip(batches, answers, strict=True):
        assert_same(answer, server.expected(batch))
    assert (server.calls, time.sleeps) == (6, 5)
    # The broken calls leave no task behind.
    async with asyncio.timeout(60):
        while asyncio.all_tasks() != {asyncio.current_task()}:
            await asyncio.sleep(0)


@pytest.mark.parametrize("dies_at", [0, 7, 19])
async def test_a_stream_whose_server_dies_goes_on_at_another(server: FakeServer, time: Time, dies_at: int) -> None:
    batches = [images(2, seed=i) for i in range(20)]
    with FakeServer(CLASSES, SPEC) as other:

        async def source() -> AsyncIterator[Pixels]:
            for i, batch in enumerate(batches):
                if i == dies_at:
                    await asyncio.to_thread(server.stop)
                yield batch

        async with AsyncPrelabelClient(f"{server.address},{other.address}", sleep=time.sleep_aio) as client:
            answers = [answer async for answer in client.predict_stream(source(), window=4)]
        for batch, answer in zip(batches, answers, strict=True):
            assert_same(answer, other.expected(batch))
        assert other.calls == 1
    assert time.sleeps == 0


async def test_a_stream_that_is_left_early_is_over_and_the_client_goes_on(
    server: FakeServer, client: AsyncPrelabelClient
) -> None:
    async with aclosing(client.predict_stream((images(1) for _ in range(1000)), window=2)) as stream:
        assert len(await anext(stream)) == 1
    assert len(await client.predict(images(3))) == 3
    assert server.images < 20


async def in_flight(server: FakeServer, client: AsyncPrelabelClient) -> list[asyncio.Task[Any]]:
    """Starts a request and a stream; returns when the server has both."""

    async def stream() -> None:
        async for _ in client.predict_stream([images(1)]):
            pass

    tasks = [asyncio.create_task(client.predict(images(1))), asyncio.create_task(stream())]
    async with asyncio.timeout(60):
        while server.calls < 2:
            await asyncio.sleep(0)
    return tasks


async def test_a_cancelled_task_is_cancelled_and_the_client_goes_on(
    server: FakeServer, client: AsyncPrelabelClient
) -> None:
    server.hold()
    tasks = await in_flight(server, client)
    for task in tasks:
        task.cancel()
    assert [type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)] == [asyncio.CancelledError] * 2
    server.release()
    assert len(await client.predict(images(3))) == 3


async def test_closing_ends_what_is_in_flight_with_an_error_and_forbids_more(server: FakeServer) -> None:
    server.hold()
    client = AsyncPrelabelClient(server.address)
    tasks = await in_flight(server, client)
    await client.close()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, ServerUnavailableError)
        assert "was closed before the answer came" in str(ended)
    with pytest.raises(InputError, match="was closed: make a new one"):
        await client.predict(images(1))
    server.release()


async def test_an_error_of_the_source_is_the_callers(client: AsyncPrelabelClient) -> None:
    async def batches() -> AsyncIterator[Pixels]:
        yield images(1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        [answer async for answer in client.predict_stream(batches())]
    assert len(await client.predict(images(2))) == 2


async def test_the_status_of_a_stream_is_the_servers_while_requests_are_still_sent() -> None:
    """grpc.aio itself says INTERNAL in one of ten of these cases, where a write meets the end of the call."""
    large = ImageSpec(100, 100, 3)
    bad, good = np.zeros((1, 7, 7, 7), np.uint8), np.zeros((2, *large.shape), np.uint8)
    with FakeServer(CLASSES, large) as server:
        async with AsyncPrelabelClient(server.address, retry_for_s=0) as client:
            for _ in range(100):
                with pytest.raises(InputError, match=r"tensor of shape \[1, 7, 7, 7\]"):
                    [answer async for answer in client.predict_stream([bad, *[good] * 7])]


async def test_a_version_is_asked_for_by_name_or_model_id(server: FakeServer) -> None:
    for version in ("1", server.model_id):
        async with AsyncPrelabelClient(server.address, model_version=version) as client:
            assert (await client.model()).model_version == "1"
            assert len(await client.predict(images(2))) == 2
            assert [len(answer) async for answer in client.predict_stream([images(3)])] == [3]
    async with AsyncPrelabelClient(server.address, model_version="9") as client:
        for operation in (client.model(), client.predict(images(2)), anext(client.predict_stream([images(1)]))):
            with pytest.raises(ModelNotFoundError, match=r"the server at .*: no model '9': 1 is served"):
                await operation
