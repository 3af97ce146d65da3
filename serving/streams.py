"""Many requests of a stream in flight at once, one answer per request, in the order of the requests."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from prelabel.errors import ServerUnavailableError

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


class OrderedStreams(Generic[RequestT, AnswerT]):
    """Runs streams of requests.

    A stream reads ahead of what its reader has taken by `window` requests, or by as many as hold `window_size` where
    they are small; so a client that does not read its answers stops being read itself.

    Args:
        window: Requests that may be read ahead, however large they are.
        window_size: Total size of the requests that may be read ahead, where that is more of them.
        size: Returns the size of a request.
    """

    def __init__(self, window: int, window_size: int = 0, size: Callable[[RequestT], int] = lambda _: 0) -> None:
        self._window, self._window_size, self._size = window, window_size, size
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False

    def drain(self) -> None:
        """Stops reading requests: open streams answer what they have read and then end as unavailable."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    async def answer(
        self, requests: AsyncIterator[RequestT], answer_one: Callable[[RequestT], Awaitable[AnswerT]]
    ) -> AsyncGenerator[AnswerT, None]:
        """Yields the answers in order; the first error ends the stream, after the answers before it.

        Raises:
            ServerUnavailableError: The server is stopping; requests without an answer were not inferred.
        """
        answers: asyncio.Queue[asyncio.Future[AnswerT] | None] = asyncio.Queue()
        held: deque[int] = deque()
        held_size = 0
        room = asyncio.Event()

        async def read() -> None:
            nonlocal held_size
            async for request in requests:
                size = self._size(request)
                held.append(size)
                held_size += size
                answers.put_nowait(asyncio.ensure_future(answer_one(request)))
                while len(held) >= self._window and held_size >= self._window_size:
                    room.clear()
                    await room.wait()

        if self._draining:
            raise ServerUnavailableError("the server is stopping: try again, or use another one")
        reader = asyncio.create_task(read())
        self._readers.add(reader)
        reader.add_done_callback(lambda _: answers.put_nowait(None))
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
                held_size -= held.popleft()
                room.set()
            if reader.cancelled():
                raise ServerUnavailableError("the server is stopping: send the unanswered requests again")
            reader.result()
        finally:
            self._readers.discard(reader)
            left: list[asyncio.Future[Any]] = [reader]
            while not answers.empty():
                if (unread := answers.get_nowait()) is not None:
                    left.append(unread)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
