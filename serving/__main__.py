"""The command `python -m serving`."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

# gRPC's C core would repeat our errors on stderr in its own words. Must be set before grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from prelabel.engine import Engine, load_engine
from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from serving import logs
from serving.config import Config
from serving.models import Models
from serving.server import Server
from serving.settings import read_config, to_toml

logger = logging.getLogger("serving")


async def serve(load: Callable[[Path], Engine], config: Config) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is in flight and returns."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    models = Models(config.model, load, config)
    await models.open()
    server = Server(models, config)
    await server.start()
    try:
        if config.port_file:
            write_text_atomically(config.port_file, f"{server.port}\n")
        logger.info(
            "serving",
            extra={
                "address": f"{config.host}:{server.port}",
                "models": {
                    status.version: status.model_id for status in models.statuses() if status.state == "serving"
                },
                **({"metrics_address": f"{config.metrics_host}:{server.metrics_port}"} if server.metrics_port else {}),
            },
        )
        _spare_the_collector()
        await stop.wait()
    finally:
        if config.port_file:
            config.port_file.unlink(missing_ok=True)
        await server.stop()


def _run(server: Coroutine[Any, Any, None]) -> None:
    """Runs the server in uvloop's event loop, which answers a tenth more single images; Windows has none."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(server)
    else:
        uvloop.run(server)


def _spare_the_collector() -> None:
    """Takes what was made until now out of the garbage collector's sight.

    Calls leave hardly any cycles, but many objects; each look at all that was imported and loaded would hold them up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the options, loads the models, serves; returns the exit status."""
    try:
        config = read_config(arguments)
        if config.print_config:
            print(to_toml(config, arguments), end="")
            return 0
        logs.configure(config.log_level)
        _prepare_port_file(config)
        # One thread for each inference: parallel over requests is faster than inside one.
        _run(serve(lambda directory: _load(directory, config), config))
    except PrelabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without permission: the user's to mend, no bug of ours
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _load(directory: Path, config: Config) -> Engine:
    return load_engine(
        directory,
        config.device,
        threads=1,
        runtime=config.runtime,
        precision=config.precision,
        callers=config.instances,
        max_batch_size=config.max_batch_size,
        tensorrt=config.tensorrt,
        cuda_graphs=config.cuda_graphs,
    )


def _prepare_port_file(config: Config) -> None:
    if config.port_file is None:
        return
    if not config.port_file.parent.is_dir():
        raise InputError(f"--port-file {config.port_file}: there is no folder {config.port_file.parent}")
    # One that a killed server left behind would name a port on which nobody answers.
    config.port_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
