"""grpc.health.v1, both ends: the servicer, and `python -m serving.health` for containers (exit status 0 or 1)."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import grpc
import tyro
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prelabel.channel import open_channel
from prelabel.connection import TlsOptions
from prelabel.errors import PrelabelError
from serving.service import SERVICE

LONGEST_NAME = 256
"""Characters of a service's name; of longer ones nothing is repeated, for a health check needs no token."""

_Status = health_pb2.HealthCheckResponse


class Health:
    """Servicer of grpc.health.v1 for a server that serves until it stops, and then never again.

    A watcher is told that the server stops and its call ends: grpcio's own servicer keeps such calls open, so that one
    watcher would hold a stopping server for its whole grace period.

    Args:
        services: Full names.
        serving: Whether the server can answer.
        watchers: Most calls of Watch that may be open: they need no token, and end only with the server.
    """

    def __init__(self, services: Sequence[str], serving: bool, watchers: int = 4096) -> None:
        self._services = {"", *services}
        self._serving = serving
        self._places = watchers
        self._stopped = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether the server can answer."""
        return self._serving and not self._stopped.is_set()

    def stop(self) -> None:
        """Says NOT_SERVING from now on."""
        self._stopped.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers for one service; NOT_FOUND for a name that is not served here."""
        if request.service not in self._services:
            name = request.service
            asked = f"service {name[:80]!r}" if len(name) <= LONGEST_NAME else f"service of {len(name)} characters"
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no {asked} here")
        return self._status()

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers for all services."""
        return health_pb2.HealthListResponse(statuses={service: self._status() for service in self._services})

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answers at once, and again when the server stops."""
        if not self._places:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls watch already: use Check")
        self._places -= 1
        try:
            async for status in self._statuses(request):
                yield status
        finally:
            self._places += 1

    async def _statuses(self, request: Any) -> AsyncIterator[Any]:
        known = request.service in self._services
        yield self._status() if known else _Status(status=_Status.SERVICE_UNKNOWN)
        if self._stopped.is_set():
            return
        await self._stopped.wait()
        if known:
            yield self._status()

    def _status(self) -> Any:
        return _Status(status=_Status.SERVING if self.serving else _Status.NOT_SERVING)


@dataclass(frozen=True)
class CheckOptions:
    """Asks a prelabel server whether it can answer; exit status 0 if so, else 1."""

    address: str = field(default_factory=lambda: f"127.0.0.1:{os.environ.get('PRELABEL_OPTION_PORT') or 50051}")
    """HOST:PORT of the server; the port is that of PRELABEL_OPTION_PORT, as the server's is."""
    timeout_s: float = 3.0
    """How long to wait: less than the 5 s that container engines usually grant a check."""
    tls: Annotated[TlsOptions, tyro.conf.arg(name="")] = field(default_factory=TlsOptions)
    """How the connection is encrypted."""


def check(options: CheckOptions) -> str:
    """Returns SERVING, NOT_SERVING, or why there is no answer.

    Raises:
        InputError: A certificate file cannot be used.
    """
    with open_channel(options.address, (), options.tls.to_tls()) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=options.timeout_s)
        except grpc.RpcError as error:
            return f"no answer: {error.code().name}: {error.details()}"
    return str(_Status.ServingStatus.Name(answer.status))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the server's health; returns the exit status."""
    options = tyro.cli(CheckOptions, prog="python -m serving.health", args=arguments)
    try:
        health = check(options)
    except PrelabelError as error:
        health = f"cannot ask: {error}"
    print(f"{options.address}: {health}")
    return 0 if health == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
