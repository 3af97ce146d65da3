"""The command `python -m scripts.soak`: phases, and the report in docs/results/soak.json."""

import asyncio
import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import tyro

from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from prelabel.v1.prelabel_pb2 import GetModelRequest
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from scripts.provenance import provenance
from scripts.soak.clients import Client, channel
from scripts.soak.hostile import intrude
from scripts.soak.model import write_bundle
from scripts.soak.process import Resources, ServerProcess
from scripts.soak.tally import Tally

COMMAND = "python -m scripts.soak"

_MEMORY_SLACK_BYTES = 32 << 20
"""The allocator keeps free pages of the largest messages; a leak is not bounded by them."""
_THREAD_SLACK = 8
"""gRPC's pool of threads breathes."""

_RELOAD_WITHIN_S = 30.0

_ENDING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""What clients of a server that ends are told."""
_KILLED = _ENDING | {grpc.StatusCode.DEADLINE_EXCEEDED}
"""A call that begins while a server dies can stay silent: gRPC's client does not always notice."""


@dataclass(frozen=True)
class Options:
    """Puts a server under load, abuse, SIGTERM and SIGKILL; loopback only; exit status 1 where anything was wrong."""

    minutes: float = 3.0
    """How long clients are busy, all phases together; starts and stops come on top."""
    clients: int = 16
    """Connections that are busy all the time."""
    intruders: int = 4
    """Peers at a time that do not speak gRPC."""
    crowd: int = 1000
    """Connections that are open at once in the phase of that name; each of them asks and gets an answer."""
    seed: int = 0
    """Of what clients do; the machine decides when."""
    results: Path | None = Path("docs/results/soak.json")
    """Where the report goes; None for the terminal only."""

    def __post_init__(self) -> None:
        for name in ("minutes", "clients", "intruders", "crowd"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: more than 0 wanted")


class Soak:
    """One server and what is done to it."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._random = random.Random(options.seed)
        self._folder = folder
        self._tally = Tally()
        self._tally.model_ids.add(write_bundle(folder / "models" / "1", 1))
        self._server = ServerProcess(folder / "models", folder)

    async def run(self) -> dict[str, Any]:
        """Goes through the phases; returns the report."""
        started_s = time.monotonic()
        busy_s = 60 * self._options.minutes
        try:
            await self._server.start()
            await self._load(0.2 * busy_s)
            await self._crowd()
            before = await self._server.at_rest()
            await self._load(0.4 * busy_s)
            await self._reload(0.1 * busy_s)
            under_load = self._server.resources()
            await self._crowd()
            after = await self._server.at_rest(_limits(before))
            self._compare(before, after)
            await self._restart(0.15 * busy_s, self._server.terminate, 0, _ENDING)
            await self._restart(0.15 * busy_s, self._server.kill, -signal.SIGKILL, _KILLED)
            await self._still_answers()
            if (given := await self._server.terminate()) != 0:
                self._tally.violation(f"an idle server ended with status {given} at SIGTERM")
        finally:
            self._server.close()
        self._check_log()
        return {
            "minutes": self._options.minutes,
            "clients": self._options.clients,
            "crowd": self._options.crowd,
            "seed": self._options.seed,
            "wall_s": round(time.monotonic() - started_s, 1),
            "server_starts": self._server.starts,
            "right_images": self._tally.images,
            "outcomes": dict(sorted(self._tally.outcomes.items())),
            "resources": {
                "before": asdict(before),
                "under_load": asdict(under_load),
                "after": asdict(after),
            },
            "violation_count": self._tally.violation_count,
            "violations": self._tally.violations,
        }

    @asynccontextmanager
    async def _busy(self) -> AsyncIterator[None]:
        """Keeps clients and intruders busy; at the end each finishes what it does."""
        stop = asyncio.Event()

        async def client(seed: int) -> None:
            rng = random.Random(seed)
            while not stop.is_set():
                one = Client(self._server.address, self._tally, rng.getrandbits(32))
                for _ in range(rng.randint(1, 100)):
                    await one.act()
                    if stop.is_set():
                        break
                    if self._tally.away:
                        await asyncio.sleep(0.02)  # refusals are quick; the server needs the core to start again
                await one.close()

        async def intruder(seed: int) -> None:
            rng = random.Random(seed)
            while not stop.is_set():
                await intrude(self._server.address, self._tally, rng)

        seeds = [self._random.getrandbits(32) for _ in range(self._options.clients + self._options.intruders)]
        tasks = [asyncio.create_task(client(seed)) for seed in seeds[: self._options.clients]]
        tasks += [asyncio.create_task(intruder(seed)) for seed in seeds[self._options.clients :]]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _load(self, seconds: float) -> None:
        async with self._busy():
            one = Client(self._server.address, self._tally, self._random.getrandbits(32))
            for action in (one.stream, one.never_reads, one.raising, one.not_a_number, one.malformed, one.random_bytes):
                await action()
            await one.oversized()
            await one.oversized(bomb=True)
            await one.close()
            await asyncio.sleep(seconds)

    async def _reload(self, seconds: float) -> None:
        """Puts a new version in place under load and waits until it is the one that answers."""
        async with self._busy():
            await asyncio.sleep(seconds / 2)
            model_id = write_bundle(self._folder / "new", 2)
            self._tally.model_ids.add(model_id)
            (self._folder / "new").rename(self._folder / "models" / "2")
            async with channel(self._server.address) as connection:
                about = PrelabelServiceStub(connection).GetModel
                gives_up_at_s = time.monotonic() + _RELOAD_WITHIN_S
                while (await about(GetModelRequest(), timeout=_RELOAD_WITHIN_S)).model_id != model_id:
                    if time.monotonic() > gives_up_at_s:
                        self._tally.violation("a new version is not served")
                        break
                    await asyncio.sleep(0.05)
            await asyncio.sleep(seconds / 2)
        # What was asked of the old version is answered; from here on it must be gone.
        self._tally.model_ids = {model_id}

    async def _crowd(self) -> None:
        """Many connections at once; each asks, and stays until all have their answer."""
        clients = [
            Client(self._server.address, self._tally, self._random.getrandbits(32)) for _ in range(self._options.crowd)
        ]
        for protocol in (Client.predict, Client.infer):
            await asyncio.gather(*(protocol(client) for client in clients))
        await asyncio.gather(*(client.close() for client in clients))

    async def _restart(
        self, seconds: float, end: Callable[[], Awaitable[int]], status: int, allowed: frozenset[grpc.StatusCode]
    ) -> None:
        """Ends the server under load, starts it again on the same port, and sees that clients get answers again."""
        async with self._busy():
            await asyncio.sleep(seconds / 2)
            self._tally.away = allowed
            given = await end()
            if given != status:
                self._tally.violation(f"the server ended with status {given}, not {status}")
            await self._server.start()
            await asyncio.sleep(seconds / 2)
        self._tally.away = frozenset()
        await self._still_answers()

    async def _still_answers(self) -> None:
        before = self._tally.images
        one = Client(self._server.address, self._tally, self._random.getrandbits(32))
        await one.predict()
        await one.infer()
        await one.close()
        if self._tally.images == before:
            self._tally.violation("the server does not answer any more")

    def _compare(self, before: Resources, after: Resources) -> None:
        limits = asdict(_limits(before))
        for name, value in asdict(after).items():
            if value > limits[name]:
                self._tally.violation(f"at rest {value} {name}, before the load {getattr(before, name)}")

    def _check_log(self) -> None:
        """The log has every internal error that a client was told, and no error but the engine's on purpose."""
        errors = {line["error_id"]: line for line in self._server.log() if "error_id" in line}
        if missing := self._tally.error_ids - errors.keys():
            self._tally.violation(f"{len(missing)} errors that clients were told are not in the log")
        for line in self._server.log():
            if line["level"] in ("error", "critical") and "inference failed" not in str(line.get("exception")):
                self._tally.violation(f"the server logged: {json.dumps(line)[:500]}")


def _limits(before: Resources) -> Resources:
    """What a server may hold after a load, given what it held before."""
    memory_bytes = before.memory_bytes + max(before.memory_bytes // 5, _MEMORY_SLACK_BYTES)
    return Resources(memory_bytes, before.threads + _THREAD_SLACK, before.descriptors)


def soak(options: Options) -> dict[str, Any]:
    """Runs the phases in a folder that is thrown away; returns the report."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends of the crowd's connections are on this machine; the server inherits the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(Soak(options, Path(folder)).run())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main() -> int:
    """Runs, writes the report, prints it; returns the exit status."""
    try:
        options = tyro.cli(Options, prog=COMMAND)
        report = provenance(COMMAND) | soak(options)
    except PrelabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if options.results is not None:
        write_text_atomically(options.results, text)
    return 1 if report["violation_count"] else 0


if __name__ == "__main__":
    sys.exit(main())
