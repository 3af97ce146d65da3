"""`prelabel plan`."""

import json
import shlex
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prelabel.bulk import BulkConfig
from prelabel.commands.run import Run, open_predictor
from prelabel.connection import Connection
from prelabel.embedded import EmbeddedPredictor
from prelabel.engine import on_gpu
from prelabel.engine_base import usable_cores
from prelabel.errors import InputError
from prelabel.label import Predictor
from prelabel.planning.plan import (
    COUNT_ALL_IMAGES,
    OutputFacts,
    count_duplicates,
    model_facts,
    output_facts,
    time_needed,
)
from prelabel.planning.plan import Plan as Facts
from prelabel.planning.sample import look_at
from prelabel.planning.speed import measure
from prelabel.planning.text import to_text
from prelabel.progress import Progress, ProgressMode
from prelabel.sources import open_source

HELP = """Says what `prelabel run` would find, write and take, without running it.

For example:
    prelabel plan --input photos
    prelabel plan --input photos --model runs/mnist/bundle --output predictions

It looks at a random sample (sizes, unreadable images), counts duplicates, times decoding and the model on a stretch of
the input, and finds what is done already in the output directory. It writes nothing.

A server's bearer token comes from the environment variable PRELABEL_TOKEN."""


@dataclass(frozen=True)
class Plan:
    """Options of `prelabel plan`."""

    input: str
    """The images, a path or URL as for `prelabel run`."""
    output: str | None = None
    """Directory of the predictions, a path or URL, as for `prelabel run`; it may not exist yet."""
    server: str | None = None
    """HOST:PORT of a running server to time, or of several with commas between; this, --model, or neither."""
    connection: Annotated[Connection, tyro.conf.arg(name="")] = field(default_factory=Connection)
    """How the server is reached."""
    model: Path | None = None
    """Bundle to time in this process (needs the extra `cpu`, `openvino` or `gpu`)."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What runs --model."""
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    """What computes on it."""
    precision: Literal["auto", "float32", "bfloat16", "int8", "float16"] = "auto"
    """Numbers inside the model."""
    threads: int = 0
    """Inferences of --model at the same time, each on one core; 0 uses all cores."""
    shard_size: int = BulkConfig.shard_size
    """Images per Parquet file."""
    sample: int = 1000
    """Images that are looked at. Where none of 1,000 is unreadable, fewer than 0.4 % of all are."""
    seed: int = 0
    """Decides which images are looked at."""
    duplicates: Literal["auto", "all", "sample", "none"] = "auto"
    """Where duplicates are counted: `auto` takes all images up to 100,000 and a sample of 20,000 beyond."""
    json: bool = False
    """Print one JSON object."""
    progress: ProgressMode = "auto"
    """How progress is shown on the error stream: for people, as JSON lines, or not at all."""

    def __post_init__(self) -> None:
        for name in ("shard_size", "sample"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} is not usable: 1 or more is wanted")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} {getattr(self, name)} is not usable: 0 or more is wanted")
        if self.server is not None and self.model is not None:
            raise InputError("give --server HOST:PORT or --model BUNDLE, not both")


def execute(options: Plan) -> int:
    """Does `prelabel plan`."""
    source = open_source(options.input)
    cores = usable_cores()
    with Progress(min(options.sample, len(source)), "images", "looking at a sample", mode=options.progress) as report:
        sample = look_at(source, options.sample, options.seed, cores, report)
    duplicates = None
    if options.duplicates != "none":
        everywhere = options.duplicates == "all" or (options.duplicates == "auto" and len(source) <= COUNT_ALL_IMAGES)
        duplicates = count_duplicates(
            source, all_images=everywhere, seed=options.seed, threads=cores, mode=options.progress
        )
    with open_predictor(_run_of(options)) if _has_model(options) else nullcontext() as predictor:
        speed = measure(
            source,
            predictor,
            seed=options.seed,
            threads=cores,
            batch_size=BulkConfig.batch_size,
            shares_cores=_shares_cores(predictor),
        )
        model = None if predictor is None else predictor.model()
    output = None
    if options.output is not None:
        output = output_facts(options.output, source, options.input, model, options.shard_size, speed.row_bytes)
    facts = Facts(
        input=options.input,
        kind=type(source).__name__.removesuffix("Source").lower(),
        images=len(source),
        bytes_estimated=round(sample.bytes_per_image * len(source)),
        sample=sample,
        duplicates=duplicates,
        model=None if model is None else model_facts(model, sample),
        output=output,
        speed=speed,
        time=time_needed(speed, len(source) if output is None else output.images_to_do, cores),
        next_command=next_command(options, output),
    )
    print(json.dumps(asdict(facts), indent=2) if options.json else to_text(facts))
    return 0


def _has_model(options: Plan) -> bool:
    return options.server is not None or options.model is not None


def _run_of(options: Plan) -> Run:
    """Returns the run that is planned, for how it reaches its model."""
    return Run(
        input=options.input,
        # Without a named output there is no run that this one would take up.
        bulk=BulkConfig(
            options.output or "predictions", shard_size=options.shard_size, overwrite=options.output is None
        ),
        server=options.server,
        connection=options.connection,
        retry_for_s=5.0,  # a person waits for this answer
        model=options.model,
        device=options.device,
        runtime=options.runtime,
        precision=options.precision,
        threads=options.threads,
    )


def _shares_cores(predictor: Predictor | None) -> bool:
    return isinstance(predictor, EmbeddedPredictor) and not on_gpu(predictor.engine)


def next_command(options: Plan, output: OutputFacts | None) -> str:
    """Returns the command that does what was planned, with every option that was given and that it knows."""
    if output is not None and output.images_to_do == 0:
        return shlex.join(["prelabel", "info", output.path])
    words = ["prelabel", "run", "--input", options.input]
    if options.server is not None:
        words += ["--server", options.server, *_given(options.connection)]
    else:
        words += ["--model", str(options.model) if options.model is not None else "BUNDLE"]
    there = None if output is None else output.shard_size_there
    refused = output is not None and output.obstacle is not None and there is None
    words += ["--output", "ANOTHER_DIRECTORY" if refused else options.output or "predictions"]
    if (shard_size := there or options.shard_size) != BulkConfig.shard_size:
        words += ["--shard-size", str(shard_size)]
    for name in ("device", "runtime", "precision"):
        if options.model is not None and getattr(options, name) != "auto":
            words += [f"--{name}", getattr(options, name)]
    if options.model is not None and options.threads:
        words += ["--threads", str(options.threads)]
    return shlex.join(words)


def _given(connection: Connection) -> list[str]:
    """Returns the options that make a connection."""
    words = []
    for option in fields(connection):
        value = getattr(connection, option.name)
        if value != option.default:
            words += [f"--{option.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words
