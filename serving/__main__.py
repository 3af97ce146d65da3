"""The command `python -m serving`."""

import logging
import os
import sys
from collections.abc import Sequence

# gRPC's C core would repeat our errors on stderr in its own words. Must be set before grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from prelabel.commands.exits import report_error
from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from serving import logs, process
from serving.config import Config
from serving.models import Models
from serving.server import Server
from serving.settings import read_config, to_toml

logger = logging.getLogger("serving")


async def serve(config: Config) -> int:
    """Serves until SIGTERM or SIGINT, then answers what is in flight and returns the exit status."""
    stop = process.stop_event()
    config = process.allow_connections(config)
    models = Models(config.model, lambda directory: process.load(directory, config), config)
    if not await process.comes_before(models.open(), stop):
        logger.info("stopped before the models were loaded")
        logging.shutdown()
        # A runtime at work cannot be interrupted, and its thread would be waited for: with TensorRT for minutes.
        os._exit(0)
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
        process.spare_the_collector()
        await stop.wait()
    finally:
        if config.port_file:
            config.port_file.unlink(missing_ok=True)
        await server.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the options, loads the models, serves; returns the exit status."""
    try:
        config = read_config(arguments)
        if config.print_config:
            print(to_toml(config, arguments), end="")
            return 0
        logs.configure(config.log_level)
        _prepare_port_file(config)
        if config.processes == 1:
            return process.run(serve(config))
        from serving.supervisor import Supervisor

        return process.run(Supervisor(config).run())
    except (PrelabelError, OSError) as error:
        return report_error(error)


def _prepare_port_file(config: Config) -> None:
    if config.port_file is None:
        return
    if not config.port_file.parent.is_dir():
        raise InputError(f"--port-file {config.port_file}: there is no folder {config.port_file.parent}")
    # One that a killed server left behind would name a port on which nobody answers.
    config.port_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
