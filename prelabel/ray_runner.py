"""Bulk work on a Ray cluster: this process hands shards to workers (`prelabel.ray_worker`) on all nodes.

Built on Ray's actors alone. A shard is done when its worker says so and not before; whatever else happens to a worker
(its node dies, its memory is gone, the network is cut) gives its shard to another one. Two workers on one shard do no
harm: both write the same rows, whole, under the same name.
"""

import contextlib
import logging
import os
import re
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prelabel.bulk import Runner
from prelabel.engine import Device
from prelabel.errors import InputError, PrelabelError, ServerUnavailableError, WorkerError
from prelabel.label import Work
from prelabel.ray_worker import ClusterModel, Job, ShardWorker, settle
from prelabel.shards import Run, ShardStatistics
from prelabel.storage import is_url

logger = logging.getLogger(__name__)

MAX_LOST = 4
"""A shard that so many workers died of is their cause of death: with a single one, a node may have gone by chance."""
CONNECT_S = 10.0
"""Ray itself would try for minutes in which it says nothing."""
WAITING_NOTE_S = 30.0
"""After so long without an answer it is said what is waited for."""


@dataclass(frozen=True)
class ClusterOptions:
    """How --runner ray uses a cluster."""

    address: str | None = None
    """HOST:PORT of the head node; unless given: RAY_ADDRESS, else the cluster that this machine belongs to, else one
    that is started here for this run."""
    actors: int | None = None
    """Workers, each with a model of its own on one CPU; unless given: as many as the cluster has room for."""
    num_gpus_per_actor: float = 0.0
    """Share of a GPU for each worker. 0.25 puts four on a GPU: decoding needs more CPUs than inference needs GPUs."""

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise InputError(f"--actors {self.actors} is not usable: 1 or more is wanted")
        if not 0 <= self.num_gpus_per_actor <= 1:
            raise InputError(f"--num-gpus-per-actor {self.num_gpus_per_actor} is not usable: 0 to 1 is wanted")

    def device(self, wanted: Device) -> Device:
        """Returns what the workers compute on: the GPU that Ray gives them, or their CPU.

        Raises:
            InputError: What is wanted is not what Ray would give.
        """
        given: Device = "cuda" if self.num_gpus_per_actor else "cpu"
        if wanted not in ("auto", given):
            raise InputError(
                f"--device {wanted} does not fit --num-gpus-per-actor {self.num_gpus_per_actor:g}: Ray gives each "
                "worker its share of a GPU, or none where that is 0"
            )
        return given


