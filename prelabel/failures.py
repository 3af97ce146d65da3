"""A call that failed: what its status means, whether another try can help, and which error it becomes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc

from prelabel.errors import (
    AccessError,
    InputError,
    ModelNotFoundError,
    OverloadedError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
)
from prelabel.wire import PUSHBACK_KEY

_ERRORS: dict[grpc.StatusCode | None, type[PrelabelError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.CANCELLED: ServerUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerUnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
    None: ServerUnavailableError,
}
"""What a status means; everything else is a `RemoteError`."""

_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""What gRPC says of a server whose certificate does not suit; it is UNAVAILABLE, but no later try is better."""

_TOO_LARGE = "message larger than max"
"""What gRPC says of a message over a limit; it is RESOURCE_EXHAUSTED, but no later try is better."""

_NOT_CARRIED_OUT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        # A server that dies cancels its calls: in some moments of its end this is all that a client hears of it.
        grpc.StatusCode.CANCELLED,
        # Of one answer of a stream only (`silence`); a call that used up its whole time is the caller's to repeat.
        None,
    }
)


@dataclass(frozen=True)
class Failure:
    """Why a call broke off."""

    code: grpc.StatusCode | None
    """The status; None where nothing at all came in time."""
    details: str = ""
    """What the server or gRPC says about it."""
    pushback_s: float = 0.0
    """How long the server asks to stay away; 0 where it says nothing."""
    cause: grpc.RpcError | None = None
    """gRPC's own error."""
    waited_s: float | None = None
    """How long nothing came; None where gRPC itself ended the call."""

    @property
    def is_too_large(self) -> bool:
        """The request or its answer is over a limit for messages."""
        return self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in self.details

    @property
    def is_untrusted(self) -> bool:
        """The server's certificate does not suit."""
        return self.code is grpc.StatusCode.UNAVAILABLE and any(text in self.details for text in _UNTRUSTED)

    @property
    def kind(self) -> type[PrelabelError]:
        """The error that it becomes."""
        if self.is_too_large:
            return InputError
        return AccessError if self.is_untrusted else _ERRORS.get(self.code, RemoteError)

    @property
    def is_of_the_server(self) -> bool:
        """The server is away, overloaded or silent, so that another one is the better choice for now."""
        return issubclass(self.kind, (OverloadedError, ServerUnavailableError))

    @property
    def may_be_tried_again(self) -> bool:
        """The request was not carried out, and may be carried out later or elsewhere."""
        return self.is_of_the_server and self.code in _NOT_CARRIED_OUT


def silence(waited_s: float) -> Failure:
    """Returns the failure of a stream on which nothing came in time; gRPC has deadlines for whole calls only."""
    return Failure(None, waited_s=waited_s)


def failure_of(error: grpc.RpcError) -> Failure:
    """Returns what the error of a call says, be it one of `grpc` or of `grpc.aio`."""
    call = cast(grpc.Call, error)
    metadata: Iterable[tuple[str, str | bytes]] = call.trailing_metadata() or ()
    pushback = next((value for key, value in metadata if key == PUSHBACK_KEY), "")
    pushback_s = int(pushback) / 1000 if str(pushback).isdecimal() else 0.0
    return Failure(call.code(), " ".join(str(call.details()).split())[:500], pushback_s, error)


def to_error(failure: Failure, where: str, tried: str, timeout_s: float) -> PrelabelError:
    """Returns the error that says to the user what failed and what to do.

    Args:
        failure: What happened last.
        where: The servers' addresses.
        tried: How often and how long, in words.
        timeout_s: The longest wait for one answer.
    """
    kind = failure.kind
    if failure.is_too_large:
        return kind(
            f"a message is over the limit of the server at {where}, or of this client: give smaller batches "
            f"({failure.details})"
        )
    if failure.is_untrusted:
        return kind(
            f"the certificate of the server at {where} is not trusted: is it signed by --tls-ca, not expired, and made "
            f"for this host (else --tls-server-name)? ({failure.details})"
        )
    if failure.code is None or failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        waited_s = timeout_s if failure.waited_s is None else failure.waited_s
        return kind(
            f"the server at {where} did not answer within {waited_s:g} s: is it overloaded, or not a prelabel server? "
            "Start one with `make serve`, or allow more time"
        )
    if kind is ModelNotFoundError:
        return kind(f"the server at {where}: {failure.details}")
    if kind is InputError:
        return kind(failure.details)
    if kind is OverloadedError:
        return kind(f"the server at {where} is overloaded ({tried}): {failure.details}")
    if kind is ServerUnavailableError:
        return kind(
            f"no prelabel server answers at {where} ({tried}): start one with `make serve`, or does it want TLS "
            f"(--tls) or a client's certificate? ({failure.details})"
        )
    if kind is AccessError:
        return kind(f"the server at {where} refuses this caller: {failure.code.name}: {failure.details}")
    return kind(f"the server at {where} failed: {failure.code.name}: {failure.details}")
