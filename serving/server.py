"""A gRPC server around the models: starts, says where it listens, and stops without losing a request."""

import asyncio
import logging

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from prelabel.client import MAX_MESSAGE_BYTES
from prelabel.errors import InputError
from serving.admin import ADMIN_SERVICE, AdminService
from serving.config import Config
from serving.errors import ErrorInterceptor
from serving.health import Health
from serving.models import Models
from serving.reflection import add_reflection
from serving.service import SERVICE, PrelabelService

logger = logging.getLogger(__name__)

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # One connection's share of a server; a client with more calls opens more connections.
    ("grpc.max_concurrent_streams", 100),
    # Without this a second server on the same port would take half of the connections instead of an error.
    ("grpc.so_reuseport", 0),
)


class Server:
    """Serves models, or says UNAVAILABLE to every request where there is none."""

    def __init__(self, models: Models, config: Config) -> None:
        """Takes models that are open; closes them with itself."""
        self._models, self._config = models, config
        self._watcher: asyncio.Task[None] | None = None
        self.port = config.port

    async def start(self) -> None:
        """Listens and answers from now on; `port` says where.

        Raises:
            InputError: The address cannot be listened on.
        """
        self._service = PrelabelService(self._models)
        self._health = Health([SERVICE], serving=self._models.default is not None)
        interceptors = [ErrorInterceptor([SERVICE, ADMIN_SERVICE])]
        self._server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        self._service.add_to(self._server)
        AdminService(self._models).add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection((SERVICE, ADMIN_SERVICE, health.SERVICE_NAME), self._server)
        address = f"{self._config.host}:{self._config.port}"
        try:
            self.port = self._server.add_insecure_port(address)
            await self._server.start()
        except RuntimeError as error:
            await self._models.close()
            raise InputError(
                f"cannot listen on {address}: the port is in use, or the host is no address of this machine; choose "
                "another --port (0 takes a free one) or --host"
            ) from error
        if self._config.reload_every_s:
            self._watcher = asyncio.create_task(self._models.watch(self._config.reload_every_s))

    async def stop(self) -> None:
        """Takes no new work, answers what is in flight for up to `drain_timeout_s`, and ends."""
        logger.info("stopping")
        self._health.stop()
        self._service.drain()
        if self._watcher is not None:
            self._watcher.cancel()
        self._models.hurry()
        await self._server.stop(self._config.drain_timeout_s)
        await self._models.close()
        logger.info("stopped")