def ray_runner(options: ClusterOptions, model: ClusterModel, output: str | Path) -> Runner:
    """Returns the runner that makes shards on a cluster; it connects when it is called.

    It raises InputError where Ray is not installed, ServerUnavailableError where no cluster answers, and WorkerError
    where a shard or a worker fails, with its name and node.

    Args:
        options: The cluster.
        model: The model; every node reads the bundle.
        output: The output as the user gave it.
    """

    def run(work: Work, missing: Sequence[range], advance: Callable[[int], None]) -> Iterator[ShardStatistics]:
        given = (work.run.input, output, model.bundle)
        relative = any(not is_url(path) and not Path(path).is_absolute() for path in given)
        directory = os.getcwd() if relative else None
        job = Job(work.run, output, model, work.batch_size, work.decode_threads or 1, directory)
        with _connected(options.address) as ray:
            if not model.settled:
                job = _settled(ray, job, options.num_gpus_per_actor)
            actors = min(options.actors or _room(ray, options.num_gpus_per_actor), len(missing))
            for statistics in _Pool(ray, job, options.num_gpus_per_actor).label(missing, actors):
                advance(statistics.counts.rows)
                yield statistics

    return run


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connects this process to a cluster and yields the module `ray`."""
    try:
        import ray
    except ImportError:
        raise InputError("--runner ray needs Ray: pip install 'prelabel[scale]'") from None
    if ray.is_initialized():  # by a program that uses Ray itself, and goes on with it
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    # Ray prints what it hears of nodes and workers to the output stream, which is the summary's.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            if host := re.fullmatch(r"([^:/]+):(\d+)", address or ""):
                socket.create_connection((host[1], int(host[2])), CONNECT_S).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise ServerUnavailableError(
                f"no Ray cluster at {address or 'this machine'}: {_one_line(error)}; `ray start` makes one, and its "
                "output says the address"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _room(ray: Any, gpus: float) -> int:
    resources = ray.cluster_resources()
    cpus = int(resources.get("CPU", 0))
    return max(1, min(cpus, int(resources.get("GPU", 0) / gpus)) if gpus else cpus)


def _settled(ray: Any, job: Job, gpus: float) -> Job:
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=MAX_LOST)(settle).remote(job)
    while not ray.wait([task], timeout=WAITING_NOTE_S)[0]:
        _note_waiting(ray, gpus)
    try:
        settled: Job = ray.get(task)
    except ray.exceptions.RayError as error:
        raise _cause_of(error) from None
    logger.info("every worker runs the model in %s by %s", settled.model.precision, settled.model.runtime)
    return settled


class _Pool:
    """Workers, and the shards that they have and have not been given; used by one thread."""

    def __init__(self, ray: Any, job: Job, gpus: float) -> None:
        self._ray, self._gpus = ray, gpus
        self._run: Run = job.run
        self._job = ray.put(job)
        # Spread, or one node would read and write for all of them. No retries by Ray: they have no end, and wait for
        # the worker that is gone even where another one is idle.
        self._class = ray.remote(
            num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(ShardWorker)
        self._nodes: dict[Any, str] = {}
        """Worker -> name of its node, once it has started."""
        self._calls: dict[Any, tuple[Any, range | None]] = {}
        """Answer that will come -> worker, and the shard that it labels; None while it starts."""
        self._idle: list[Any] = []
        self._lost_by: Counter[range | None] = Counter()
        """Shard -> workers that died of it; None: of their start, one after the other."""

    def label(self, missing: Sequence[range], actors: int) -> Iterator[ShardStatistics]:
        """Yields the statistics of each shard once it is done.

        Raises:
            WorkerError: See `ray_runner`.
        """
        waiting, unfinished = deque(missing), len(missing)
        for _ in range(actors):
            self._hire()
        while unfinished:
            while self._idle and waiting:
                worker, rows = self._idle.pop(), waiting.popleft()
                self._calls[worker.label.remote(rows)] = worker, rows
            worker, given, answer = self._next_answer()
            if isinstance(answer, self._ray.exceptions.RayError):
                self._lose(worker, given, answer)
                if given is not None:
                    waiting.appendleft(given)
                continue
            self._idle.append(worker)
            if given is None:
                self._nodes[worker] = answer
                self._lost_by[None] = 0
            else:
                unfinished -= 1
                yield answer

    def _hire(self) -> None:
        worker = self._class.remote()
        self._calls[worker.start.remote(self._job)] = worker, None

    def _next_answer(self) -> tuple[Any, range | None, Any]:
        """Waits for an answer; returns its worker, its shard, and what it is: an error of Ray where there is none."""
        while not (ready := self._ray.wait(list(self._calls), timeout=WAITING_NOTE_S)[0]):
            if not self._nodes:
                _note_waiting(self._ray, self._gpus)
        worker, given = self._calls.pop(ready[0])
        try:
            return worker, given, self._ray.get(ready[0])
        except self._ray.exceptions.RayTaskError as error:
            raise _cause_of(error) from None
        except self._ray.exceptions.RayError as error:
            return worker, given, error

    def _lose(self, worker: Any, given: range | None, error: Exception) -> None:
        """Puts another worker in the place of one that is gone, or may be."""
        node = self._nodes.pop(worker, "some node")
        what = "its start" if given is None else f"shard {self._run.shard_of(given.start)}"
        self._lost_by[given] += 1
        if self._lost_by[given] == MAX_LOST:
            raise WorkerError(
                f"{MAX_LOST} workers died during {what}, the last one on {node} ({_one_line(error)}): "
                "perhaps for lack of memory; choose fewer --actors or a smaller --batch-size"
            )
        logger.warning("lost a worker on %s during %s: another one does it (%s)", node, what, _one_line(error))
        # If the node is gone, so are those there that are idle: each would lose the shard again, and at once.
        gone = [worker, *(one for one in self._idle if self._nodes.get(one) == node)]
        self._idle = [one for one in self._idle if one not in gone]
        for one in gone:
            self._nodes.pop(one, None)
            # One that only the network has lost must not go on and hold its CPU.
            self._ray.kill(one, no_restart=True)
            self._hire()


def _cause_of(error: Any) -> PrelabelError:
    """Returns what an error of Ray is about: the exception of our own code, where it is one."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, PrelabelError) else WorkerError(f"a worker failed: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _note_waiting(ray: Any, gpus: float) -> None:
    share = f" and {gpus:g} GPU" if gpus else ""
    total = ", ".join(f"{ray.cluster_resources().get(name, 0):g} {name}" for name in ("CPU", "GPU"))
    logger.warning("waiting for a node with 1 CPU%s free (the cluster has %s in all)", share, total)
