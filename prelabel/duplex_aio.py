"""One bidirectional call of grpc.aio, used from one task, with a deadline for every answer: the twin of `duplex`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from prelabel.failures import Failure, failure_of, silence

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")

_FAILED_WRITE = 'Failed "execute_batch"'
"""What grpc.aio's error says where it could not hand over a request, because the call had ended."""


class AsyncDuplex(Generic[RequestT, ResponseT]):
    """Sends and receives on a new call of `method`; neither is bounded here, the caller counts what is unanswered."""

    def __init__(self, method: Callable[[AsyncIterator[RequestT]], Any]) -> None:
        # A queue between: a write waits while the server does not read, and then nobody would read the answers.
        self._requests: asyncio.Queue[RequestT | None] = asyncio.Queue()
        self._end: Failure | None = None
        self._call = method(self._feed())
        self._call.add_done_callback(self._note_end)

    def send(self, request: RequestT) -> None:
        """Sends a request, without waiting."""
        self._requests.put_nowait(request)

    def end(self) -> None:
        """Tells the server that no more requests come."""
        self._requests.put_nowait(None)

    async def meet(self, timeout_s: float) -> Failure | None:
        """Waits for the server's initial metadata; returns the failure where the call broke off or nothing came."""
        met = await self._within(timeout_s, self._call.initial_metadata())
        return met if isinstance(met, Failure) else None

    async def receive(self, timeout_s: float) -> ResponseT | Failure | None:
        """Returns the next response, None where the server has ended the stream, or the failure that ended it."""
        response: ResponseT | Failure = await self._within(timeout_s, self._call.read())
        if isinstance(response, Failure) and response.code is not None:
            return self._end or response
        return None if response is grpc.aio.EOF else response

    def close(self) -> None:
        """Gives up what is unanswered."""
        # A call that has ended cannot be cancelled, and would leave its reader of requests waiting.
        self.end()
        self._call.cancel()

    async def _within(self, timeout_s: float, result: Awaitable[ResultT]) -> ResultT | Failure:
        try:
            async with asyncio.timeout(timeout_s):
                return await outcome_of(result, self._call)
        except TimeoutError:
            return silence(timeout_s)

    async def _feed(self) -> AsyncIterator[RequestT]:
        while (request := await self._requests.get()) is not None:
            yield request

    def _note_end(self, call: Any) -> None:
        """Keeps the server's status: a write that fails because the call has ended overwrites it (grpc/grpc 36066)."""
        code = _at_once(call.code())
        if self._end is None and code is not grpc.StatusCode.OK:
            details, trailing = _at_once(call.details()), _at_once(call.trailing_metadata())
            said = _at_once(call.debug_error_string()) or ""
            if said.startswith(_FAILED_WRITE):
                code, details = grpc.StatusCode.UNAVAILABLE, "the call ended while a request was sent"
            self._end = failure_of(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details, said))


def _at_once(status: Coroutine[Any, Any, Any]) -> Any:
    """Returns a part of the status of an ended call, which grpc.aio offers as a coroutine that does not wait."""
    try:
        status.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the status of an ended call is known")


async def outcome_of(result: Awaitable[ResultT], call: Any) -> ResultT | Failure:
    """Waits for something of a call; returns it, or why it did not come."""
    try:
        return await result
    except grpc.RpcError as error:
        return failure_of(error)
    except asyncio.CancelledError:
        # A closed channel cancels its calls, and grpc.aio tells that in the way in which a task is cancelled.
        task = asyncio.current_task()
        if call.cancelled() and task is not None and not task.cancelling():
            return Failure(grpc.StatusCode.CANCELLED, "the client was closed")
        raise
