"""One of several processes that serve on the same port: `python -m serving.worker_process`, started by the supervisor.

It loads the models, tells the supervisor so, and opens the port when it is told to: not before all others are as far.
When the supervisor is gone it answers what it has accepted and ends.
"""

import asyncio
import logging
import os
import socket
import sys
from typing import Any

# As in `serving.__main__`, before grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from prelabel.errors import PrelabelError
from serving import logs, process
from serving.config import Config
from serving.link import Link, LinkClosedError
from serving.models import Models
from serving.server import Server
from serving.settings import from_flags

logger = logging.getLogger("serving")


class WorkerProcess:
    """Serves, and does what the supervisor asks."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._models = Models(config.model, lambda directory: process.load(directory, config), config)
        self._server = Server(self._models, config, self._reload_others)
        self._link: Link

    async def run(self, end: socket.socket) -> int:
        """Serves until SIGTERM, SIGINT or the end of the supervisor; returns the exit status."""
        stop = process.stop_event()
        self._link = await Link.over(end, self._answer)
        attending = asyncio.create_task(self._link.attend())
        attending.add_done_callback(lambda _: stop.set())
        try:
            await self._models.open()
            await self._link.ask("loaded")
            await self._server.start()
        except (PrelabelError, OSError) as error:
            await self._link.ask("failed", " ".join(str(error).split()))
            return 2
        try:
            models = {
                status.version: status.model_id for status in self._models.statuses() if status.state == "serving"
            }
            await self._link.ask("serving", models)
            process.spare_the_collector()
            await stop.wait()
        finally:
            await self._server.stop()
            attending.cancel()
        return 0

    async def _answer(self, what: str, about: Any) -> Any:
        """Answers the supervisor."""
        if what == "metrics":
            return await asyncio.to_thread(self._server.metrics_text)
        assert what == "reload", what
        try:
            await self._models.reload()
        except PrelabelError as error:
            # The worker that the operator has asked says the same to the operator: they read the same directory.
            logger.error("the models' directory cannot be read; serving goes on", extra={"reason": str(error)})
        return None

    async def _reload_others(self) -> None:
        await self._link.ask("reload others")


def main(arguments: list[str]) -> int:
    """Serves; `arguments` are the number of an inherited socket, this worker's number, and the server's options."""
    end, number, *flags = arguments
    config = from_flags(flags)
    logs.configure(config.log_level, worker=int(number))
    config = process.allow_connections(config)
    try:
        return process.run(WorkerProcess(config).run(socket.socket(fileno=int(end))))
    except LinkClosedError:
        return 1  # the supervisor ended while this process started: there is nobody to serve for


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
