"""Which function answers which method, and the layers around it.

grpc.aio's interceptors lay their wrappers anew for every call, which costs more than to answer it. Here they are laid
once, when a service is added; a call is looked up, and refused or let in before anything of it is read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

Handler = Any
"""A grpc.RpcMethodHandler, whose stubs know fewer fields than it has."""

Layer = Callable[[str, Handler], Handler]
"""Takes a method as /SERVICE/METHOD and its handler; returns the handler in its place, or the same."""

Guard = Callable[[grpc.HandlerCallDetails], Handler | None]
"""Returns what refuses a call; None lets it in."""


def relaid(
    handler: Handler, unary: Callable[[Any], Any], stream: Callable[[Any], Any], parse: Callable[[bytes], Any] | None
) -> Handler:
    """Returns a handler with another function in the place of its own.

    Args:
        handler: Of a unary or a bidirectional method, the kinds that the API has.
        unary: Takes the function of a unary method, and returns the other one.
        stream: The same for a bidirectional method.
        parse: Makes a request of bytes.
    """
    serializers = (parse, handler.response_serializer)
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), *serializers)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), *serializers)


class Routes(grpc.GenericRpcHandler):
    """The methods of a server. Generated code adds services to it as to a server.

    Args:
        layers: The outermost first.
        guard: Asked for every call; what it returns gets the outermost layer, too.
    """

    def __init__(self, layers: Sequence[Layer], guard: Guard) -> None:
        self._layers, self._guard = list(layers), guard
        self._handlers: dict[str, Handler] = {}
        self._others: list[grpc.GenericRpcHandler] = []

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Adds the methods of a service."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._handlers[method] = self._layered(method, handler)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds what is asked for methods that nobody has registered; generated code adds each method in both ways."""
        self._others += handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Returns what answers a call."""
        method = handler_call_details.method
        refusal = self._guard(handler_call_details)
        if refusal is not None:
            return self._layers[0](method, refusal)
        if (handler := self._handlers.get(method)) is not None:
            return handler
        found = (other.service(handler_call_details) for other in self._others)
        handler = next((handler for handler in found if handler is not None), None)
        # Not None, with which gRPC would tell the caller the same: the outermost layer sees every call.
        return self._layers[0](method, _NOBODY) if handler is None else self._layered(method, handler)

    def _layered(self, method: str, handler: Handler) -> Handler:
        for layer in reversed(self._layers):
            handler = layer(method, handler)
        return handler


async def _refuse(requests: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


_NOBODY: Handler = grpc.stream_stream_rpc_method_handler(_refuse)
"""Answers methods that do not exist. Of this kind because it begins before the first message has come."""
