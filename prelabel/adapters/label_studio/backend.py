"""The machine-learning backend of Label Studio: what it answers, without HTTP.

Label Studio sends all selected tasks in one request, waits 100 s for it, and drops every result where their number is
not that of the tasks. It never asks again for a task that got a result of the model's version, even an empty one. So:
a prediction where there is one; an empty result where there will never be one (the image is broken); and no result (an
empty list) where the next try may bring one, with the reason in the log.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Protocol

from prelabel.adapters.label_studio.images import Images
from prelabel.adapters.label_studio.interface import Interface, parse_interface
from prelabel.adapters.label_studio.payload import UID_KEY, to_prediction
from prelabel.adapters.label_studio.stored import NO_LABEL, Stored
from prelabel.errors import ImageError, InputError, PrelabelError
from prelabel.predictions import Model, PredictionBatch

MODEL_CLASS = "prelabel"
FETCH_THREADS = 16
"""Images that are fetched at a time: they wait for other machines, not for a processor."""
BUDGET_S = 60.0
"""No batch starts later than this after a request: the last one then ends before Label Studio's 100 s are over."""
AHEAD = 2 * FETCH_THREADS
"""Images that are being fetched, or wait to be looked at: what a request holds in memory beside a batch."""
BATCH_IMAGES = 256
BATCH_BYTES = 32 << 20
"""Most images, and about the most bytes, in one request to the server: half of what it takes at the least."""
DECIMALS = 6
"""Of confidences: float32 holds no more."""
LOGGED_REASONS = 5
"""Tasks without a prediction that the log names, of one request."""

logger = logging.getLogger(__name__)
Result = dict[str, Any] | list[Any]
NOTHING: list[Any] = []
"""No result: Label Studio asks again another time."""


class Client(Protocol):
    """A server of predictions: `prelabel.client.PrelabelClient`."""

    def model(self) -> Model:
        """Returns what the server's model is."""

    def predict(self, images: Sequence[bytes]) -> PredictionBatch:
        """Classifies image files."""


