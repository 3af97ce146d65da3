"""One bidirectional gRPC call, used from one thread, with a deadline for every answer."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import grpc

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


_LOOK_S = 0.5
"""How often a silent call is looked at: rare enough to cost nothing, soon enough for a retry."""


class StalledError(Exception):
    """No answer came in time; gRPC has deadlines for whole calls only."""


class Duplex(Generic[RequestT, ResponseT]):
    """Sends and receives on a new call of `method`; neither is bounded here, the caller counts what is unanswered."""

    def __init__(self, method: Callable[[Iterator[RequestT]], Any], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._requests: queue.SimpleQueue[RequestT | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[ResponseT | grpc.RpcError | None] = queue.SimpleQueue()
        self._call = method(self._feed())
        threading.Thread(target=self._read, name="prelabel-stream", daemon=True).start()

    def send(self, request: RequestT) -> None:
        """Sends a request, without waiting."""
        self._requests.put(request)

    def end(self) -> None:
        """Tells the server that no more requests come."""
        self._requests.put(None)

    def receive(self) -> ResponseT | None:
        """Returns the next response, or None where the server has ended the stream.

        Raises:
            grpc.RpcError: The stream broke; responses that came before were returned.
            StalledError: Nothing came for `timeout_s`.
        """
        answer = self._next_answer()
        if isinstance(answer, grpc.RpcError):
            raise answer
        return answer

    def close(self) -> None:
        """Gives up what is unanswered."""
        self.end()
        self._call.cancel()

    def _next_answer(self) -> ResponseT | grpc.RpcError | None:
        deadline = time.monotonic() + self._timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            ended = not self._call.is_active()
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=min(left_s, _LOOK_S))
            if ended:
                # When a server dies just as a call starts, gRPC can end the call without waking its reader.
                return cast(grpc.RpcError, self._call)
        raise StalledError

    def _feed(self) -> Iterator[RequestT]:
        while (request := self._requests.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for response in self._call:
                self._answers.put(response)
            self._answers.put(None)
        except grpc.RpcError as error:
            self._answers.put(error)
