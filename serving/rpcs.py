"""The layer around every call of the given services: gives it an id and follows it to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool

from serving.request_ids import REQUEST_ID, REQUEST_ID_KEY, choose_request_id
from serving.requests import Requests, Rpc
from serving.routes import relaid


class RpcLayer:
    """Has to be the outermost `serving.routes.Layer`, so that it sees what is refused, and with which code."""

    def __init__(self, services: Sequence[str], requests: Requests) -> None:
        self._prefixes = tuple(f"/{service}/" for service in services)
        self._methods = {
            f"/{service}/{method.name}"
            for service in services
            for method in descriptor_pool.Default().FindServiceByName(service).methods
        }
        self._requests = requests

    def __call__(self, method: str, handler: Any) -> Any:
        """Wraps the handlers of the services."""
        if not method.startswith(self._prefixes):
            return handler
        return relaid(
            handler,
            lambda handle: self._followed(handle, method, False),
            lambda handle: self._followed(handle, method, True),
            handler.request_deserializer,
        )

    def _followed(self, handle: Callable[..., Awaitable[Any]], method: str, streaming: bool) -> Callable[..., Any]:
        # What else a caller names would be metrics and spans without end.
        name = method.removeprefix("/") if method in self._methods else "other"

        async def call(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            request_id = choose_request_id(metadata)
            # gRPC runs every call in a task of its own: what is set here ends with the call.
            REQUEST_ID.set(request_id)
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
            if not self._requests.observers:
                return await handle(request, context)
            rpc = Rpc(name, request_id, context.peer(), streaming, context.time_remaining())
            with self._requests.rpc(rpc, metadata):
                try:
                    return await handle(request, context)
                except asyncio.CancelledError:
                    rpc.code = "DEADLINE_EXCEEDED" if rpc.expired else "CANCELLED"
                    raise
                except BaseException:  # another layer has set the status
                    rpc.code = (context.code() or grpc.StatusCode.UNKNOWN).name
                    raise

        return call
