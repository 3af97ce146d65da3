"""The one table from prelabel's errors to gRPC status, and the layer that applies it to every call."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from prelabel.client import PUSHBACK_KEY
from prelabel.errors import (
    AccessError,
    BundleError,
    InputError,
    ModelNotFoundError,
    OverloadedError,
    ServerUnavailableError,
    UnsupportedError,
)
from serving.messages import Unreadable, reader
from serving.requests import Requests
from serving.routes import relaid

logger = logging.getLogger(__name__)

STATUS: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    # Bundles are the server's; what is wrong with one names its files.
    BundleError: grpc.StatusCode.INTERNAL,
    AccessError: grpc.StatusCode.UNAUTHENTICATED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ServerUnavailableError: grpc.StatusCode.UNAVAILABLE,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What a caller may read; subclasses go with their parents. Everything else is INTERNAL and stays in the log."""


def to_status(error: Exception, method: str) -> tuple[grpc.StatusCode, str]:
    """Returns the status code and the details for an error; logs with an id what the caller must not see."""
    code = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)
    if code is not grpc.StatusCode.INTERNAL:
        return code, str(error)
    error_id = uuid.uuid4().hex
    logger.error("internal error", exc_info=error, extra={"error_id": error_id, "method": method})
    return grpc.StatusCode.INTERNAL, f"internal error {error_id}: the server's log has the details under this id"


def retry_hint(error: Exception) -> tuple[tuple[str, str], ...]:
    """Returns the trailing metadata that tells a client when to come back; none where that is not known."""
    if isinstance(error, OverloadedError) and error.retry_after_s is not None:
        return ((PUSHBACK_KEY, str(max(1, round(1000 * error.retry_after_s)))),)
    return ()


def abort_arguments(error: Exception, method: str, context: Any) -> tuple[grpc.StatusCode, str, tuple[Any, ...]]:
    """Returns what a call that an error ends is aborted with; the trailing metadata that it has already stay."""
    return (*to_status(error, method), (*context.trailing_metadata(), *retry_hint(error)))


class ErrorLayer:
    """Ends the calls of our services that raise with the status of their error; a `serving.routes.Layer`."""

    def __init__(self, services: Sequence[str], requests: Requests) -> None:
        self._prefixes = tuple(f"/{service}/" for service in services)
        self._requests = requests

    def __call__(self, method: str, handler: Any) -> Any:
        """Wraps the handlers of the services."""
        if not method.startswith(self._prefixes):
            return handler
        parse = handler.request_deserializer
        return relaid(
            handler,
            lambda handle: self._unary(handle, method),
            lambda handle: self._stream(handle, method),
            None if parse is None else reader(parse),
        )

    def _checked(self, request: Any, method: str) -> Any:
        if isinstance(request, Unreadable):
            with self._requests.request():  # counted as any other that is refused
                raise InputError(f"the bytes sent {request.reason} of {method}")
        return request

    def _unary(self, handle: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            try:
                return await handle(self._checked(request, method), context)
            except Exception as error:  # the boundary: nothing may leave but a status
                status = abort_arguments(error, method, context)
            await context.abort(*status)

        return call

    def _stream(self, handle: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for request in requests:
                yield self._checked(request, method)

        async def call(requests: AsyncIterator[Any], context: Any) -> None:
            try:
                # Closed here and not by the garbage collector: a client that leaves frees its requests at once.
                async with aclosing(handle(checked(requests), context)) as responses:
                    async for response in responses:
                        await context.write(response)
                return
            except Exception as error:  # the boundary: nothing may leave but a status
                status = abort_arguments(error, method, context)
            await context.abort(*status)

        return call
