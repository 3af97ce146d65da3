"""Draws the time-line of one batch: `python -m scripts.batch_timeline`.

The real server runs in this process under the load generator of `make bench-serving`, 64 single images at a time; what
its observer notes of one batch's requests is drawn into docs/images/serving_timeline.png.
"""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from prelabel.engine import load_engine
from prelabel.files import write_atomically
from scripts.bench_serving import SINGLES_IN_FLIGHT
from serving.config import Config
from serving.models import Models
from serving.requests import Observer, RequestRecord, Requests
from serving.server import Server

COLOURS = {"decode": "tab:purple", "queue": "tab:gray", "infer": "tab:blue", "encode": "tab:orange"}


@dataclass(frozen=True)
class Options:
    """Draw one batch; a few seconds on two free cores."""

    model: Path = Path("runs/demo/bundle")
    """The bundle."""
    seconds: float = 2.0
    """Length of the load."""
    picture: Path = Path("docs/images/serving_timeline.png")
    """Where it goes."""


class Keeper(Observer):
    """Keeps every answered request."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []

    def request_ended(self, request: RequestRecord) -> None:
        """Keeps it."""
        if request.cause is None:
            self.requests.append(request)


def main() -> None:
    """Serves, loads and draws."""
    options = tyro.cli(Options, prog="python -m scripts.batch_timeline")
    batch = asyncio.run(one_batch(options))
    draw(batch, options.picture)
    print(f"{len(batch)} requests in one batch: {options.picture}")


async def one_batch(options: Options) -> list[RequestRecord]:
    """Returns the requests of a batch in the middle of the load, by their arrival."""
    keeper = Keeper()
    config = Config(options.model, port=0, reload_every_s=0.0)
    models = Models(options.model, lambda path: load_engine(path, "cpu", threads=1), config, Requests([keeper]))
    await models.open()
    server = Server(models, config)
    await server.start()
    load = [sys.executable, "-m", "scripts.bench_load", "--address", f"127.0.0.1:{server.port}"]
    flags = ["--in-flight", str(SINGLES_IN_FLIGHT), "--seconds", str(options.seconds)]
    process = await asyncio.create_subprocess_exec(*load, *flags, stdout=subprocess.DEVNULL)
    await process.wait()
    await server.stop()
    middle = keeper.requests[len(keeper.requests) // 2]
    run = next(stage.run for stage in middle.stages if stage.name == "infer")
    batch = [request for request in keeper.requests if any(stage.run is run for stage in request.stages)]
    return sorted(batch, key=lambda request: request.started_at_s)


def draw(batch: list[RequestRecord], picture: Path) -> None:
    """Draws each request as a line of its stages, in milliseconds since the first one came."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.14 * len(batch)), layout="constrained")
    axes = figure.subplots()
    start_s = batch[0].started_at_s
    for line, request in enumerate(batch):
        for stage in request.stages:
            length_ms = 1e3 * (stage.ended_at_s - stage.started_at_s)
            axes.barh(line, length_ms, left=1e3 * (stage.started_at_s - start_s), color=COLOURS[stage.name])
    axes.legend([axes.barh(0, 0, color=colour) for colour in COLOURS.values()], list(COLOURS), fontsize="small")
    axes.set(xlabel="ms", ylabel="requests of one batch", yticks=[])
    axes.invert_yaxis()
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=110))


if __name__ == "__main__":
    main()
