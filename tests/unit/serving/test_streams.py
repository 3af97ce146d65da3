import asyncio
from collections.abc import AsyncIterator

import pytest

from prelabel.errors import InputError, ServerUnavailableError
from serving.streams import OrderedStreams


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def collect(stream: AsyncIterator[int], answers: list[int]) -> None:
    async for value in stream:
        answers.append(value)
        await settle()


class Source:
    """Numbers 0, 1, ...; says how many were taken."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0

    async def __aiter__(self) -> AsyncIterator[int]:
        while self.taken < self.count:
            self.taken += 1
            yield self.taken - 1


async def test_answers_come_in_the_order_of_the_requests() -> None:
    done = [asyncio.Event() for _ in range(6)]

    async def answer(number: int) -> int:
        await done[number].wait()
        done[number - 1].set()  # the later request is always answered first
        return number * 10

    done[5].set()
    streams: OrderedStreams[int, int] = OrderedStreams(window=6)
    answers = [value async for value in streams.answer(aiter(Source(6)), answer)]
    assert answers == [0, 10, 20, 30, 40, 50]


async def test_a_client_that_does_not_read_is_not_read() -> None:
    source = Source(1000)

    async def answer(number: int) -> int:
        return number

    streams: OrderedStreams[int, int] = OrderedStreams(window=4)
    stream = streams.answer(aiter(source), answer)
    assert await anext(stream) == 0
    await settle()
    assert source.taken == 4
    assert await anext(stream) == 1
    await settle()
    assert source.taken == 5
    await stream.aclose()


async def test_an_error_ends_the_stream_after_the_earlier_answers_and_cancels_the_later_ones() -> None:
    cancelled = []

    async def answer(number: int) -> int:
        if number == 2:
            raise InputError("request 2 is bad")
        if number > 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        return number

    streams: OrderedStreams[int, int] = OrderedStreams(window=5)
    answers: list[int] = []
    with pytest.raises(InputError, match="request 2 is bad"):
        await collect(streams.answer(aiter(Source(100)), answer), answers)
    assert answers == [0, 1]
    assert cancelled
    assert set(cancelled) <= set(range(3, 8))


async def test_an_error_of_the_requests_is_raised() -> None:
    async def requests() -> AsyncIterator[int]:
        yield 0
        raise ConnectionError("the client is gone")

    async def answer(number: int) -> int:
        return number

    streams: OrderedStreams[int, int] = OrderedStreams(window=5)
    answers: list[int] = []
    with pytest.raises(ConnectionError):
        await collect(streams.answer(requests(), answer), answers)
    assert answers == [0]


async def test_drain_answers_what_was_read_and_says_that_the_server_stops() -> None:
    source, go = Source(100), asyncio.Event()

    async def answer(number: int) -> int:
        await go.wait()
        return number

    streams: OrderedStreams[int, int] = OrderedStreams(window=3)
    answers: list[int] = []
    collecting = asyncio.create_task(collect(streams.answer(aiter(source), answer), answers))
    await settle()
    streams.drain()
    go.set()
    with pytest.raises(ServerUnavailableError, match="stopping"):
        await collecting
    assert answers == [0, 1, 2]
    assert source.taken == 3
    with pytest.raises(ServerUnavailableError, match="stopping"):
        await anext(streams.answer(aiter(source), answer))
    assert source.taken == 3
