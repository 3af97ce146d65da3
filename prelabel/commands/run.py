"""`prelabel run`."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from prelabel.bulk import BulkConfig, BulkSummary, run_bulk, run_with
from prelabel.bundle import load_bundle
from prelabel.commands.exits import EXIT_ERROR_ROWS
from prelabel.connection import Connection
from prelabel.embedded import EmbeddedModel, load_predictor
from prelabel.engine_choice import allowed_ways, way_named
from prelabel.errors import InputError, ModelNotFoundError
from prelabel.label import Predictor
from prelabel.output import recorded_model, recorded_provider
from prelabel.progress import ProgressMode
from prelabel.ray_runner import ClusterOptions, ray_runner
from prelabel.ray_worker import ClusterModel
from prelabel.sources import Source, open_source

if TYPE_CHECKING:
    from prelabel.client import PrelabelClient

HELP = """Pre-labels every image of a folder, of Parquet, tar, npz or IDX files, or of a list, into Parquet files.

For example, through a server, without one, between object stores, and on all nodes of a Ray cluster:
    prelabel run --input photos --server 127.0.0.1:50051 --output predictions
    prelabel run --input photos --model runs/mnist/bundle --output predictions
    prelabel run --input 's3://pile/train-*.tar' --model runs/mnist/bundle --output s3://pile/predictions
    prelabel run --input /shared/photos --model /shared/bundle --output /shared/predictions --runner ray

The same command again does only what is missing, with --retry-errors also the files that hold error rows. Each image
becomes exactly one row; one that cannot be used becomes a row with an error.

A server's bearer token comes from the environment variable PRELABEL_TOKEN.

Exit status:
    0    every image has a prediction
    2    the run could not be done or finished
    3    finished, but some rows are errors: the summary says how many
    130  interrupted"""

CAUSES_SHOWN = 5
"""Causes of errors that are named at the end of a run."""


@dataclass(frozen=True)
class Run:
    """Options of `prelabel run`."""

    input: str
    """Images, as a path or URL (s3://, gs://): a folder, Parquet files or tar shards (one, a folder, or a pattern such
    as 'x/*.tar'), an IDX or npz file, or a .txt list of paths and URLs."""
    bulk: Annotated[BulkConfig, tyro.conf.arg(name="")]
    """How the job is done."""
    server: str | None = None
    """HOST:PORT of a running server, or of several with commas between; either this or --model."""
    connection: Annotated[Connection, tyro.conf.arg(name="")] = field(default_factory=Connection)
    """How the server is reached."""
    retry_for_s: float = 60.0
    """For how many seconds a server that is away or overloaded is tried again: enough for it to be started anew."""
    model: Path | None = None
    """Bundle to run in this process, without a server (needs the extra `cpu`, `openvino` or `gpu`)."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What runs --model: `cuda` and `cpu` are commands, `auto` takes CUDA where it works."""
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    """What computes on it: `auto` takes the faster one, timed at the start; a run that is taken up goes on in its own
    way."""
    precision: Literal["auto", "float32", "bfloat16", "int8", "float16"] = "auto"
    """Numbers inside the model: `auto` takes the fastest of those that the bundle allows."""
    threads: int = 0
    """Inferences of --model at the same time, each on one core; 0 uses all cores."""
    runner: Literal["local", "ray"] = "local"
    """Who does the work: this process, or workers on a Ray cluster, whose nodes all see input, model and output under
    the same paths (needs the extra `scale`)."""
    cluster: Annotated[ClusterOptions, tyro.conf.arg(name="")] = field(default_factory=ClusterOptions)
    """How the cluster is used."""
    progress: ProgressMode = "auto"
    """How progress is shown on the error stream: for people, as JSON lines, or not at all."""

    def __post_init__(self) -> None:
        for name in ("retry_for_s", "threads"):
            if not getattr(self, name) >= 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} is not usable: 0 or more is wanted")


