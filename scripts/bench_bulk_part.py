"""One measurement of `make bench-bulk`, in a process of its own: prints one JSON object."""

import contextlib
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from prelabel.bulk import BulkConfig, Runner, run_bulk, run_with
from prelabel.client import PrelabelClient
from prelabel.embedded import EmbeddedPredictor, load_predictor
from prelabel.engine_choice import way_of
from prelabel.images import Pixels
from prelabel.label import Predictor, Work, decoded, label_shards
from prelabel.predictions import Model
from prelabel.ray_runner import ClusterOptions, ray_runner
from prelabel.ray_worker import ClusterModel
from prelabel.shards import Run, ShardStatistics
from prelabel.sources import Source, open_source
from prelabel.storage_local import LocalStorage
from prelabel.table import require_pyarrow

Kind = Literal["decode", "infer", "run", "shards"]


@dataclass(frozen=True)
class Options:
    """Measures one thing and prints it."""

    kind: Kind
    """`decode`: reading and decoding alone; `infer`: the model alone; `run`: end to end; `shards`: that from the first
    finished shard to the last, thus without starting anything."""
    input: Path
    """The images."""
    model: Path
    """The bundle, to run in this process unless `server` is given."""
    server: str | None = None
    """HOST:PORT of a server."""
    images: int = 1_000_000_000
    """At most so many images."""
    shard_size: int = 4096
    """Images per file."""
    actors: int = 0
    """With `shards`: workers on a Ray cluster that is started here for them; 0: this process does the work."""


def main() -> None:
    """Measures, and prints images, seconds, images/s and the largest resident memory."""
    options = tyro.cli(Options, prog="python -m scripts.bench_bulk_part")
    with predictor_of(options) as predictor, tempfile.TemporaryDirectory(dir=options.input.parent) as folder:
        require_pyarrow()  # importing it is not part of the work
        source = open_source(options.input)
        images = min(options.images, len(source))
        config = BulkConfig(Path(folder) / "out", limit=images, shard_size=options.shard_size)
        measure: Callable[[], Any]
        more: dict[str, Any] = {}
        if options.kind == "run":
            summary = run_bulk(config, source, "bench", predictor, progress="none")
            assert (summary.images, summary.errors) == (images, 0)
            seconds = summary.wall_s
            more["files_bytes"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            more["shards"] = summary.shards_written
        elif options.kind == "shards":
            marks: list[tuple[float, ShardStatistics]] = []
            with runner_of(options, config, predictor) as runner:
                started = time.perf_counter()
                run_with(marked(runner, marks), config, source, str(options.input), predictor.model(), progress="none")
            images = sum(statistics.counts.rows for _, statistics in marks[1:])
            seconds = marks[-1][0] - marks[0][0]
            more = {"shards": len(marks) - 1, "first_shard_s": marks[0][0] - started}
        else:
            batches = stream(config, source, predictor.model(), images)
            if options.kind == "decode":
                measure = lambda: sum(map(len, batches))  # noqa: E731
            else:
                some = list(itertools.islice(batches, 16))
                batches.close()
                repeated = cut_off(itertools.cycle(some), images)
                measure = lambda: sum(map(len, predictor.predict_stream(repeated, window=config.window)))  # noqa: E731
            started = time.perf_counter()
            assert measure() >= images
            seconds = time.perf_counter() - started
    usage = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {"images": images, "seconds": seconds, "images_per_s": images / seconds, "largest_bytes": usage[0]}
    print(json.dumps(found | {"largest_child_bytes": usage[1], "pid": os.getpid()} | more))


def predictor_of(options: Options) -> AbstractContextManager[Predictor]:
    """Returns the server, or the engine in this process."""
    if options.server is not None:
        return PrelabelClient(options.server)
    return contextlib.nullcontext(load_predictor(options.model, "cpu", 0))


@contextlib.contextmanager
def runner_of(options: Options, config: BulkConfig, predictor: Predictor) -> Iterator[Runner]:
    """Yields who makes the shards; a cluster has a logical CPU for each worker, whatever the machine has."""
    if not options.actors:
        yield lambda work, missing, advance: label_shards(work, missing, predictor, advance)
        return
    import ray

    assert isinstance(predictor, EmbeddedPredictor)
    way = way_of(predictor.engine)
    model = ClusterModel(options.model, way.device, way.runtime, way.precision)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with contextlib.redirect_stdout(sys.stderr):
        ray.init("local", num_cpus=options.actors, include_dashboard=False, log_to_driver=False)
        yield ray_runner(ClusterOptions(actors=options.actors), model, config.output)
        ray.shutdown()


def marked(runner: Runner, marks: list[tuple[float, ShardStatistics]]) -> Runner:
    """Notes when each shard was finished."""

    def run(work: Work, missing: Sequence[range], advance: Callable[[int], None]) -> Iterator[ShardStatistics]:
        for statistics in runner(work, missing, advance):
            marks.append((time.perf_counter(), statistics))
            yield statistics

    return run


def stream(config: BulkConfig, source: Source, model: Model, images: int) -> Any:
    """Yields the decoded batches of a run, as the run itself decodes them."""
    run = Run("bench", "hash", len(source), model.model_id, model.classes, config.shard_size)
    output = LocalStorage(Path(config.output))
    processes = config.processes_for(source, images)
    work = Work(source, run, output, config.batch_size, config.window, config.decode_threads, processes)
    with contextlib.closing(decoded(work, run.missing(images, frozenset()), model)) as batches:
        for one in batches:
            yield one.pixels


def cut_off(batches: Iterator[Pixels], images: int) -> Iterator[Pixels]:
    """Yields batches until they hold `images`."""
    while images > 0:
        batch = next(batches)
        images -= len(batch)
        yield batch


if __name__ == "__main__":
    main()
