"""Who may call what, and how much: the interceptor before all that let a call in."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

import grpc
import grpc.aio

from prelabel.errors import AccessError, OverloadedError
from serving.errors import retry_hint, to_status
from serving.rates import RateLimiter, caller_of
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


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token, and calls or messages of a stream that are over their caller's rate.

    Must come before `ErrorInterceptor`, whose boundary turns what is raised inside a stream into its status.

    Args:
        tokens: The tokens in force; None: everybody may call all but the services of operators.
        admin_services: Services that only tokens with the role admin reach; without tokens nobody does.
        counts: Service -> how many images a request holds; requests of other services cost nothing. These services
            must be among those of `ErrorInterceptor`.
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

    async def intercept_service(
        self, continuation: Callable[..., Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Refuses the call before anything of it is read, or lets its messages be counted."""
        method = handler_call_details.method
        service = method.rpartition("/")[0].removeprefix("/")
        if service in OPEN_SERVICES:
            return await continuation(handler_call_details)
        token = _token(handler_call_details)
        principal = self._principal(token)
        if self._tokens is not None and principal is None:
            return _refusal(method, grpc.StatusCode.UNAUTHENTICATED, _UNAUTHENTICATED)
        if service in self._admin_services and not (principal and principal.admin):
            return _refusal(method, grpc.StatusCode.PERMISSION_DENIED, _NOT_ADMIN)
        handler = await continuation(handler_call_details)
        count = self._counts.get(service)
        if handler is None or count is None:
            return handler
        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary:
            call = self._unary(handler.unary_unary, method, count, principal)
            return grpc.unary_unary_rpc_method_handler(call, *serializers)
        stream = self._stream(handler.stream_stream, count, token, principal)
        return grpc.stream_stream_rpc_method_handler(stream, *serializers)

    def _principal(self, token: str | None) -> Principal | None:
        return None if self._tokens is None or token is None else self._tokens.get().find(token)

    def _unary(
        self, handle: Callable[..., Awaitable[Any]], method: str, count: Count, principal: Principal | None
    ) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            try:
                self._limiter.take(_caller(principal, context), count(request))
            except OverloadedError as error:
                status = (*to_status(error, method), (*context.trailing_metadata(), *retry_hint(error)))
            else:
                return await handle(request, context)
            await context.abort(*status)

        return call

    def _stream(
        self, handle: Callable[..., Awaitable[Any]], count: Count, token: str | None, principal: Principal | None
    ) -> Callable[..., Any]:
        async def counted(requests: AsyncIterator[Any], caller: str) -> AsyncIterator[Any]:
            async for request in requests:
                # A stream may live for hours, and longer than its token.
                if self._tokens is not None and self._principal(token) is None:
                    raise AccessError(_UNAUTHENTICATED)
                self._limiter.take(caller, count(request))
                yield request

        async def call(requests: AsyncIterator[Any], context: Any) -> None:
            await handle(counted(requests, _caller(principal, context)), context)

        return call


def _caller(principal: Principal | None, context: Any) -> str:
    return caller_of(context.peer()) if principal is None else f"token {principal.name}"


def _token(details: grpc.HandlerCallDetails) -> str | None:
    return parse_bearer([value for key, value in details.invocation_metadata or () if key == "authorization"])


def _refusal(method: str, code: grpc.StatusCode, text: str) -> Any:
    async def refuse(requests: Any, context: Any) -> None:
        logger.info("refused", extra={"method": method, "status": code.name, "peer": context.peer()})
        await context.abort(code, text)

    # Of this kind for every call, because it begins before the first message has come.
    return grpc.stream_stream_rpc_method_handler(refuse)
