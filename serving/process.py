"""What every process that serves has in common, be it alone or one of several."""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from prelabel.engine import Engine, load_engine
from serving.config import Config

logger = logging.getLogger("serving")

ResultT = TypeVar("ResultT")

_OTHER_DESCRIPTORS = 256
"""Models that are loaded, token and certificate files, scrapes, links to other processes; at rest there are some 40."""


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


async def comes_before(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Says whether `work` is done before `stop` is set, and raises what it raises; else it is left to itself."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        return False
    stopping.cancel()
    await working
    return True


def allow_connections(config: Config) -> Config:
    """Lets this process open a descriptor for each connection; returns the options, with fewer where it must not.

    Shells and service managers often start with 1,024: without this, so many connections would take the descriptors
    that new models, changed tokens and the metrics need.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return config
    wanted = config.max_connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return config
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid even this
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    most = soft - min(_OTHER_DESCRIPTORS, soft // 2)
    if most >= config.max_connections:
        return config
    logger.warning(
        "the limit of open files allows fewer connections: raise it (`ulimit -Hn`) or lower --max-connections",
        extra={"max_connections": most, "open_files": soft},
    )
    return dataclasses.replace(config, max_connections=most)


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
