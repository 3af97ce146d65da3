"""gRPC reflection, by which tools such as grpcurl find the API without the .proto file."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.streams import OrderedStreams

REFLECTION_SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
"""Its current name and its old one: the messages have the same bytes, so that the same servicer answers both."""

_WINDOW = 8
"""Requests of one stream at a time."""


class Reflection:
    """Servicer of grpc.reflection.v1 and v1alpha, whose streams do not hold up a server that stops.

    grpcio-reflection answers; its own streams would stay open as long as their clients want.

    Args:
        services: Full names of the services that are shown.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._servicer: Any = reflection.aio.ReflectionServicer(service_names=(*services, reflection.SERVICE_NAME))
        self._streams: OrderedStreams[Any, Any] = OrderedStreams(_WINDOW)

    def add_to(self, routes: Any) -> None:
        """Registers both names."""
        handler = grpc.stream_stream_rpc_method_handler(
            self.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        for service in REFLECTION_SERVICES:
            routes.add_registered_method_handlers(service, {"ServerReflectionInfo": handler})

    def drain(self) -> None:
        """Ends the streams after what they have read."""
        self._streams.drain()

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answers each request of a stream."""

        async def answer_one(request: Any) -> Any:
            return await anext(self._servicer.ServerReflectionInfo(_only(request), context))

        async with aclosing(self._streams.answer(request_iterator, answer_one)) as responses:
            async for response in responses:
                yield response


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request
