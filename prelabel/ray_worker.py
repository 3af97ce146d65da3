"""What runs on the nodes of a Ray cluster: workers that hold a loaded model and call the shard function.

Nothing here imports Ray. A worker opens input, output and model by itself and refuses to work where they are not those
of the run: a folder that a node does not share would otherwise become a million error rows.
"""

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prelabel import __version__
from prelabel.embedded import EmbeddedPredictor, load_predictor
from prelabel.engine import Device, PrecisionChoice, RuntimeChoice
from prelabel.engine_choice import way_of
from prelabel.errors import InputError, PrelabelError, WorkerError
from prelabel.label import Work, label_shard
from prelabel.output import read_run
from prelabel.shards import Run, ShardStatistics
from prelabel.sources import open_source
from prelabel.storage import open_storage


@dataclass(frozen=True)
class ClusterModel:
    """The bundle that every worker loads, and how it is run."""

    bundle: Path
    """Its directory."""
    device: Device
    """What runs it."""
    runtime: RuntimeChoice
    """What computes on that device."""
    precision: PrecisionChoice
    """Numbers inside the model."""

    @property
    def settled(self) -> bool:
        """False where `auto` might choose differently on another node."""
        return "auto" not in (self.device, self.runtime, self.precision)


@dataclass(frozen=True)
class Job:
    """All that a worker has to know of a run."""

    run: Run
    """What the output belongs to; its input is opened as it was given, so the paths in the rows are a local run's."""
    output: str | Path
    """The output as it was given."""
    model: ClusterModel
    """The model."""
    batch_size: int
    """Images per inference."""
    decode_threads: int
    """Threads of one worker that decode."""
    directory: str | None
    """Working directory of the driver, which relative paths start from; None where there are none."""


def settle(job: Job) -> Job:
    """Replaces `auto` by what is fastest on this node, so that all workers compute the same way.

    Raises:
        WorkerError: The model cannot be loaded on this node.
    """
    with _named("choosing how to run the model"):
        _enter(job)
        way = way_of(_load(job.model).engine)
    return dataclasses.replace(job, model=ClusterModel(job.model.bundle, way.device, way.runtime, way.precision))


class ShardWorker:
    """An actor with one loaded model on one CPU; it labels one shard at a time."""

    def start(self, job: Job) -> str:
        """Opens everything, checks that it is what the driver has, and returns the name of this node.

        Raises:
            WorkerError: It is not, or cannot be opened.
        """
        with _named("a worker"):
            self._work, self._predictor = _open(job)
        return socket.gethostname()

    def label(self, rows: range) -> ShardStatistics:
        """Labels the shard at these positions and writes its files; see `prelabel.label.label_shard`.

        Raises:
            WorkerError: It cannot be labelled or written.
        """
        shard = self._work.run.shard_of(rows.start)
        with _named(f"shard {shard} (images {rows.start:,} to {rows.stop - 1:,})"):
            return label_shard(self._work, rows, self._predictor)


def _open(job: Job) -> tuple[Work, EmbeddedPredictor]:
    run = job.run
    if run.version != __version__:
        raise InputError(f"prelabel is {__version__} there and {run.version} at the driver: install one everywhere")
    _enter(job)
    output = open_storage(job.output)
    known = read_run(output)
    if known is None or (known.key, known.shard_size) != (run.key, run.shard_size):
        raise InputError(f"{output.shown()} is not the output of this run there: all nodes have to share one")
    source = open_source(run.input)
    if source.manifest_hash != run.manifest_hash:
        raise InputError(
            f"{run.input} is other input there ({len(source):,} images, manifest {source.manifest_hash[:12]}) than at "
            f"the driver ({run.images:,} images, manifest {run.manifest_hash[:12]}): all nodes have to share one"
        )
    predictor = _load(job.model)
    if (found := predictor.model().model_id) != run.model_id:
        raise InputError(
            f"{job.model.bundle} is model {found} there and {run.model_id} at the driver: all nodes have to share one"
        )
    return Work(source, run, output, job.batch_size, 1, job.decode_threads, 0), predictor


def _enter(job: Job) -> None:
    if job.directory is None:
        return
    try:
        os.chdir(job.directory)
    except OSError as error:
        raise InputError(
            f"relative paths start from {job.directory}, which is not there ({error.strerror}): "
            "share it among all nodes, or give absolute paths"
        ) from None


def _load(model: ClusterModel) -> EmbeddedPredictor:
    # One inference at a time: a worker has one CPU, and a GPU is filled by several workers that share it.
    return load_predictor(model.bundle, model.device, 1, model.runtime, model.precision)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Turns every exception into one that says what it happened to, on which node, and can be pickled."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        cause = text if isinstance(error, PrelabelError) else f"{type(error).__name__}: {text}"
        raise WorkerError(f"{what} on node {socket.gethostname()}: {cause}") from error
