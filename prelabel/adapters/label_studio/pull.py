"""People's answers in a project -> answers as CSV, and training data for the next round."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from prelabel.adapters.label_studio.answers import decide
from prelabel.adapters.label_studio.interface import Interface
from prelabel.adapters.label_studio.payload import UID_KEY
from prelabel.adapters.label_studio.project import Project, condition, count_tasks, list_tasks
from prelabel.adapters.pictures import image_file
from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from prelabel.sources import FolderSource, Sample, Source, open_source
from prelabel.table import require_pyarrow, write_shard

ANSWERS_FILE = "answers.csv"
FILE_IMAGES = 4096
"""Images in one Parquet file, and in memory."""
FIELDS = ("data", "updated_at", "annotations", "result", "was_cancelled", "completed_by", "ground_truth")
"""What is wanted of tasks and of their annotations."""
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass
class Answers:
    """What people said."""

    choice: dict[str, str] = field(default_factory=dict)
    """Id of an image -> what was chosen."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How it went with the annotated tasks -> tasks; see `decide`."""
    foreign: int = 0
    """Annotated tasks that `prelabel push` did not make."""
    skipped: int = 0
    """Tasks that at least one annotator skipped."""


def parse_since(text: str) -> datetime | None:
    """Returns the time that `--since` names, in UTC; None where it is empty.

    Raises:
        InputError: It is no time of ISO 8601.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--since {text!r} is no time: wanted is, for example, 2026-11-25 or 2026-11-25T08:00:00+01:00"
        ) from None
    return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)


def collect(project: Project, interface: Interface, since: datetime | None) -> Answers:
    """Reads the answers of a project, page by page.

    Args:
        project: The project.
        interface: What it asks.
        since: Only tasks that changed later.

    Raises:
        InputError: Two tasks of the same image have different answers.
        RemoteError: As `list_tasks`; so are the others.
    """
    answers = Answers()
    changed = [] if since is None else [condition("updated_at", "greater", "Datetime", since.strftime(TIME_FORMAT))]
    annotated = condition("total_annotations", "greater", "Number", 0)
    for task in list_tasks(project, FIELDS, [annotated, *changed]):
        uid = task["data"].get(UID_KEY)
        if not isinstance(uid, str):
            answers.foreign += 1
            continue
        choice, outcome = decide(task["annotations"], interface)
        answers.outcomes[outcome] += 1
        if choice is not None and answers.choice.setdefault(uid, choice) != choice:
            raise InputError(
                f"two tasks of image {uid!r} have different answers ({answers.choice[uid]!r}, and {choice!r} in task "
                f"{task['id']}): delete one of them"
            )
    answers.skipped = count_tasks(project, [condition("cancelled_annotations", "greater", "Number", 0), *changed])
    return answers


def write_answers(path: Path, answers: Answers) -> None:
    """Writes the answers as CSV with the columns `id` and `answer`, for `prelabel audit apply --answers`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "answer"])
    writer.writerows(answers.choice.items())
    write_text_atomically(path, text.getvalue())


@dataclass
class Written:
    """What went into the training data."""

    images: int = 0
    """Images, labelled or not."""
    labels: Counter[str] = field(default_factory=Counter)
    """Class -> images."""
    missing: list[str] = field(default_factory=list)
    """Ids with an answer of which there is no image."""


def write_training(
    folder: Path,
    answers: Answers,
    images: Source,
    labelled: Source | None,
    no_class: Collection[str],
    only_labelled: bool,
) -> Written:
    """Writes Parquet files that `python -m training --data` takes: `id`, `image`, `label` (null where unknown).

    Labels that the images bring along are not used, for they may be what nobody should see yet.

    Args:
        folder: An empty folder.
        answers: What people said.
        images: All images, as they were pre-labelled.
        labelled: Images with labels from before.
        no_class: Choices that mean that an image is of no class; it stays in the pile.
        only_labelled: Leave images without a label out.

    Raises:
        InputError: The images cannot be read any more, or none is left.
    """
    pa = require_pyarrow()
    written, open_ids = Written(), dict.fromkeys(answers.choice)
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.string())])

    def rows() -> Iterator[dict[str, Any]]:
        for sample in images.read(0, len(images)):
            choice = answers.choice.get(sample.id)
            open_ids.pop(sample.id, None)
            yield from _row(sample.id, sample, None if choice in no_class else choice)
        for sample in labelled.read(0, len(labelled)) if labelled is not None else ():
            if sample.label is not None:
                yield from _row(f"before/{sample.id}", sample, sample.label)

    def _row(identity: str, sample: Sample, label: str | None) -> Iterator[dict[str, Any]]:
        if label is None and (only_labelled or sample.content is None):
            return
        written.images += 1
        if label is not None:
            written.labels[label] += 1
        content = None if sample.content is None else image_file(sample)[0]
        yield {"id": identity, "image": content, "label": label}

    stream, number = rows(), 0
    while block := list(islice(stream, FILE_IMAGES)):
        write_shard(folder / f"train-{number:05d}.parquet", pa.Table.from_pylist(block, schema))
        number += 1
    if not written.images:
        raise InputError(
            "nothing to write: none of the images has an answer, and --only-labelled leaves the others out"
        )
    written.missing = list(open_ids)
    return written


def open_labelled(path: Path) -> Source:
    """Opens images with labels from before; of the training layout only `labelled/`, never `test/`."""
    return FolderSource(path, only=("labelled",)) if (path / "labelled").is_dir() else open_source(path)
