"""A project of Label Studio and its tasks, read in the order of their ids."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prelabel.adapters.label_studio.session import Session
from prelabel.errors import InputError, RemoteError

PAGE_TASKS = 1000
"""Tasks in one answer: about one megabyte and one second."""

Task = dict[str, Any]
Condition = Mapping[str, Any]


@dataclass(frozen=True)
class Project:
    """What a project says about itself."""

    session: Session
    """Where it is."""
    id: int
    """Its number, as in the address of its page."""
    title: str
    """Its name."""
    label_config: str
    """Its labelling interface, XML."""
    shown_version: str
    """The model version whose predictions annotators see; empty where none was chosen."""

    @property
    def path(self) -> str:
        """Where its API lies."""
        return f"/api/projects/{self.id}"


def open_project(session: Session, number: int) -> Project:
    """Reads a project.

    Raises:
        InputError: There is none of this number, or the token's owner may not see it.
        AccessError: As `Session.ask`; so are the others.
    """
    answer = session.send("GET", f"/api/projects/{number}/")
    if answer.status == 404 and answer.content is not None:
        raise InputError(
            f"{session.url} has no project {number}, or the token's owner may not see it: take the number from the "
            "address of the project's page"
        )
    content = answer.content if answer.ok else session.ask(f"/api/projects/{number}/")
    if not isinstance(content, dict) or "label_config" not in content:
        raise RemoteError(f"{session.url} answers, but not as Label Studio does: give its address as --url")
    return Project(
        session, number, str(content.get("title")), content["label_config"], str(content.get("model_version") or "")
    )


def condition(field: str, operator: str, kind: str, value: object) -> Condition:
    """Returns one condition of a filter of the Data Manager."""
    return {"filter": f"filter:tasks:{field}", "operator": operator, "type": kind, "value": value}


def has_version(model_version: str) -> Condition:
    """Returns the condition that a task has a prediction of a model."""
    return condition("predictions_model_versions", "contains", "List", [model_version])


def list_tasks(
    project: Project,
    fields: Sequence[str],
    conditions: Sequence[Condition] = (),
    *,
    after: int = 0,
    until: int | None = None,
) -> Iterator[Task]:
    """Yields the tasks with `after` < id <= `until` that meet all conditions, in the order of their ids.

    It walks over ranges of ids and not over numbered pages: a task that is deleted meanwhile would move the others
    between pages, and each page would make Label Studio count all tasks of the project.

    Args:
        project: Whose tasks.
        fields: Names of what is wanted of each task, and of what is in it.
        conditions: Of `condition`.
        after: Only tasks with larger ids.
        until: Only tasks with ids up to this; None: up to the largest one there is now.

    Raises:
        RemoteError: As `Session.ask`; so are the others.
    """
    low = after + 1
    last = newest_task(project) if until is None else until
    if after == 0:
        first = _ask(project, ["id"], [], "tasks:id", 1)
        low = first["tasks"][0]["id"] if first["tasks"] else last + 1
    span = PAGE_TASKS
    while low <= last:
        high = min(low + span - 1, last)
        between = condition("id", "in", "Number", {"min": low, "max": high})
        answer = _ask(project, ["id", *fields], [between, *conditions], "tasks:id", PAGE_TASKS)
        tasks = answer["tasks"]
        yield from tasks
        if answer["total"] > len(tasks):
            # More of them than a page holds, which one id can make only if the answer is not what was asked for.
            if not tasks:
                raise RemoteError(f"{project.session.url} counts {answer['total']} tasks and shows none")
            low, span = tasks[-1]["id"] + 1, PAGE_TASKS
        else:
            low = high + 1
            span = min(2 * span, 1 << 30) if 2 * len(tasks) < PAGE_TASKS else PAGE_TASKS


def newest_task(project: Project) -> int:
    """Returns the largest id of a task; 0 where there is none."""
    tasks = _ask(project, ["id"], [], "-tasks:id", 1)["tasks"]
    return int(tasks[0]["id"]) if tasks else 0


def count_tasks(project: Project, conditions: Sequence[Condition]) -> int:
    """Returns how many tasks meet all conditions."""
    return int(_ask(project, ["id"], conditions, "tasks:id", 1)["total"])


def _ask(project: Project, fields: Sequence[str], conditions: Sequence[Condition], order: str, size: int) -> Task:
    query = {"filters": {"conjunction": "and", "items": list(conditions)}, "ordering": [order]}
    parameters = {
        "project": str(project.id),
        "page_size": str(size),
        "include": ",".join(fields),
        "query": json.dumps(query),
        # Addresses in storages stay what they are.
        "resolve_uri": "false",
    }
    if "annotations" in fields:
        parameters["fields"] = "all"
    answer = project.session.ask("/api/tasks", parameters)
    if not isinstance(answer, dict) or not isinstance(answer.get("tasks"), list) or "total" not in answer:
        raise RemoteError(f"{project.session.url} does not list tasks as Label Studio 1.23 does: is it much older?")
    return answer
