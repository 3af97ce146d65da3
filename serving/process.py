"""What every process that serves has in common, be it alone or one of several."""

import asyncio
import gc
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from prelabel.engine import Engine, load_engine
from serving.config import Config

ResultT = TypeVar("ResultT")


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs it in uvloop's event loop, which answers a tenth more single images; Windows has none."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def stop_event() -> asyncio.Event:
    """Returns what SIGTERM and SIGINT set from now on, instead of ending the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def load(directory: Path, config: Config) -> Engine:
    """Loads, verifies and warms up a bundle.

    Raises:
        PrelabelError: See `load_engine`.
    """
    return load_engine(
        directory,
        config.device,
        # One thread for each inference: parallel over requests is faster than inside one.
        threads=1,
        runtime=config.runtime,
        precision=config.precision,
        callers=config.instances,
        processes=config.processes,
        max_batch_size=config.max_batch_size,
        gpus=config.gpus,
        tensorrt=config.tensorrt,
        cuda_graphs=config.cuda_graphs,
    )


def spare_the_collector() -> None:
    """Takes what was made until now out of the garbage collector's sight.

    Calls leave hardly any cycles, but many objects; each look at all that was imported and loaded would hold them up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
