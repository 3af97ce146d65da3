"""A gRPC server around the models: starts, says where it listens, and stops without losing a request."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from prelabel.errors import InputError
from serving.access import Access
from serving.admin import ADMIN_SERVICE, AdminService
from serving.config import Config
from serving.errors import ErrorLayer
from serving.health import Health
from serving.limits import channel_options
from serving.models import Models
from serving.open_calls import MAX_OPEN_CALLS, OpenCalls
from serving.open_inference import OPEN_INFERENCE, OpenInferenceService, count_inputs
from serving.rates import Rate, RateLimiter
from serving.reflection import REFLECTION_SERVICES, Reflection
from serving.routes import Layer, Routes
from serving.rpcs import RpcLayer
from serving.service import SERVICE, PrelabelService, count_images
from serving.telemetry import Telemetry
from serving.tls import server_credentials
from serving.tokens import watch_tokens

logger = logging.getLogger(__name__)


class Server:
    """Serves models, or says UNAVAILABLE to every request where there is none."""

    def __init__(
        self, models: Models, config: Config, reload_others: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Takes models that are open when it starts; closes them with itself.

        Args:
            models: What is served.
            config: The options.
            reload_others: Lets the other processes on this port look at their models, too.
        """
        self._models, self._config, self._reload_others = models, config, reload_others
        self._telemetry = Telemetry(config, models)
        self._watcher: asyncio.Task[None] | None = None
        self.port = config.port

    @property
    def metrics_port(self) -> int | None:
        """Where Prometheus finds the metrics of a started server; None: nowhere."""
        return self._telemetry.port

    def metrics_text(self) -> str:
        """Returns the metrics of a started server in Prometheus's text format; any thread may ask."""
        return self._telemetry.metrics_text()

    async def start(self) -> None:
        """Listens and answers from now on; `port` and `metrics_port` say where.

        Raises:
            InputError: An address cannot be listened on, a certificate or the tokens cannot be used, or traces are
                asked for and cannot be made.
        """
        try:
            await self._start()
        except InputError:
            await self._models.close()
            await self._telemetry.close()
            raise

    async def _start(self) -> None:
        access, credentials = _access(self._config), server_credentials(self._config)
        self._service = PrelabelService(self._models)
        self._open_inference = OpenInferenceService(self._models)
        # A client watches once for each connection.
        watchers = self._config.max_connections
        self._health = Health([SERVICE, OPEN_INFERENCE], self._models.default is not None, watchers)
        services = [SERVICE, OPEN_INFERENCE, ADMIN_SERVICE]
        requests = self._models.requests
        errors = ErrorLayer([*services, *REFLECTION_SERVICES], requests)
        layers: list[Layer] = [RpcLayer(services, requests), access.limit, errors]
        routes = Routes(layers, OpenCalls(MAX_OPEN_CALLS, requests, access.guard).guard)
        self._service.add_to(routes)
        self._open_inference.add_to(routes)
        AdminService(self._models, self._reload_others).add_to(routes)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, routes)
        self._reflection = Reflection((*services, health.SERVICE_NAME))
        self._reflection.add_to(routes)
        self._server = grpc.aio.server(options=channel_options(self._config))
        self._server.add_generic_rpc_handlers((routes,))
        address = f"{self._config.host}:{self._config.port}"
        self._telemetry.open(lambda: self._health.serving)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
            await self._server.start()
        except RuntimeError as error:
            raise cannot_listen(address) from error
        if self._config.reload_every_s:
            self._watcher = asyncio.create_task(self._models.watch(self._config.reload_every_s))

    async def stop(self) -> None:
        """Takes no new work, answers what is in flight for up to `drain_timeout_s`, and ends."""
        logger.info("stopping")
        self._health.stop()
        self._models.requests.stopping = True
        self._service.drain()
        self._open_inference.drain()
        self._reflection.drain()
        if self._watcher is not None:
            self._watcher.cancel()
        self._models.hurry()
        await self._server.stop(self._config.drain_timeout_s)
        await self._models.close()
        await self._telemetry.close()
        logger.info("stopped")


def cannot_listen(address: str) -> InputError:
    """Returns the error for HOST:PORT."""
    return InputError(
        f"cannot listen on {address}: the port is in use, or the host is no address of this machine; choose another "
        "--port (0 takes a free one) or --host"
    )


def _access(config: Config) -> Access:
    tokens = watch_tokens(config.token_file, os.environ)
    if tokens is not None and config.tls_certificate is None and not config.listens_to_this_machine_only:
        logger.warning("tokens travel unencrypted: use --tls-certificate and --tls-key, or a proxy that encrypts")
    rate = Rate(config.rate_limit_images_per_s, config.rate_limit_burst_images)
    counts = {SERVICE: count_images, OPEN_INFERENCE: count_inputs}
    return Access(tokens, {ADMIN_SERVICE}, counts, RateLimiter(rate))
