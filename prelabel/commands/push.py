"""`prelabel push`."""

import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prelabel.adapters.label_studio.connection import LabelStudio
from prelabel.adapters.label_studio.project import Project
from prelabel.adapters.label_studio.push import PushSummary, push
from prelabel.adapters.rows import Conversion, Predictions, Selection
from prelabel.errors import InputError
from prelabel.output import read_run, unfinished_text
from prelabel.progress import ProgressMode
from prelabel.sources import FolderSource, open_source
from prelabel.storage import open_storage

HELP = """Brings predictions into an annotation tool, each exactly once.

For example:
    export LABEL_STUDIO_API_KEY=...
    prelabel push label-studio --predictions predictions --url http://localhost:8080 --project 7

Each image becomes a task with its prediction; probabilities, confidence, realness, lane and the image's id (uid) become
columns to filter and sort by. Tasks that are there get the prediction of a new model; what is there stays. So the same
command again does only what is missing.

Exit status:
    0    all is there
    2    the push could not be done or finished"""


@dataclass(frozen=True)
class Push:
    """Options of `prelabel push`."""

    tool: Annotated[Literal["label-studio"], tyro.conf.Positional]
    """The annotation tool."""
    predictions: Path
    """Output directory of `prelabel run` or `prelabel audit apply`."""
    label_studio: Annotated[LabelStudio, tyro.conf.arg(name="")]
    """The project."""
    image_url_prefix: str | None = None
    """What stands before an image's id to make its address, such as https://images.example.com/ or s3://bucket/photos/;
    by default /data/local-files/?d=FOLDER/ where FOLDER is the name of the folder that was pre-labelled, which Label
    Studio has to serve."""
    images: Path | None = None
    """Put the images into the tasks, for small ones (64 KiB) that lie in no files of their own (Parquet, IDX): the
    input of `prelabel run`. Instead of --image-url-prefix."""
    lane: Annotated[str, tyro.conf.arg(metavar="LANE,...")] = ""
    """Only these of the lanes accept, review and suspect that `prelabel audit apply` made."""
    errors: Literal["keep", "skip"] = "keep"
    """Rows with an error instead of a prediction become tasks without a prediction, with the reason in the column
    `error`; or they are left out."""
    chunk: int = 1000
    """Tasks in one request, at most: about two seconds of Label Studio's time. Servers that cannot take it get less;
    of predictions for tasks that are there, ten times as many go into one."""
    progress: ProgressMode = "auto"
    """How progress is shown on the error stream: for people, as JSON lines, or not at all."""

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise InputError(f"--chunk {self.chunk} is not usable: at least 1 is wanted")
        if self.images is not None and self.image_url_prefix is not None:
            raise InputError("give either --images or --image-url-prefix")


def execute(options: Push) -> int:
    """Does `prelabel push`."""
    prefix = None
    if options.images is None:
        prefix = options.image_url_prefix
        if prefix is None:
            prefix = _default_prefix(options.predictions)
    conversion = Conversion(
        Predictions(options.predictions),
        Selection(tuple(filter(None, options.lane.split(",")))),
        None if options.images is None else open_source(options.images),
        prefix,
    )
    project, interface = options.label_studio.open()
    summary = push(
        project,
        interface,
        conversion,
        error_rows=options.errors == "keep",
        chunk=options.chunk,
        progress_mode=options.progress,
    )
    print(_summary_text(summary, project, conversion))
    if unfinished := unfinished_text(options.predictions, conversion.predictions.rows_in_all):
        print(unfinished)
    return 0


def _summary_text(summary: PushSummary, project: Project, conversion: Conversion) -> str:
    tally, model_id = conversion.tally, conversion.predictions.info.model_id
    lines = [
        f"project {project.id} ({project.title}): {summary.tasks:,} tasks made, {summary.predictions:,} predictions "
        f"added to other tasks, {summary.there:,} images were there with all they have, "
        f"{tally.left_out + tally.skipped.total():,} left out"
    ]
    if tally.unlabelled:
        lines.append(
            f"{tally.unlabelled:,} tasks have no prediction, because their rows are errors: see the column `error`"
        )
    if project.shown_version not in ("", model_id):
        lines.append(
            f"annotators see the predictions of {project.shown_version}: choose {model_id} in the project's settings "
            "under Annotation, Prelabeling to change that"
        )
    return "\n".join(lines)


def _default_prefix(predictions: Path) -> str:
    run = read_run(open_storage(predictions))
    folder = None if run is None else Path(run.input)
    if folder is None or not folder.name or not folder.is_dir() or not isinstance(open_source(folder), FolderSource):
        raise InputError(
            f"where the images of {predictions} lie as files is not known: give --image-url-prefix, or --images to put "
            "small ones into the tasks"
        )
    return f"/data/local-files/?d={urllib.parse.quote(folder.name)}/"
