"""`prelabel labels`."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from prelabel.audit.answers import given_answers, some
from prelabel.audit.plan import PLAN_FILE
from prelabel.audit.tasks import NONE_OF_THESE
from prelabel.errors import InputError
from prelabel.files import new_directory
from prelabel.selection.selection import SELECTION_FILE
from prelabel.sources import IdxSource, NpzSource, ParquetSource, Source, open_source
from prelabel.spreadsheets import with_lost_zeros
from prelabel.training_data import no_class_answers, notes, open_labelled, write_training

logger = logging.getLogger(__name__)

HELP = """Makes training data of people's answers and the images that they are about.

For example:
    prelabel labels --answers first/tasks.csv next/tasks.csv --input photos --output round2
    make train NAME=round2 DATA=round2 LABELS=

The output gets train-*.parquet (id, image, label): images with an answer are labelled, all others are the unlabelled
pile. Labels that the input brings along are not used. A task without an answer, or with `none of these`, is
unlabelled."""


@dataclass(frozen=True)
class Labels:
    """Options of `prelabel labels`."""

    answers: tuple[Path, ...]
    """Filled-in tasks.csv files (columns `id` and `answer`), or Label Studio's exports in its format JSON (.json)."""
    input: str
    """The images, as they were given to `prelabel select` or `prelabel run`."""
    output: Path
    """New directory for the training data."""
    labelled: Path | None = None
    """Images with labels from before: a folder with labelled/<class>/, or Parquet with a column `label`."""
    only_labelled: bool = False
    """Leave images without a label out; training then has no pile beyond the labelled images."""
    no_class: Annotated[str, tyro.conf.arg(metavar="ANSWER,...")] = NONE_OF_THESE
    """Answers that say that an image is of no class, beside `none of these`: they make no label."""


def execute(options: Labels) -> int:
    """Does `prelabel labels`."""
    source = open_source(options.input)
    answers = _merged(options.answers, source)
    if not answers:
        raise InputError(f"{' '.join(map(str, options.answers))}: the column `answer` is empty; fill it in first")
    labelled = None if options.labelled is None else open_labelled(options.labelled)
    with new_directory(options.output) as folder:
        no_class = no_class_answers(options.no_class)
        written = write_training(folder, answers, source, labelled, no_class, options.only_labelled)
        if written.missing:
            raise InputError(
                f"{options.input} does not hold images that the answers are about: {some(written.missing)}"
            )
        if not written.labels:
            why = "no answer names a class"
            if written.unreadable:
                why = f"the images with an answer cannot be read ({some(written.unreadable)})"
            raise InputError(f"{why}: there is nothing to learn from")
    labels = "  ".join(f"{name} {count:,}" for name, count in sorted(written.labels.items()))
    print(f"{written.images:,} images in {options.output}, {written.labels.total():,} labelled: {labels}")
    for note in notes(written):
        print(note)
    return 0


def _check_input(answers: Path, source: Source) -> None:
    """Compares the input with that which `prelabel select` or `prelabel audit draw` noted beside the answers.

    A folder may have got more images since; numbers of images mean others in another file.
    """
    for name in (SELECTION_FILE, PLAN_FILE):
        try:
            noted = json.loads((answers.parent / name).read_text())["manifest_hash"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if noted == source.manifest_hash:
            continue
        what = f"{answers} is about another input (manifest {noted[:12]}) than --input ({source.manifest_hash[:12]})"
        if isinstance(source, IdxSource | NpzSource) or (isinstance(source, ParquetSource) and source.ids_are_numbers):
            raise InputError(f"{what}, and its ids are numbers of images there: give that input")
        logger.warning("%s: its answers go to the images of the same names", what)


def _merged(files: Sequence[Path], source: Source) -> dict[str, str]:
    for path in files:
        _check_input(path, source)
    given = [(path, given_answers(path, known=())) for path in files]
    known: set[str] = set()
    if any(identity.isdecimal() for _, answers in given for identity in answers):
        known = {sample.id for sample in source.read(0, len(source))}
    merged: dict[str, str] = {}
    for path, answers in given:
        for identity, answer in zip(with_lost_zeros(list(answers), known), answers.values(), strict=True):
            if merged.setdefault(identity, answer) != answer:
                raise InputError(
                    f"{path} calls {identity} {answer!r}, and a file before it {merged[identity]!r}: leave one answer"
                )
    return merged
