"""People's answers in a project -> answers as CSV."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from prelabel.adapters.label_studio.answers import decide
from prelabel.adapters.label_studio.interface import Interface
from prelabel.adapters.label_studio.payload import UID_KEY
from prelabel.adapters.label_studio.project import Project, condition, count_tasks, list_tasks
from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from prelabel.spreadsheets import csv_text

ANSWERS_FILE = "answers.csv"
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
    write_text_atomically(path, csv_text([("id", "answer"), *answers.choice.items()]))
