"""Several worker processes on one port: started together, started anew when one dies, and ended together.

The supervisor answers no requests and loads no model: it stays small, and nothing that kills a worker kills it.
"""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from serving import process
from serving.config import Config
from serving.link import Link, LinkClosedError
from serving.metrics_port import MetricsPort
from serving.pooled_metrics import Pool, PooledMetrics
from serving.settings import to_flags
from serving.shared_port import held_port

logger = logging.getLogger("serving")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Before a dead worker is started anew: doubled each time, so that one that cannot start does not take the cores."""
PROVEN_S = 60.0
"""A worker that served for so long is started anew after the first pause again."""
DRAIN_RESERVE_S = 3.0
"""Beyond --drain-timeout-s, for the rest of a worker's end; together below the 30 s of Kubernetes."""
METRICS_WITHIN_S = 5.0
"""A worker that does not answer so long is left out of a scrape: Prometheus gives up after 10 s."""


@dataclass(eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    link: Link
    opens: bool = False
    """It was told to open the port, so that it may have calls."""
    serves: bool = False


class Supervisor:
    """Keeps `config.processes` workers running."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._workers: dict[int, _Worker] = {}
        """Those that live, by number."""
        self._loaded: set[int] = set()
        self._served: set[int] = set()
        """Workers that were ready at least once."""
        self._models: dict[str, str] = {}
        """Version -> model_id of what the workers serve, as the last one said that became ready."""
        self._restarts = 0

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT; returns the exit status: 1 where a worker did not end by itself.

        Raises:
            InputError: The port cannot be listened on, or a worker cannot start.
        """
        if sys.platform != "linux":
            raise InputError("--processes above 1 needs Linux, which spreads connections over processes on one port")
        stop = process.stop_event()
        self._all_loaded, self._all_serve, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with held_port(self._config.host, self._config.port) as port, self._metrics() as metrics_port:
            self._port = port
            keepers = [asyncio.create_task(self._keep(number)) for number in range(self._config.processes)]
            told = asyncio.create_task(self._tell(metrics_port))
            stopped = asyncio.create_task(stop.wait())
            try:
                ends: list[asyncio.Future[Any]] = [stopped, self._failure, *keepers]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told.cancel()
                stopped.cancel()
                if self._config.port_file:
                    self._config.port_file.unlink(missing_ok=True)
                status = await self._stop(keepers)
        if self._failure.done():
            raise InputError(self._failure.result())
        return status

    @contextlib.contextmanager
    def _metrics(self) -> Iterator[int | None]:
        if self._config.metrics_port is None:
            yield None
            return
        loop = asyncio.get_running_loop()
        metrics = PooledMetrics(lambda: asyncio.run_coroutine_threadsafe(self._pool(), loop).result())
        port = MetricsPort(self._config.metrics_host, self._config.metrics_port, metrics.registry())
        try:
            yield port.port
        finally:
            port.close()

    async def _pool(self) -> Pool:
        async def text(number: int, worker: _Worker) -> tuple[int, str] | None:
            try:
                return number, await asyncio.wait_for(worker.link.ask("metrics"), METRICS_WITHIN_S)
            except (LinkClosedError, TimeoutError):
                return None

        serving = [(number, worker) for number, worker in sorted(self._workers.items()) if worker.serves]
        texts = await asyncio.gather(*(text(number, worker) for number, worker in serving))
        return Pool(self._config.processes, self._restarts, dict(filter(None, texts)))

    async def _tell(self, metrics_port: int | None) -> None:
        """Says that the server serves, once all workers do."""
        await self._all_serve.wait()
        if self._config.port_file:
            try:
                write_text_atomically(self._config.port_file, f"{self._port}\n")
            except OSError as error:
                self._failure.set_result(f"--port-file {self._config.port_file} cannot be written: {error}")
                return
        fields: dict[str, object] = {"address": f"{self._config.host}:{self._port}", "models": self._models}
        fields["workers"] = {number: worker.process.pid for number, worker in sorted(self._workers.items())}
        if metrics_port:
            fields["metrics_address"] = f"{self._config.metrics_host}:{metrics_port}"
        logger.info("serving", extra=fields)

    async def _keep(self, number: int) -> None:
        """Runs a worker, and another one when it has ended, until the server stops."""
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            ended = await self._run_one(number)
            if self._stopping.is_set():
                return
            if not self._all_serve.is_set():
                if not self._failure.done():
                    self._failure.set_result(f"worker {number} {ended} before it served: see the log above")
                return
            if loop.time() - started_s > PROVEN_S:
                pause_s = FIRST_PAUSE_S
            extra = {"worker": number, "how": ended, "restart_in_s": pause_s}
            logger.error("a worker ended; the others serve on", extra=extra)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._restarts += 1

    async def _run_one(self, number: int) -> str:
        """Starts a worker and returns how it ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "serving.worker_process", str(theirs.fileno()), str(number)]
            # A session of its own: Ctrl-C in a terminal is for the supervisor, which tells the workers.
            try:
                running = await asyncio.create_subprocess_exec(
                    *command,
                    *to_flags(dataclasses.replace(self._config, port=self._port, port_file=None)),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:  # no memory or too many processes, perhaps for a moment only
                ours.close()
                return f"could not be started: {error}"
        link = await Link.over(ours, lambda what, about: self._answer(number, what, about))
        self._workers[number] = _Worker(running, link)
        if self._stopping.is_set():
            running.kill()
        try:
            await link.attend()
            status = await running.wait()
        finally:
            del self._workers[number]
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    async def _answer(self, number: int, what: str, about: Any) -> Any:
        """Answers a worker."""
        match what:
            case "loaded":
                self._loaded.add(number)
                if len(self._loaded) == self._config.processes:
                    self._all_loaded.set()
                # One that was started anew goes on at once.
                await self._all_loaded.wait()
                self._workers[number].opens = True
            case "serving":
                self._workers[number].serves = True
                if number in self._served:
                    logger.info("a worker serves again", extra={"worker": number})
                self._served.add(number)
                self._models = about
                if len(self._served) == self._config.processes:
                    self._all_serve.set()
            case "failed":
                if self._all_serve.is_set():
                    logger.error("a worker cannot start", extra={"worker": number, "reason": about})
                elif not self._failure.done():
                    self._failure.set_result(about)
            case "reload others":
                others = [worker.link for other, worker in self._workers.items() if other != number and worker.serves]
                # One that dies meanwhile will load what is there then.
                await asyncio.gather(*(link.ask("reload") for link in others), return_exceptions=True)

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> int:
        """Ends the workers: those with an open port answer what they have accepted. Returns the exit status."""
        if not self._failure.done():
            logger.info("stopping")
        self._stopping.set()
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM if worker.opens else signal.SIGKILL)
        _, late = await asyncio.wait(keepers, timeout=self._config.drain_timeout_s + DRAIN_RESERVE_S)
        for number, worker in self._workers.items():
            logger.error("a worker did not end and is killed", extra={"worker": number})
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        await asyncio.gather(*keepers)
        if not self._failure.done():
            logger.info("stopped")
        return 1 if late else 0
