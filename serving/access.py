"""Who may call what, and how much."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from prelabel.errors import AccessError, OverloadedError
from serving.errors import abort_arguments
from serving.messages import Unreadable
from serving.rates import RateLimiter, caller_of
from serving.routes import relaid
from serving.tokens import Principal, Tokens, parse_bearer
from serving.watched import Watched

logger = logging.getLogger(__name__)

OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})
"""Probes of container engines and load balancers have no token, and learn only whether the server can answer."""

_UNAUTHENTICATED = "no valid bearer token: send the metadata `authorization: Bearer TOKEN` (our client: PRELABEL_TOKEN)"
"""The same without a token and with a wrong one, so that it tells nothing about the tokens."""

_NOT_ADMIN = "this needs a token with the role admin (a `name:token:admin` line of the server's --token-file)"

Count = Callable[[Any], int]
"""Images in one request message; 0 for messages that are free."""


class Access:
    """Refuses calls without a valid token, and calls or messages of a stream that are over their caller's rate.

    `guard` is a `serving.routes.Guard`, `limit` a `serving.routes.Layer` that must lie outside of `ErrorLayer`, whose
    boundary turns what is raised inside a stream into its status.

    Args:
        tokens: The tokens in force; None: everybody may call all but the services of operators.
        admin_services: Services that only tokens with the role admin reach; without tokens nobody does.
        counts: Service -> how many images a request holds; requests of other services cost nothing. These services
            must be among those of `ErrorLayer`.
        limiter: Every caller's rate.
    """

    def __init__(
        self,
        tokens: Watched[Tokens] | None,
        admin_services: Collection[str],
        counts: Mapping[str, Count],
        limiter: RateLimiter,
    ) -> None:
        self._tokens, self._limiter = tokens, limiter
        self._admin_services, self._counts = admin_services, counts

    def guard(self, details: grpc.HandlerCallDetails) -> Any:
        """Returns what refuses a call before anything of it is read; None lets it in."""
        service = _service(details.method)
        if service in OPEN_SERVICES or (self._tokens is None and service not in self._admin_services):
            return None
        principal = self._principal(_token(details.invocation_metadata))
        if self._tokens is not None and principal is None:
            return _refusal(details.method, grpc.StatusCode.UNAUTHENTICATED, _UNAUTHENTICATED)
        if service in self._admin_services and not (principal and principal.admin):
            return _refusal(details.method, grpc.StatusCode.PERMISSION_DENIED, _NOT_ADMIN)
        return None

    def limit(self, method: str, handler: Any) -> Any:
        """Lets the messages of a method be counted."""
        count = self._counts.get(_service(method))
        if count is None or (self._tokens is None and self._limiter.unlimited):
            return handler
        return relaid(
            handler,
            lambda handle: self._unary(handle, method, count),
            lambda handle: self._stream(handle, count),
            handler.request_deserializer,
        )

    def _principal(self, token: str | None) -> Principal | None:
        return None if self._tokens is None or token is None else self._tokens.get().find(token)

    def _unary(self, handle: Callable[..., Awaitable[Any]], method: str, count: Count) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            try:
                self._limiter.take(self._caller(context), _cost(count, request))
            except OverloadedError as error:
                status = abort_arguments(error, method, context)
            else:
                return await handle(request, context)
            await context.abort(*status)

        return call

    def _stream(self, handle: Callable[..., Awaitable[Any]], count: Count) -> Callable[..., Any]:
        async def counted(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            token, caller = _token(context.invocation_metadata()), self._caller(context)
            async for request in requests:
                # A stream may live for hours, and longer than its token.
                if self._tokens is not None and self._principal(token) is None:
                    raise AccessError(_UNAUTHENTICATED)
                self._limiter.take(caller, _cost(count, request))
                yield request

        async def call(requests: AsyncIterator[Any], context: Any) -> None:
            await handle(counted(requests, context), context)

        return call

    def _caller(self, context: Any) -> str:
        principal = None if self._tokens is None else self._principal(_token(context.invocation_metadata()))
        return caller_of(context.peer()) if principal is None else f"token {principal.name}"


def _cost(count: Count, request: Any) -> int:
    # Bytes that are no request cost one image, as wrong requests do: the event loop had to look at them.
    return 1 if isinstance(request, Unreadable) else count(request)


def _service(method: str) -> str:
    return method.rpartition("/")[0].removeprefix("/")


def _token(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    return parse_bearer([value for key, value in metadata or () if key == "authorization"])


def _refusal(method: str, code: grpc.StatusCode, text: str) -> Any:
    async def refuse(requests: Any, context: Any) -> None:
        logger.info("refused", extra={"method": method, "status": code.name, "peer": context.peer()})
        await context.abort(code, text)

    # Of this kind for every call, because it begins before the first message has come.
    return grpc.stream_stream_rpc_method_handler(refuse)