class Backend:
    """Answers from stored predictions where there are any, else from a server.

    Args:
        stored: Predictions by id.
        client: The server; images are fetched only where there is one.
        images: Where images come from.
        clock: Seconds, monotonic.
        choices: Name of the `<Choices>` that asks for the class, where an interface has several.

    Raises:
        InputError: Neither is given, or they are of different models.
        ServerUnavailableError: The server does not answer; so are the other errors of the client.
    """

    def __init__(
        self,
        stored: Stored | None,
        client: Client | None,
        images: Images,
        clock: Callable[[], float] = time.monotonic,
        choices: str = "",
    ) -> None:
        self._stored, self._client, self._images, self._clock = stored, client, images, clock
        self._choices = choices
        self._pool = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        model = None if client is None else client.model()
        if model is not None and stored is not None and model.model_id != stored.model_id:
            raise InputError(
                f"the predictions are of model {stored.model_id}, but the server has {model.model_id}: serve the same "
                "model, or leave one of them out"
            )
        known = model or stored
        if known is None:
            raise InputError("give --predictions, --server or both")
        self._model_id, self._classes = known.model_id, known.classes
        self._model = model

    def health(self) -> dict[str, str]:
        """Answers GET /health."""
        return {"status": "UP", "model_class": MODEL_CLASS}

    def setup(self, body: dict[str, Any]) -> dict[str, str]:
        """Answers POST /setup: whether the project's labelling interface suits the model, and which model it is.

        Raises:
            InputError: It does not.
        """
        self._interface(body.get("schema"))
        return {"model_version": self._model_id}

    def webhook(self, body: dict[str, Any]) -> dict[str, str]:
        """Answers POST /webhook, which Label Studio sends when tasks, annotations or the project change."""
        action = str(body.get("action"))
        if action == "START_TRAINING":
            logger.warning("training is not started from here: prelabel pull label-studio, then train")
        else:
            logger.info("webhook: %s", action)
        return {"status": "ok"}

    def predict(self, body: dict[str, Any]) -> dict[str, list[Result]]:
        """Answers POST /predict: one result for each task, in their order.

        Raises:
            InputError: It is no such request, or the labelling interface does not suit the model.
        """
        ends_s = self._clock() + BUDGET_S
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise InputError("/predict wants a list of tasks")
        interface = self._interface(body.get("label_config"))
        data = [task["data"] if isinstance(task.get("data"), dict) else {} for task in tasks]
        results: list[Result] = [NOTHING] * len(tasks)
        reasons: dict[int, str] = {}
        open_tasks = list(range(len(tasks)))
        if self._stored is not None:
            open_tasks = self._from_stored(self._stored, data, interface, results, reasons)
        from_stored = len(tasks) - len(open_tasks)
        if self._client is None:
            reasons |= dict.fromkeys(open_tasks, "not among the stored predictions, and there is no --server")
        else:
            addresses = {i: data[i].get(interface.image_key) for i in open_tasks}
            for batch in self._fetched(addresses, reasons, ends_s):
                self._from_server(self._client, batch, interface, results, reasons)
        self._log(tasks, from_stored, reasons)
        return {"results": results}

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _interface(self, config: object) -> Interface:
        if not isinstance(config, str):
            raise InputError("the request holds no labelling interface")
        interface = parse_interface(config, self._choices)
        interface.check(self._classes)
        return interface

    def _from_stored(
        self,
        stored: Stored,
        data: Sequence[dict[str, Any]],
        interface: Interface,
        results: list[Result],
        reasons: dict[int, str],
    ) -> list[int]:
        """Fills in what is stored and returns the positions of the other tasks."""
        rows = stored.rows.find([str(one.get(UID_KEY, "")) for one in data]).tolist()
        for i, row in enumerate(rows):
            if row < 0:
                continue
            label = int(stored.label[row])
            if label == NO_LABEL:
                results[i] = _empty(stored.model_id)
                reasons[i] = "its row in the predictions is an error"
            else:
                confidence = round(float(stored.confidence[row]), DECIMALS)
                results[i] = to_prediction(stored.classes[label], confidence, stored.model_id, interface)
        return [i for i, row in enumerate(rows) if row < 0]

    def _fetched(
        self, addresses: dict[int, object], reasons: dict[int, str], ends_s: float
    ) -> Iterator[dict[int, bytes]]:
        """Yields batches of position -> image file; what cannot be had gets a reason."""
        assert self._model is not None
        size = min(BATCH_IMAGES, self._model.max_request_images)
        waiting, running = deque(addresses), deque[tuple[int, Future[bytes]]]()
        batch: dict[int, bytes] = {}
        while waiting or running:
            while waiting and len(running) < AHEAD:
                i = waiting.popleft()
                running.append((i, self._pool.submit(self._images.get, addresses[i])))
            if self._clock() >= ends_s:
                for _, future in running:
                    future.cancel()
                late = [*(i for i, _ in running), *waiting]
                reasons |= dict.fromkeys(late, f"not begun within {BUDGET_S:g} s: select fewer tasks")
                break
            i, future = running.popleft()
            try:
                batch[i] = self._wait(future, ends_s)
            except ImageError as error:
                reasons[i] = str(error)
            except Exception as error:  # one image, whatever is wrong with its address, costs no other its prediction
                reasons[i] = f"could not be fetched ({type(error).__name__}: {error})"
            if len(batch) == size or sum(map(len, batch.values())) >= BATCH_BYTES:
                yield batch
                batch = {}
        if batch:
            yield batch

    def _wait(self, future: "Future[bytes]", ends_s: float) -> bytes:
        try:
            return future.result(max(0.0, ends_s - self._clock()))
        except FutureTimeoutError:
            future.cancel()
            raise ImageError(f"did not arrive within {BUDGET_S:g} s") from None

    def _from_server(
        self,
        client: Client,
        batch: dict[int, bytes],
        interface: Interface,
        results: list[Result],
        reasons: dict[int, str],
    ) -> None:
        try:
            answer = client.predict(list(batch.values()))
            if answer.model_id != self._model_id:
                self._renew(client, answer.model_id)
                interface.check(self._classes)
        except PrelabelError as error:
            reasons |= dict.fromkeys(batch, str(error))
            return
        for i, row in zip(batch, answer.rows(self._classes), strict=True):
            if row.label is None:
                results[i] = _empty(row.model_id)
                reasons[i] = str(row.error)
            else:
                results[i] = to_prediction(row.label, round(row.confidence, DECIMALS), row.model_id, interface)

    def _renew(self, client: Client, model_id: str) -> None:
        """The server took a new model; its classes may be others."""
        model = client.model()
        if model.model_id != model_id:
            raise InputError(f"the server changes its model, from {model_id} to {model.model_id}: ask again")
        logger.info("the server's model is %s now", model_id)
        self._model, self._model_id, self._classes = model, model.model_id, model.classes

    def _log(self, tasks: Sequence[dict[str, Any]], from_stored: int, reasons: dict[int, str]) -> None:
        logger.info(
            "%d tasks: %d answered from stored predictions, %d without a prediction",
            len(tasks), from_stored, len(reasons),
        )  # fmt: skip
        for i, reason in list(reasons.items())[:LOGGED_REASONS]:
            logger.warning("task %s has no prediction: %s", tasks[i].get("id"), reason)
        if len(reasons) > LOGGED_REASONS:
            logger.warning("and %d more tasks have none", len(reasons) - LOGGED_REASONS)


def _empty(model_id: str) -> dict[str, Any]:
    return {"model_version": model_id, "result": []}
