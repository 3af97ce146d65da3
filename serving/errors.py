"""The one table from prelabel's errors to gRPC status, and the interceptor that applies it to every call."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from prelabel.client import PUSHBACK_KEY
from prelabel.errors import (
    InputError,
    OverloadedError,
    ServerUnavailableError,
    UnknownModelError,
    UnsupportedError,
)

logger = logging.getLogger(__name__)

STATUS: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModelError: grpc.StatusCode.NOT_FOUND,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ServerUnavailableError: grpc.StatusCode.UNAVAILABLE,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What a caller may read; a subclass that is not named goes with its parent. Everything else is INTERNAL and stays in
the log."""


def to_status(error: Exception, method: str) -> tuple[grpc.StatusCode, str]:
    """Returns the status code and the details for an error; logs with an id what the caller must not see."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor], str(error)
    error_id = uuid.uuid4().hex
    logger.error("internal error", exc_info=error, extra={"error_id": error_id, "method": method})
    return grpc.StatusCode.INTERNAL, f"internal error {error_id}: the server's log has the details under this id"


def retry_hint(error: Exception) -> tuple[tuple[str, str], ...]:
    """Returns the trailing metadata that tells a client when to come back; none where that is not known."""
    if isinstance(error, OverloadedError) and error.retry_after_s is not None:
        return ((PUSHBACK_KEY, str(max(1, round(1000 * error.retry_after_s)))),)
    return ()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends the calls of one service that raise with the status of their error."""

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"

    async def intercept_service(
        self, continuation: Callable[..., Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handlers of the service: unary and bidirectional ones, the kinds that the API has."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefix):
            return handler
        # Requests are read in the wrapper: gRPC would answer bytes that are no message with UNKNOWN.
        read = handler.request_deserializer or bytes
        if handler.unary_unary:
            call = _unary(handler.unary_unary, read, method)
            return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)
        stream = _stream(handler.stream_stream, read, method)
        return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)


def _unary(handle: Callable[..., Awaitable[Any]], read: Callable[[bytes], Any], method: str) -> Callable[..., Any]:
    async def call(request: bytes, context: Any) -> Any:
        try:
            return await handle(read(request), context)
        except Exception as error:  # the boundary: nothing may leave but a status
            status = (*to_status(error, method), retry_hint(error))
        await context.abort(*status)

    return call


def _stream(handle: Callable[..., Any], read: Callable[[bytes], Any], method: str) -> Callable[..., Any]:
    async def call(requests: AsyncIterator[bytes], context: Any) -> None:
        messages = (read(request) async for request in requests)
        try:
            # Closed here and not by the garbage collector: a client that leaves frees its requests at once.
            async with aclosing(messages), aclosing(handle(messages, context)) as responses:
                async for response in responses:
                    await context.write(response)
            return
        except Exception as error:  # the boundary: nothing may leave but a status
            status = (*to_status(error, method), retry_hint(error))
        await context.abort(*status)

    return call
