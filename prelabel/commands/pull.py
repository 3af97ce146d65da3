"""`prelabel pull`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prelabel.adapters.label_studio.connection import LabelStudio
from prelabel.adapters.label_studio.pull import ANSWERS_FILE, Answers, collect, parse_since, write_answers
from prelabel.errors import InputError
from prelabel.files import new_directory
from prelabel.sources import open_source
from prelabel.training_data import Written, no_class_answers, notes, open_labelled, write_training

HELP = """Takes people's answers out of an annotation tool, as CSV and as training data for the next round.

For example, answers only; and with the images, so that training takes the folder:
    export LABEL_STUDIO_API_KEY=...
    prelabel pull label-studio --url http://localhost:8080 --project 7 --output round2
    prelabel pull label-studio --url http://localhost:8080 --project 7 --output round2 --images photos --labelled data
    python -m training --data round2 --output runs/round2

The folder gets answers.csv (id, answer; what `prelabel audit apply --answers` reads) and, with --images,
train-*.parquet (id, image, label): images that people named are labelled, the others are the unlabelled pile.

With several annotators the most frequent answer counts, and a tie is no answer; skipped tasks have none.

Exit status:
    0    written
    2    nothing was written"""


@dataclass(frozen=True)
class Pull:
    """Options of `prelabel pull`."""

    tool: Annotated[Literal["label-studio"], tyro.conf.Positional]
    """The annotation tool."""
    label_studio: Annotated[LabelStudio, tyro.conf.arg(name="")]
    """The project."""
    output: Path
    """The folder, which must not exist."""
    images: Path | None = None
    """The images, as they were given to `prelabel run`, to write training data."""
    labelled: Path | None = None
    """Images with labels from before, which go into the training data, too: labelled/<class>/ of a training folder, or
    Parquet with a column `label`."""
    only_labelled: bool = False
    """Leave images without a label out of the training data; training then has no pile beyond the labelled images."""
    no_class: Annotated[str, tyro.conf.arg(metavar="CHOICE,...")] = "none,none of these"
    """Choices that say that an image is of no class, and always `none of these`: they stand in answers.csv, and make no
    label."""
    since: str = ""
    """Only tasks that changed after this time, such as 2026-11-25 or 2026-11-25T08:00:00+01:00 (UTC where none is
    said)."""

    def __post_init__(self) -> None:
        if self.images is None and (self.labelled is not None or self.only_labelled):
            raise InputError("--labelled and --only-labelled are for training data: give --images, too")


def execute(options: Pull) -> int:
    """Does `prelabel pull`."""
    since = parse_since(options.since)
    if options.output.exists():
        raise InputError(f"--output {options.output} is there already: name a new folder")
    images = None if options.images is None else open_source(options.images)
    labelled = None if options.labelled is None else open_labelled(options.labelled)
    project, interface = options.label_studio.open()
    answers = collect(project, interface, since)
    if not answers.choice:
        raise InputError(
            f"project {project.id} ({project.title}) has no answers yet{' since then' if since else ''}: "
            f"{_outcomes_text(answers) or 'no task that prelabel pushed is annotated'}"
        )
    written = None
    with new_directory(options.output) as folder:
        write_answers(folder / ANSWERS_FILE, answers)
        if images is not None:
            no_class = no_class_answers(options.no_class)
            written = write_training(folder, answers.choice, images, labelled, no_class, options.only_labelled)
    print(
        f"{len(answers.choice):,} answers of project {project.id} ({project.title}) in {options.output / ANSWERS_FILE}"
    )
    if text := _outcomes_text(answers):
        print(text)
    if written is not None:
        print(_written_text(written, options.output))
    return 0


def _outcomes_text(answers: Answers) -> str:
    parts = [
        f"{count:,} tasks with {what}"
        for what, count in answers.outcomes.items()
        if what not in ("answered", "skipped")
    ]
    parts += [f"{answers.skipped:,} skipped"] if answers.skipped else []
    parts += [f"{answers.foreign:,} without uid, which prelabel did not push"] if answers.foreign else []
    return f"not counted: {', '.join(parts)}" if parts else ""


def _written_text(written: Written, folder: Path) -> str:
    labels = "  ".join(f"{name} {count:,}" for name, count in sorted(written.labels.items()))
    lines = [f"{written.images:,} images in {folder}/train-*.parquet, {written.labels.total():,} labelled: {labels}"]
    lines += notes(written)
    if written.missing:
        lines.append(
            f"{len(written.missing):,} answers are about images that --images does not hold, for example "
            f"{written.missing[0]!r}"
        )
    return "\n".join(lines)
