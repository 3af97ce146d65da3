"""The real server in this process, around an engine that a test can hold, and requests to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from prelabel.engine import Engine
from prelabel.v1 import prelabel_pb2 as pb
from serving.config import Config
from serving.models import Models
from serving.requests import Observer, Requests
from serving.server import Server
from support.engines import marked


@asynccontextmanager
async def serving_inside(
    engine: Engine | None, observers: Sequence[Observer] = (), **options: object
) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    """Serves an engine, or no model, on a free port, without waiting for company."""
    config = Config(Path("unused"), port=0, **{"instances": 1, "max_queue_delay_ms": 0.0, **options})
    server = Server(Models.of(engine, config, Requests(observers)), config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield server, channel
    await server.stop()


def request(marks: list[int] | range) -> pb.PredictRequest:
    images = marked(marks)
    tensor = pb.ImageTensor(shape=images.shape, dtype=pb.DATA_TYPE_UINT8, data=images.tobytes())
    return pb.PredictRequest(request_id=str(marks[0]), tensor=tensor)
