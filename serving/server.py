"""A gRPC server around one engine: starts, says where it listens, and stops without losing a request."""

import logging

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from prelabel.client import MAX_MESSAGE_BYTES
from prelabel.engine import Engine, on_gpu, parallel_calls, usable_cores
from prelabel.errors import InputError
from serving.batcher import Batcher, BatchLimits
from serving.config import Config
from serving.decoder import Decoder
from serving.errors import ErrorInterceptor
from serving.health import Health
from serving.reflection import add_reflection
from serving.service import SERVICE, Model, PrelabelService

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
    """Serves one engine, or says UNAVAILABLE to every request where there is none."""

    def __init__(self, engine: Engine | None, config: Config) -> None:
        """Takes the options from `config`; its `model` and `device` are the engine's business."""
        self._engine, self._config = engine, config
        self.port = config.port

    async def start(self) -> None:
        """Listens and answers from now on; `port` says where.

        Raises:
            InputError: The address cannot be listened on, or the model does not fit the protocol.
        """
        self._model = None if self._engine is None else _model(self._engine, self._config)
        self._service = PrelabelService(self._model)
        self._health = Health([SERVICE], serving=self._model is not None)
        self._server = grpc.aio.server(interceptors=[ErrorInterceptor(SERVICE)], options=_OPTIONS)
        self._service.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection((SERVICE, health.SERVICE_NAME), self._server)
        address = f"{self._config.host}:{self._config.port}"
        try:
            self.port = self._server.add_insecure_port(address)
            await self._server.start()
        except RuntimeError as error:
            await self._close_model()
            raise InputError(
                f"cannot listen on {address}: the port is in use, or the host is no address of this machine; choose "
                "another --port (0 takes a free one) or --host"
            ) from error

    async def stop(self) -> None:
        """Takes no new work, answers what is in flight for up to `drain_timeout_s`, and ends."""
        logger.info("stopping")
        self._health.stop()
        self._service.drain()
        if self._model is not None:
            self._model.batcher.hurry()
        await self._server.stop(self._config.drain_timeout_s)
        await self._close_model()
        logger.info("stopped")

    async def _close_model(self) -> None:
        if self._model is not None:
            await self._model.batcher.close()
            self._model.decoder.close()


def _model(engine: Engine, config: Config) -> Model:
    limits = BatchLimits(
        max_batch_size=config.max_batch_size,
        max_queue_delay_ms=config.max_queue_delay_ms,
        max_queue_images=config.max_queue_images,
        max_queue_bytes=config.max_queue_mib << 20,
        instances=config.instances or parallel_calls(threads=1, gpu=on_gpu(engine)),
    )
    model = Model(engine, Batcher(engine, limits), Decoder(engine.bundle.input, usable_cores()))
    if model.max_request_images < 1:
        raise InputError(f"one image {engine.bundle.input.shape} does not fit a message of {MAX_MESSAGE_BYTES} bytes")
    return model
