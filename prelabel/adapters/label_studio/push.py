"""Predictions -> tasks and predictions of a project, each exactly once, whatever was there and whatever fails.

What the project holds is read first. Images without a task become tasks with their prediction; tasks without a
prediction of this model get one; all else is left as it is. Where it is unclear whether a request was done (no answer,
502, 504, ...) the project is looked at again before anything is sent again. So the same push again goes on where one
was interrupted.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from prelabel.adapters.label_studio.embed import to_data_address
from prelabel.adapters.label_studio.ids import IdIndex, check_ids, index_of
from prelabel.adapters.label_studio.interface import Interface
from prelabel.adapters.label_studio.payload import UID_KEY, to_prediction, to_task
from prelabel.adapters.label_studio.project import Project, count_tasks, has_version, list_tasks, newest_task
from prelabel.adapters.label_studio.session import PASSING, Answer
from prelabel.adapters.rows import Conversion, Row
from prelabel.addresses import image_address
from prelabel.errors import RemoteError
from prelabel.progress import Progress, ProgressMode

LOOKS = 6
"""How often a project is looked at after an answer that did not come in time, before its work counts as not done."""
LOOK_PAUSE_S = 10.0
"""Between two such looks: together a minute, in which Label Studio may finish what a proxy gave up waiting for."""
PREDICTIONS_PER_TASK = 10
"""So many more predictions than tasks go into one request: they are a fifth as large, and for each request of them
Label Studio counts the predictions of all tasks of the project anew."""
LATE = frozenset({0, 408, 504, 522, 524})
"""Statuses where Label Studio may still be at it."""
TOO_LARGE = 413

logger = logging.getLogger(__name__)
KeyT = TypeVar("KeyT")


@dataclass
class PushSummary:
    """What a push did."""

    tasks: int = 0
    """Tasks that were made."""
    predictions: int = 0
    """Predictions that were added to tasks that were there."""
    there: int = 0
    """Rows that were there, with all that they have."""
    unclear: int = 0
    """Requests whose answer did not say whether they were done."""


def push(
    project: Project,
    interface: Interface,
    conversion: Conversion,
    *,
    error_rows: bool,
    chunk: int,
    progress_mode: ProgressMode,
) -> PushSummary:
    """Brings a project up to what the predictions say.

    Args:
        project: The project.
        interface: What it asks.
        conversion: The rows, with their images where these are to be put into the tasks; its tally counts along.
        error_rows: Whether error rows become tasks, without a prediction.
        chunk: Most tasks in one request.
        progress_mode: How progress is shown.

    Raises:
        InputError: The classes cannot be chosen, an id occurs twice, nothing is wanted, or Label Studio refuses the
            tasks.
        AccessError: The token is refused.
        ServerUnavailableError: Label Studio is away for longer than the session tries.
        RemoteError: It fails for as long, or does not say what it did.
    """
    predictions, classes, most = conversion.predictions, conversion.classes, PREDICTIONS_PER_TASK * chunk
    interface.check(classes)
    check_ids(predictions.directory)
    state = _State(project, predictions.info.model_id)
    summary, newest_before = PushSummary(), state.newest
    new_tasks, new_predictions = _Delivery(project, chunk, summary), _Delivery(project, most, summary)
    with Progress(
        predictions.rows_in_all, "images", f"pushing to project {project.id}", mode=progress_mode
    ) as progress:
        todo = _todo(conversion, error_rows, chunk, summary, state, progress)
        added: dict[int, Any] = {}

        def deliver_predictions() -> None:
            summary.predictions += new_predictions.deliver(added, state.new_predictions)
            progress.advance(len(added))
            added.clear()

        while batch := list(islice(todo, chunk)):
            tasks = {row.id: to_task(row, image, interface, classes) for row, image, task in batch if not task}
            summary.tasks += new_tasks.deliver(tasks, state.new_tasks)
            progress.advance(len(tasks))
            for row, _, task in batch:
                if task and row.label is not None:
                    made = to_prediction(row.label, row.confidence, row.model_id, interface)
                    added[task] = {"task": task, **made}
            if len(added) >= most:
                deliver_predictions()
        deliver_predictions()
    if summary.unclear:
        _check_doubles(project, newest_before)
    return summary


@dataclass(frozen=True)
class _Kind(Generic[KeyT]):
    """What is sent."""

    path: str
    """Where to, below the project."""
    counted: str
    """Where the answer says how many it took."""
    arrived: Callable[[Sequence[KeyT]], set[KeyT]]
    """Looks which of them are there."""
    note: Callable[[Any], None]
    """Takes an answer to know more about the project."""


class _State:
    """What a project holds."""

    def __init__(self, project: Project, model_id: str) -> None:
        self._project, self._model_id = project, model_id
        self.newest = newest_task(project)
        """The largest id of a task that is known."""
        known = ((task["data"], task["id"]) for task in list_tasks(project, ["data"], until=self.newest))
        self.tasks: IdIndex = index_of((data[UID_KEY], task) for data, task in known if _has_uid(data))
        """Id of an image -> its task."""
        self.predicted = self._predicted()
        """Tasks that have a prediction of the model."""
        self.new_tasks = _Kind("import?return_task_ids=true", "task_count", self._arrived_tasks, self._note_tasks)
        self.new_predictions = _Kind("import/predictions", "created", self._arrived_predictions, lambda _: None)

    def _predicted(self) -> set[int]:
        # One question answers it for a new model, and where nothing is missing; to list them takes a second a page.
        with_it, every = count_tasks(self._project, [has_version(self._model_id)]), count_tasks(self._project, [])
        if with_it in (0, every):
            return set(self.tasks.values.tolist()) if with_it else set()
        return {task["id"] for task in list_tasks(self._project, [], [has_version(self._model_id)], until=self.newest)}

    def _arrived_tasks(self, uids: Sequence[str]) -> set[str]:
        newer = list_tasks(self._project, ["data"], after=self.newest)
        return {task["data"][UID_KEY] for task in newer if _has_uid(task["data"])} & set(uids)

    def _note_tasks(self, content: Any) -> None:
        self.newest = max([self.newest, *content.get("task_ids", [])])

    def _arrived_predictions(self, tasks: Sequence[int]) -> set[int]:
        only = [has_version(self._model_id)]
        listed = list_tasks(self._project, [], only, after=min(tasks) - 1, until=max(tasks))
        return {task["id"] for task in listed} & set(tasks)


def _has_uid(data: object) -> bool:
    return isinstance(data, dict) and isinstance(data.get(UID_KEY), str)


def _todo(
    conversion: Conversion, error_rows: bool, chunk: int, summary: PushSummary, state: _State, progress: Progress
) -> Iterator[tuple[Row, str, int]]:
    """Yields (row, address of its image, its task or 0) for what is missing."""
    items, tally, passed = conversion.items(errors=error_rows), conversion.tally, 0
    while block := list(islice(items, chunk)):
        tasks = state.tasks.find([row.id for row, _ in block]).tolist()
        for (row, sample), task in zip(block, tasks, strict=True):
            if task >= 0 and (row.error is not None or task in state.predicted):
                summary.there += 1
                progress.advance(1)
            elif sample is None:
                yield row, image_address(conversion.image_url_prefix or "", row.id), max(task, 0)
            else:
                yield row, to_data_address(sample), max(task, 0)
        left_out = tally.left_out + tally.skipped.total()
        progress.advance(left_out - passed)
        passed = left_out


class _Delivery:
    """Sends items, in requests that get smaller where the server cannot take them."""

    def __init__(self, project: Project, size: int, summary: PushSummary) -> None:
        self._project, self._size, self._summary = project, size, summary

    def deliver(self, items: dict[KeyT, Any], kind: _Kind[KeyT]) -> int:
        """Sends key -> item until all of them are there, and returns how many."""
        session, todo = self._project.session, dict(items)
        backoff = session.backoff()
        while todo:
            part = list(islice(todo, self._size))
            answer = session.send("POST", f"{self._project.path}/{kind.path}", [todo[key] for key in part])
            done: set[KeyT] = set()
            if answer.ok:
                _check(answer, kind.counted, len(part))
                kind.note(answer.content)
                done = set(part)
                backoff.succeeded()
            elif answer.status == TOO_LARGE and len(part) > 1:
                self._shrink(len(part), "the request is too large")
            else:
                pause_s = backoff.next_pause_s(answer.retry_after_s) if answer.status in PASSING else None
                if pause_s is None:
                    raise session.error(answer)
                logger.warning("%s; trying again", session.error(answer))
                session.pause(pause_s)
                if answer.maybe_done:
                    done = self._settled(part, answer, kind)
            todo = {key: item for key, item in todo.items() if key not in done}
        return len(items)

    def _settled(self, part: list[KeyT], answer: Answer, kind: _Kind[KeyT]) -> set[KeyT]:
        """Returns which items are there, once that does not change any more."""
        self._summary.unclear += 1
        late = answer.status in LATE
        if late and len(part) > 1:
            self._shrink(len(part), "the answer did not come in time")
        done = kind.arrived(part)
        for _ in range(LOOKS if late else 1):
            if len(done) == len(part):
                break
            self._project.session.pause(LOOK_PAUSE_S)
            before, done = done, kind.arrived(part)
            if done and done == before:
                break
        return done

    def _shrink(self, size: int, why: str) -> None:
        self._size = size // 2
        logger.warning("%d at a time: %s; going on with %d at a time", size, why, self._size)


def _check(answer: Answer, counted: str, sent: int) -> None:
    content = answer.content if isinstance(answer.content, dict) else {}
    if content.get(counted) != sent:
        raise RemoteError(
            f"Label Studio took {content.get(counted, 'an unknown number')} of {sent} ({counted}): push again, which "
            "looks first what is there"
        )


def _check_doubles(project: Project, after: int) -> None:
    """Warns of images that have several tasks, should Label Studio have finished a request after the last look."""
    seen: set[str] = set()
    doubled = []
    for task in list_tasks(project, ["data"], after=after):
        if _has_uid(task["data"]):
            uid = task["data"][UID_KEY]
            if uid in seen:
                doubled.append(task["id"])
            seen.add(uid)
    if doubled:
        logger.warning(
            "Label Studio did a request that had counted as lost: %d images have two tasks; delete the later ones, for "
            "example task %d",
            len(doubled), doubled[0],
        )  # fmt: skip
