"""The real server in this process with metrics on, and what Prometheus reads from it."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
from prometheus_client.parser import text_string_to_metric_families

from prelabel.engine import Engine
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving.config import Config
from serving.models import Models
from serving.requests import Observer, Requests
from serving.server import Server
from support.engines import marked


@asynccontextmanager
async def serving(
    engine: Engine | None, observers: Sequence[Observer] = (), **options: object
) -> AsyncIterator[tuple[Server, PrelabelServiceStub]]:
    chosen = {"instances": 1, "max_queue_delay_ms": 0.0, "metrics_port": 0, **options}
    config = Config(Path("unused"), port=0, **chosen)
    server = Server(Models.of(engine, config, Requests(observers)), config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield server, PrelabelServiceStub(channel)
    await server.stop()


def request(marks: list[int] | range) -> pb.PredictRequest:
    images = marked(marks)
    tensor = pb.ImageTensor(shape=images.shape, dtype=pb.DATA_TYPE_UINT8, data=images.tobytes())
    return pb.PredictRequest(request_id=str(marks[0]), tensor=tensor)


async def scrape(server: Server) -> str:
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.read().decode()

    return await asyncio.to_thread(read)


class Samples(dict[str, float]):
    """Samples by their text, as in name{label="value"}, labels in alphabetical order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.families = list(text_string_to_metric_families(text))
        self.labels: dict[str, set[str]] = {}
        """Name of a sample -> names of its labels."""
        for sample in (sample for family in self.families for sample in family.samples):
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            self[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
            self.labels.setdefault(sample.name, set()).update(sample.labels)
