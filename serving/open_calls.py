"""How many calls may be open on the whole server, however many connections they come over."""

import asyncio
from typing import Any

import grpc

from prelabel.errors import OverloadedError
from serving.access import OPEN_SERVICES
from serving.errors import abort_arguments
from serving.requests import Requests
from serving.routes import Guard

MAX_OPEN_CALLS = 16_384
"""Begun and not ended, however far their messages have come: as many as may wait to be begun."""

_RETRY_AFTER_S = 1.0
"""Until then some thousand single images are answered."""

_OPEN_PREFIXES = tuple(f"/{service}/" for service in OPEN_SERVICES)


class OpenCalls:
    """Refuses calls beyond a number of open ones, before anything of them is read; health checks neither count nor end.

    Args:
        most: Calls that may be open.
        requests: Told of what is refused.
        guard: Asked before; what it refuses does not count.
    """

    def __init__(self, most: int, requests: Requests, guard: Guard) -> None:
        self._most, self._requests, self._guard = most, requests, guard
        self._open = 0

    def guard(self, details: grpc.HandlerCallDetails) -> Any:
        """A `serving.routes.Guard`. Must be called in the call's own task, as `grpc.aio` does, whose end is its end."""
        if (refusal := self._guard(details)) is not None:
            return refusal
        if details.method.startswith(_OPEN_PREFIXES):
            return None
        if self._open >= self._most:
            return grpc.stream_stream_rpc_method_handler(self._refuse)
        task = asyncio.current_task()
        assert task is not None, "a call has a task"
        self._open += 1
        task.add_done_callback(self._ended)
        return None

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._open -= 1

    async def _refuse(self, requests: Any, context: Any) -> None:
        try:
            with self._requests.request():
                raise OverloadedError(
                    f"{self._most} calls are open on the server: try again later, or use streams", _RETRY_AFTER_S
                )
        except OverloadedError as error:
            status = abort_arguments(error, "", context)
        await context.abort(*status)
