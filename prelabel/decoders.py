"""Processes that read and decode for bulk work: threads of one process share one core while they decode small images.

Each process works through stretches of whole shards, so the batches of different shards arrive interleaved; those of
one shard arrive in order. A process ends when its pipe does, thus also when the process that started it is killed.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait

from prelabel.errors import PrelabelError, WorkerError
from prelabel.feed import Cut, Decoded, decoded_here
from prelabel.shards import neighbours
from prelabel.sources import Source, section

STRETCH_SHARDS = 16
"""Most shards that a process is given at a time: in one stretch a source reads on instead of looking for its place."""
STRETCHES_EACH = 4
"""At least so many stretches for each process, so that none is idle for long when the others have not finished."""
BATCHES_AHEAD = 1
"""Batches that a process has decoded while another one is being sent."""
_CODE = "import sys; from prelabel.decoders import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True)
class _Task:
    source: Source
    missing: tuple[range, ...]
    cut: Cut


@dataclass(frozen=True)
class _Done:
    """A task is finished."""


_Message = Decoded | _Done | Exception


def decoded_by_processes(
    source: Source, missing: Sequence[range], cut: Cut, processes: int
) -> Generator[Decoded, None, None]:
    """Yields all images of the missing shards, decoded by other processes; close it to end them.

    The batches of a shard come in order, those of different shards interleaved.

    Args:
        source: The images; its parts (`prelabel.sources.section`) are pickled.
        missing: Positions in the source of each shard that is wanted, in order.
        cut: The batches.
        processes: Processes that read and decode.

    Raises:
        InputError: The source changed while it was read, or cannot be read any more.
        WorkerError: A process died.
    """
    parts = deque(stretches(missing, processes))

    def next_task() -> _Task:
        part = parts.popleft()
        return _Task(section(source, part[0].start, part[-1].stop), part, cut)

    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(_process()) for _ in range(min(processes, len(parts)))]
        for connection in busy:
            _send(connection, next_task())
        while busy:
            ready = set(wait(busy))
            for connection in [one for one in busy if one in ready]:
                message = _receive(connection)
                if isinstance(message, Decoded):
                    yield message
                elif isinstance(message, Exception):
                    raise message
                elif parts:
                    _send(connection, next_task())
                else:
                    busy.remove(connection)


def stretches(missing: Sequence[range], processes: int) -> list[tuple[range, ...]]:
    """Cuts the missing shards into stretches of shards that follow each other, of no more than `STRETCH_SHARDS`."""
    size = max(1, min(STRETCH_SHARDS, len(missing) // (STRETCHES_EACH * processes)))
    return [
        tuple(together[start : start + size])
        for together in neighbours(missing)
        for start in range(0, len(together), size)
    ]


@contextlib.contextmanager
def _process() -> Iterator[Connection]:
    """Starts a process and yields the connection to it; ends it."""
    ours, theirs = Pipe()
    # Not multiprocessing: it runs the caller's main module again, and forking is not safe beside an engine's threads.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", _CODE, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment) as process:
        theirs.close()
        try:
            yield ours
        finally:
            process.kill()


def _send(connection: Connection, task: _Task) -> None:
    try:
        connection.send(task)
    except OSError:
        raise _died() from None


def _receive(connection: Connection) -> _Message:
    try:
        message: _Message = connection.recv()
    except (EOFError, OSError):
        raise _died() from None
    return message


def _died() -> WorkerError:
    return WorkerError(
        "a process that decodes images died, perhaps for lack of memory: free some, or choose fewer --decode-processes"
    )


def serve(descriptor: int) -> None:
    """Reads and decodes what comes through the pipe until its other end is closed; the main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    warnings.filterwarnings("ignore", module=r"PIL\.")
    connection = Connection(descriptor)
    decoded: queue.Queue[_Message] = queue.Queue(BATCHES_AHEAD)
    threading.Thread(target=_send_all, args=(connection, decoded), daemon=True).start()
    while True:
        try:
            task: _Task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            for batch in decoded_here(task.source, task.missing, task.cut):
                decoded.put(batch)
            decoded.put(_Done())
        except (PrelabelError, OSError) as error:
            decoded.put(error)
        except Exception as error:  # a fault of ours or of a library: its words, in an error that can be sent
            decoded.put(WorkerError(f"a process that decodes images failed: {type(error).__name__}: {error}"))


def _send_all(connection: Connection, decoded: "queue.Queue[_Message]") -> None:
    try:
        while True:
            connection.send(decoded.get())
    except OSError:
        os._exit(0)  # nobody reads any more; the main thread may wait for room in the queue for ever
