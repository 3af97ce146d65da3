"""The command line: `prelabel run`, `prelabel info`, `prelabel sheet`."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prelabel import __version__
from prelabel.bulk import BulkConfig, BulkSummary, Predictor, run_bulk
from prelabel.connection import Connection
from prelabel.contact_sheet import sheet_of_predictions
from prelabel.describe import describe, to_text
from prelabel.errors import InputError, PrelabelError
from prelabel.progress import ProgressMode
from prelabel.sources import open_source

DESCRIPTION = (
    "Turns a few labelled images and a large unlabelled pile into pre-labels that people only have to confirm."
)
RUN_HELP = """Pre-labels every image of a folder, a Parquet file or an IDX file into Parquet files.

For example, through a server, and without one:
    prelabel run --input photos --server 127.0.0.1:50051 --output predictions
    prelabel run --input photos --model runs/mnist/bundle --output predictions

The same command again does only what is missing. Each image becomes exactly one row; one that cannot be used becomes a
row with an error.

A server's bearer token comes from the environment variable PRELABEL_TOKEN.

Exit status:
    0    every image has a prediction
    2    the run could not be done or finished
    3    finished, but some rows are errors: the summary says how many
    130  interrupted"""
INFO_HELP = """Says what a model bundle, a directory of predictions or a server is.

For example:
    prelabel info runs/mnist/bundle
    prelabel info predictions --json
    prelabel info 127.0.0.1:50051

A server's bearer token comes from the environment variable PRELABEL_TOKEN."""
SHEET_HELP = """Draws predictions as one picture: per class the most certain, the least certain, the least real images.

For example:
    prelabel sheet --predictions predictions --input photos --output sheet.png"""
EPILOG = "`prelabel --version` prints the version. `prelabel COMMAND --help` says more."

EXIT_ERROR, EXIT_ERROR_ROWS, EXIT_INTERRUPTED = 2, 3, 130


@dataclass(frozen=True)
class Run:
    """Options of `prelabel run`."""

    input: Path
    """Folder of images, Parquet file (or folder of them), or IDX image file."""
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
    """What computes on it: `auto` times both at the start and takes the faster one."""
    precision: Literal["auto", "float32", "bfloat16", "int8", "float16"] = "auto"
    """Numbers inside the model: `auto` takes the fastest of those that the bundle allows."""
    threads: int = 0
    """Inferences of --model at the same time, each on one core; 0 uses all cores."""
    progress: ProgressMode = "auto"
    """How progress is shown on the error stream: for people, as JSON lines, or not at all."""


@dataclass(frozen=True)
class Info:
    """Options of `prelabel info`."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|HOST:PORT")]
    """A bundle, a directory of predictions, or HOST:PORT of a server."""
    json: bool = False
    """Print one JSON object."""
    connection: Annotated[Connection, tyro.conf.arg(name="")] = field(default_factory=Connection)
    """How the server is reached."""


@dataclass(frozen=True)
class Sheet:
    """Options of `prelabel sheet`."""

    predictions: Path
    """Output directory of `prelabel run`."""
    input: Path
    """The images, as they were given to `prelabel run`."""
    output: Path
    """The PNG file."""


Command = (
    Annotated[Run, tyro.conf.subcommand("run", description=RUN_HELP)]
    | Annotated[Info, tyro.conf.subcommand("info", description=INFO_HELP)]
    | Annotated[Sheet, tyro.conf.subcommand("sheet", description=SHEET_HELP)]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"prelabel {__version__}")
        return 0
    # gRPC's C core would repeat every failed try on stderr in its own words. It reads this when it is imported, later.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Pillow warns about small faults of images that it decodes all the same; those that it cannot become error rows.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        command = tyro.cli(
            Command,
            prog="prelabel",
            description=f"{DESCRIPTION}\n\n{EPILOG}",
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        match command:
            case Run():
                return run(command)
            case Info():
                return info(command)
            case Sheet():
                return sheet(command)
    except PrelabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted; finished files are kept, and the same command again goes on behind them", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:  # a full disk, a directory without permission: the user's to mend, no bug of ours
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR


def run(options: Run) -> int:
    """Does `prelabel run`."""
    source = open_source(options.input)
    with _predictor(options) as predictor:
        summary = run_bulk(options.bulk, source, str(options.input), predictor, progress=options.progress)
    print(_summary_text(summary, options.bulk.output))
    return EXIT_ERROR_ROWS if summary.errors else 0


def info(options: Info) -> int:
    """Does `prelabel info`."""
    fields = describe(options.what, partial(_model_of_server, options.connection))
    print(json.dumps(fields, indent=2) if options.json else to_text(fields))
    return 0


def sheet(options: Sheet) -> int:
    """Does `prelabel sheet`."""
    if not options.output.parent.is_dir():
        raise InputError(f"--output {options.output}: there is no folder {options.output.parent}")
    sheet_of_predictions(options.output, options.predictions, open_source(options.input))
    print(options.output)
    return 0


def _predictor(options: Run) -> AbstractContextManager[Predictor]:
    if (options.server is None) == (options.model is None):
        raise InputError("give either --server HOST:PORT or --model BUNDLE")
    if options.model is None:
        from prelabel.client import PrelabelClient

        connection = options.connection
        return PrelabelClient(
            str(options.server),
            tls=connection.to_tls(),
            token_over_plaintext=connection.token_over_plaintext,
            retry_for_s=options.retry_for_s,
        )
    from prelabel.embedded import load_predictor

    return nullcontext(
        load_predictor(options.model, options.device, options.threads, options.runtime, options.precision)
    )


def _model_of_server(connection: Connection, address: str) -> object:
    from prelabel.client import PrelabelClient

    # A person waits for this answer.
    over_plaintext = connection.token_over_plaintext
    with PrelabelClient(
        address, tls=connection.to_tls(), token_over_plaintext=over_plaintext, retry_for_s=5.0
    ) as client:
        return client.model()


def _summary_text(summary: BulkSummary, output: Path) -> str:
    labels = "  ".join(f"{name} {number:,}" for name, number in summary.labels.items())
    return "\n".join(
        [
            f"{summary.images:,} images in {output}, {summary.errors:,} of them with errors",
            f"this run: {summary.predicted:,} images in {summary.wall_s:.1f} s ({summary.images_per_s:,.0f} images/s), "
            f"{summary.shards_written} files written, {summary.shards_skipped} were there",
            f"model {summary.model_id}, input {summary.manifest_hash[:12]}",
            f"labels: {labels}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
