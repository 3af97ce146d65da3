"""The real server in this process with metrics on, and what Prometheus reads from it."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from prometheus_client.parser import text_string_to_metric_families

from prelabel.engine import Engine
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving.requests import Observer
from serving.server import Server
from support.inside import serving_inside


@asynccontextmanager
async def serving(
    engine: Engine | None, observers: Sequence[Observer] = (), **options: object
) -> AsyncIterator[tuple[Server, PrelabelServiceStub]]:
    async with serving_inside(engine, observers, **{"metrics_port": 0, **options}) as (server, channel):
        yield server, PrelabelServiceStub(channel)


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


async def read(server: Server) -> Samples:
    return Samples(await scrape(server))


async def until(server: Server, reached: Callable[[Samples], bool]) -> Samples:
    """Scrapes until the server has noticed what its client did."""
    async with asyncio.timeout(30):
        while True:
            samples = await read(server)
            if reached(samples):
                return samples
