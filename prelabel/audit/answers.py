"""People's answers to the tasks of a draw, from its CSV or from Label Studio's JSON export."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.plan import Plan
from prelabel.audit.tasks import ANSWER_COLUMN, ID_COLUMN, NONE_OF_THESE
from prelabel.errors import InputError
from prelabel.spreadsheets import read_columns, with_lost_zeros

logger = logging.getLogger(__name__)

NO_CLASS = -1
"""Label index of `NONE_OF_THESE`."""
QUESTION = "label"
"""Name of the `<Choices>` about the class in the labelling interface that `write_tasks` writes."""
_NAMED = 5
"""Ids that an error names."""


def read_answers(path: Path, plan: Plan) -> NDArray[np.int32]:
    """Returns the label index that a person gave to each row of the plan: int32 [n], -1..K-1, -1 for "none of these".

    Raises:
        InputError: The file is damaged, holds ids that were not drawn, an id twice, a name that is no class, or lacks
            answers; the message says which.
    """
    given = given_answers(path, plan.ids)
    if unknown := sorted(set(given) - set(plan.ids)):
        raise InputError(f"{path} answers ids that were not drawn: {some(unknown)}; it is of another audit")
    if missing := [identity for identity in plan.ids if identity not in given]:
        raise InputError(
            f"{path} lacks {len(missing):,} of {len(plan.ids):,} answers: {some(missing)}. What people skip is not "
            f"random, so the guarantee needs all; answer {NONE_OF_THESE!r} where no class fits"
        )
    return np.array([label_index(path, identity, given[identity], plan.classes) for identity in plan.ids], np.int32)


def given_answers(path: Path, known: Iterable[str]) -> dict[str, str]:
    """Returns what people said, by id; tasks without an answer are left out.

    Args:
        path: CSV or Label Studio's JSON export.
        known: Ids that there are, for those of which a spreadsheet took leading zeros away.

    Raises:
        InputError: The file is damaged, or holds an id twice; the message says which.
    """
    pairs = _from_label_studio(path) if path.suffix == ".json" else read_csv(path, ANSWER_COLUMN)
    answered = [(identity, answer) for identity, answer in pairs if answer]
    ids = with_lost_zeros([identity for identity, _ in answered], known)
    return _unique(path, [(identity, answer) for identity, (_, answer) in zip(ids, answered, strict=True)])


def read_csv(path: Path, column: str) -> list[tuple[str, str]]:
    """Returns (id, value) of each line of a CSV file with a header; values are stripped of spaces.

    Raises:
        InputError: The file is missing or damaged, or has no column `id` or none of the wanted name.
    """
    return [(identity, value.strip()) for identity, value in read_columns(path, (ID_COLUMN, column))]


def label_index(path: Path, identity: str, name: str, classes: Sequence[str]) -> int:
    """Returns the index of a class name, -1 for "none of these".

    Answers in a CSV are stripped: blanks around a class's name are not needed where one class only has the name.

    Raises:
        InputError: It is neither.
    """
    (name,) = with_lost_zeros([name], classes)
    if name in classes:
        return classes.index(name)
    if len(alike := [k for k, one in enumerate(classes) if one.strip() == name.strip()]) == 1:
        return alike[0]
    if name == NONE_OF_THESE:
        return NO_CLASS
    shown = ", ".join(classes[:_NAMED]) + (", ..." if len(classes) > _NAMED else "")
    raise InputError(f"{path} calls {identity} {name!r}, which is no class ({shown}) and not {NONE_OF_THESE!r}")


def some(ids: Sequence[str]) -> str:
    """Returns the first few ids as text, and how many more there are."""
    return ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else "")


def _unique(path: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for identity, answer in pairs:
        found[identity].append(answer)
    if twice := [identity for identity, answers in found.items() if len(answers) > 1]:
        answers = ", ".join(map(repr, found[twice[0]][:_NAMED]))
        raise InputError(f"{path} answers more than once: {some(twice)} ({twice[0]}: {answers}); leave one answer each")
    return {identity: answers[0] for identity, answers in found.items()}


def _from_label_studio(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (id, answer) of each task with an answer; annotators of one task who agree are one answer.

    As in `prelabel pull`, several choices at a time are no answer.
    """
    chosen: list[tuple[str, str, list[str]]] = []
    try:
        for task in json.loads(path.read_bytes()):
            identity = str(task["data"]["uid"])
            chosen += [(identity, question, choices) for question, choices in _choices(task)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} is no export of Label Studio in its format JSON, with the tasks of `prelabel audit draw` "
            f"({type(error).__name__}: {error})"
        ) from None
    questions = sorted({question for _, question, _ in chosen})
    if len(questions) > 1 and QUESTION not in questions:
        raise InputError(
            f"{path} has the answers to {len(questions)} questions ({', '.join(map(repr, questions[:_NAMED]))}), and "
            f"none is called {QUESTION!r}: call that about the class so in the labelling interface"
        )
    asked = QUESTION if len(questions) > 1 else next(iter(questions), QUESTION)
    of_class = [(identity, choices) for identity, question, choices in chosen if question == asked]
    answered = dict.fromkeys((identity, choices[0]) for identity, choices in of_class if len(choices) == 1)
    without = {identity for identity, choices in of_class if len(choices) > 1} - {identity for identity, _ in answered}
    if without:
        logger.warning("%s: several choices at a time are no answer: %s", path, some(sorted(without)))
    yield from answered


def _choices(task: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yields question (the name of its `<Choices>`) and choices of each annotation that was not skipped."""
    for annotation in task["annotations"]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for result in annotation["result"] if not annotation.get("was_cancelled") else ():
            if result["type"] == "choices":
                found[str(result.get("from_name", QUESTION))] += map(str, result["value"]["choices"])
        yield from found.items()
