"""The command `python -m serving`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

# gRPC's C core would repeat our errors on stderr in its own words. Must be set before grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import tyro

from prelabel.engine import Engine, load_engine
from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from serving import logs
from serving.config import Config
from serving.server import Server

logger = logging.getLogger("serving")


async def serve(engine: Engine, config: Config) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is in flight and returns."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(engine, config)
    await server.start()
    try:
        if config.port_file:
            write_text_atomically(config.port_file, f"{server.port}\n")
        logger.info(
            "serving",
            extra={
                "address": f"{config.host}:{server.port}",
                "model_id": engine.bundle.model_id,
                "execution_provider": engine.execution_provider,
            },
        )
        await stop.wait()
    finally:
        if config.port_file:
            config.port_file.unlink(missing_ok=True)
        await server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the options, loads the bundle, serves; returns the exit status."""
    try:
        config = tyro.cli(Config, prog="python -m serving", args=arguments)
        logs.configure(config.log_level)
        _prepare_port_file(config)
        # One thread for each inference: parallel over requests is faster than inside one.
        engine = load_engine(
            config.model,
            config.device,
            threads=1,
            runtime=config.runtime,
            precision=config.precision,
            callers=config.instances,
            max_batch_size=config.max_batch_size,
            tensorrt=config.tensorrt,
            cuda_graphs=config.cuda_graphs,
        )
        asyncio.run(serve(engine, config))
    except PrelabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without permission: the user's to mend, no bug of ours
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _prepare_port_file(config: Config) -> None:
    if config.port_file is None:
        return
    if not config.port_file.parent.is_dir():
        raise InputError(f"--port-file {config.port_file}: there is no folder {config.port_file.parent}")
    # One that a killed server left behind would name a port on which nobody answers.
    config.port_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
