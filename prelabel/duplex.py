"""One bidirectional gRPC call, used from one thread, with a deadline for every answer."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import grpc

from prelabel.failures import Failure, failure_of, silence

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class _Met:
    """The server's initial metadata came."""


_MET = _Met()


class Duplex(Generic[RequestT, ResponseT]):
    """Sends and receives on a new call of `method`; neither is bounded here, the caller counts what is unanswered.

    First `meet` the server, then `receive`.
    """

    def __init__(self, method: Callable[[Iterator[RequestT]], Any]) -> None:
        self._requests: queue.SimpleQueue[RequestT | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[ResponseT | Failure | _Met | None] = queue.SimpleQueue()
        self._call = method(self._feed())
        threading.Thread(target=self._read, name="prelabel-stream", daemon=True).start()

    def send(self, request: RequestT) -> None:
        """Sends a request, without waiting."""
        self._requests.put(request)

    def end(self) -> None:
        """Tells the server that no more requests come."""
        self._requests.put(None)

    def meet(self, timeout_s: float) -> Failure | None:
        """Waits for the server's initial metadata; returns the failure where the call broke off or nothing came."""
        answer = self._next(timeout_s)
        return answer if isinstance(answer, Failure) else None

    def receive(self, timeout_s: float) -> ResponseT | Failure | None:
        """Returns the next response, None where the server has ended the stream, or the failure that ended it."""
        answer = self._next(timeout_s)
        assert not isinstance(answer, _Met), "meet the server first"
        return answer

    def close(self) -> None:
        """Gives up what is unanswered."""
        self.end()
        self._call.cancel()

    def _next(self, timeout_s: float) -> ResponseT | Failure | _Met | None:
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return silence(timeout_s)

    def _feed(self) -> Iterator[RequestT]:
        while (request := self._requests.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            self._call.initial_metadata()
            self._answers.put(_MET)
            for response in self._call:
                self._answers.put(response)
            self._answers.put(None)
        except grpc.RpcError as error:
            self._answers.put(failure_of(error))