def execute(options: Run) -> int:
    """Does `prelabel run`."""
    source = open_source(options.input)
    if options.runner == "ray":
        summary = _run_on_cluster(options, source)
    else:
        if options.cluster != ClusterOptions():
            raise InputError("--address, --actors and --num-gpus-per-actor are of --runner ray: give that, too")
        with open_predictor(options) as predictor:
            summary = run_bulk(options.bulk, source, options.input, predictor, progress=options.progress)
    print(_summary_text(summary, options.bulk.output))
    return EXIT_ERROR_ROWS if summary.errors else 0


def _run_on_cluster(options: Run, source: Source) -> BulkSummary:
    if options.model is None or options.server is not None:
        raise InputError("--runner ray runs the model in its workers: give --model BUNDLE and no --server")
    if options.threads > 1 or options.bulk.decode_processes:
        raise InputError(
            "--threads and --decode-processes are not of --runner ray: each worker has one CPU, choose --actors"
        )
    bundle = load_bundle(options.model)
    device = options.cluster.device(options.device)
    model = ClusterModel(options.model, device, options.runtime, options.precision)
    allowed_ways(bundle, device, options.runtime, options.precision)
    # This process loads no model: the head of a cluster often has no GPU. So it does not know what runs the model.
    about = EmbeddedModel(bundle.model_id, bundle.name, bundle.classes, bundle.input, execution_provider="")
    runner = ray_runner(options.cluster, model, options.bulk.output)
    return run_with(runner, options.bulk, source, options.input, about, progress=options.progress)


def open_predictor(options: Run) -> AbstractContextManager[Predictor]:
    """Returns the model of a run: a client of its server, or its bundle in this process.

    What is left at `auto` is as it was when the run was begun, so that all its rows are computed in the same way; of a
    server's models it is the one that began it.

    Raises:
        InputError: Both were given, or neither.
    """
    if (options.server is None) == (options.model is None):
        raise InputError("give either --server HOST:PORT or --model BUNDLE")
    if options.model is None:
        return _client(options)
    before = None
    if not options.bulk.overwrite:
        before = way_named(recorded_provider(options.bulk.output, load_bundle(options.model).model_id))
    return nullcontext(
        load_predictor(options.model, options.device, options.threads, options.runtime, options.precision, before)
    )


def _client(options: Run) -> "PrelabelClient":
    """Returns a client of the server, of the model that began the output where the server still has it."""
    from prelabel.client import PrelabelClient

    connection = options.connection

    def client(model_version: str) -> "PrelabelClient":
        return PrelabelClient(
            str(options.server),
            tls=connection.to_tls(),
            token_over_plaintext=connection.token_over_plaintext,
            retry_for_s=options.retry_for_s,
            model_version=model_version,
        )

    begun_by = "" if options.bulk.overwrite else recorded_model(options.bulk.output)
    if not begun_by:
        return client("")
    going_on = client(begun_by)
    try:
        going_on.model()
    except ModelNotFoundError:
        going_on.close()
        return client("")  # the run will say whose the output is
    except BaseException:
        going_on.close()
        raise
    return going_on


def _summary_text(summary: BulkSummary, output: str | Path) -> str:
    labels = "  ".join(f"{name} {number:,}" for name, number in summary.labels.items())
    causes = [f"    {number:,} x {cause}" for cause, number in summary.causes.items()]
    if len(causes) > CAUSES_SHOWN:
        causes[CAUSES_SHOWN:] = [f"    and {len(causes) - CAUSES_SHOWN} other causes: `prelabel info {output}`"]
    return "\n".join(
        [
            f"{summary.images:,} images in {output}, {summary.errors:,} of them with errors",
            *causes,
            f"this run: {summary.predicted:,} images in {summary.wall_s:.1f} s ({summary.images_per_s:,.0f} images/s), "
            f"{summary.shards_written} files written, {summary.shards_skipped} were there",
            f"model {summary.model_id}, input {summary.manifest_hash[:12]}",
            f"labels: {labels}",
        ]
    )
