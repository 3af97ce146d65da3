"""The client's logic without its input and output: what to ask whom, when to try again, what an answer means.

Each operation is a generator. It yields the steps of `prelabel.steps`, and the client that runs it, be it the one with
threads or the one of asyncio, carries them out and sends back what came of each. So the logic is here once, and a test
can let every step fail.
"""

import dataclasses
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prelabel.errors import (
    InputError,
    ModelChangedError,
    ModelNotFoundError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
)
from prelabel.failures import Failure, to_error
from prelabel.predictions import PredictionBatch, Priority
from prelabel.retry import Backoff
from prelabel.servers import Server, Servers
from prelabel.steps import END, Ask, Close, Finish, Give, Meet, Open, Pause, Receive, Send, Steps, Take
from prelabel.wire import (
    MAX_MESSAGE_BYTES,
    Images,
    ModelInfo,
    model_info,
    model_request,
    predict_request,
    prediction_batch,
)

FIRST_SIGN_S = 5.0
"""How long a new stream may be without a sign of its server, which sends its initial metadata at once: many times a
network round trip, and short enough to call again. After each silence it is twice as long: the server may be slow."""

DEFAULT_TIMEOUT_S = 60.0
"""Longest wait for one answer: a full queue is worked off in seconds."""

DEFAULT_RETRY_FOR_S = 60.0
"""How long a server that is away is tried again: enough for it to be started anew."""


@dataclass(frozen=True)
class _Sent:
    request: Any
    request_id: str
    images: int


@dataclass
class _Flow:
    """Where a stream of batches stands, over all calls that it needs."""

    window: int
    priority: Priority
    unanswered: deque[_Sent] = field(default_factory=deque)
    taken: int = 0
    exhausted: bool = False
    model_id: str | None = None
    model_address: str = ""
    first_sign_s: float = FIRST_SIGN_S


class _Tries:
    """The failures of one operation: between two pauses each server is tried at most once."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.count = 0
        self.asked_for_s: dict[Server, float] = {}
        """Server that failed since the last pause -> how long it asks to stay away."""

    def __str__(self) -> str:
        return f"tried {self.count} times in {self.backoff.elapsed_s:.0f} s"

    def failed(self, server: Server, failure: Failure) -> None:
        self.count += 1
        self.asked_for_s[server] = failure.pushback_s

    def next_pause_s(self) -> float | None:
        pause_s = self.backoff.next_pause_s(min(self.asked_for_s.values()))
        self.asked_for_s.clear()
        return pause_s

    def succeeded(self) -> None:
        self.count = 0
        self.asked_for_s.clear()
        self.backoff.succeeded()


class Exchange:
    """What one client and its servers say to each other.

    Args:
        servers: `HOST:PORT`, several with commas between or as a sequence.
        timeout_s: Longest wait for one answer.
        retry_for_s: For how long, since the first failure, an operation is tried again; 0: each server once.
        clock: Seconds, monotonic.
        uniform: 0..1, for the jitter.
        model_version: Which of the models that a server holds, by version or model_id; empty for the latest.
        max_message_bytes: Largest request.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_for_s: float = DEFAULT_RETRY_FOR_S,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
        model_version: str = "",
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.servers = Servers(servers, clock)
        self.closed = False
        """Set by the client: nothing is asked or tried again."""
        self._timeout_s, self._retry_for_s = timeout_s, retry_for_s
        self._clock, self._uniform = clock, uniform
        self._model_version, self._max_message_bytes = model_version, max_message_bytes

    def model(self) -> Steps[ModelInfo]:
        """Asks all servers what their model is; those that answer must agree."""
        tries = self._tries()
        # A server that is silent does not keep the answers of the others back.
        alone = len(self.servers.every()) == 1
        timeout_s = self._timeout_s if alone else min(FIRST_SIGN_S, self._timeout_s)
        while True:
            models: dict[str, ModelInfo] = {}
            for server in self.servers.every():
                outcome = yield Ask(server.address, "GetModel", model_request(self._model_version), timeout_s)
                if not isinstance(outcome, Failure):
                    self.servers.succeeded(server)
                    models[server.address] = model_info(outcome)
                    continue
                self._note(server, outcome, tries)
                last = server, outcome
                if not outcome.is_of_the_server:
                    raise self._error(*last, tries) from outcome.cause
            if models:
                return _agreed(models)
            yield from self._try_again(*last, tries)

    def predict(self, images: Images, priority: Priority) -> Steps[PredictionBatch]:
        """Has one batch answered by the least busy server."""
        request, tries = self._request(images, priority, ""), self._tries()
        while True:
            server = self.servers.take(1, tries.asked_for_s)
            try:
                outcome = yield Ask(server.address, "Predict", request, self._timeout_s)
            finally:
                self.servers.give_back(server, 1)
            if not isinstance(outcome, Failure):
                self.servers.succeeded(server)
                return prediction_batch(outcome, len(images))
            self._note(server, outcome, tries)
            yield from self._try_again(server, outcome, tries)

    def stream(self, window: int, priority: Priority) -> Steps[None]:
        """Has many batches answered, over as many calls as it needs."""
        if window < 1:
            raise InputError(f"window is {window}: at least 1 batch must be in flight")
        flow, tries = _Flow(window, priority), self._tries()
        while flow.unanswered or not flow.exhausted:
            server = self.servers.take(window, tries.asked_for_s)
            try:
                failure = yield from self._call(server, flow, tries)
            finally:
                self.servers.give_back(server, window)
            yield Close()
            if failure is not None:
                self._note(server, failure, tries)
                yield from self._try_again(server, failure, tries)

    def _call(self, server: Server, flow: _Flow, tries: _Tries) -> Steps[Failure | None]:
        """Sends and receives on one call until all is answered (None) or the call breaks off."""
        yield Open(server.address)
        for sent in flow.unanswered:
            # The model that began goes on, where the server still has it beside a later one.
            sent.request.model_version = flow.model_id or self._model_version
            yield Send(sent.request)
        if flow.exhausted:
            yield Finish()
        met = False
        while True:
            while not flow.exhausted and len(flow.unanswered) < flow.window:
                if (images := (yield Take())) is END:
                    flow.exhausted = True
                    yield Finish()
                else:
                    request_id = str(flow.taken)
                    request = self._request(images, flow.priority, request_id, flow.model_id)
                    flow.taken += 1
                    flow.unanswered.append(_Sent(request, request_id, len(images)))
                    yield Send(request)
            if not flow.unanswered:
                return None
            if not met:
                failure: Failure | None = yield Meet(min(flow.first_sign_s, self._timeout_s))
                if failure is not None:
                    flow.first_sign_s *= 2 if failure.code is None else 1
                    return failure
                met = True
            response = yield Receive(self._timeout_s)
            if isinstance(response, Failure):
                if flow.model_id is not None and response.kind is ModelNotFoundError:
                    raise ModelChangedError(
                        f"{server.address} has no model {flow.model_id} any more, which answered before batch "
                        f"{flow.unanswered[0].request_id}: start again to have one model's answers"
                    ) from response.cause
                return response
            batch = _answer(response, server, flow)
            flow.unanswered.popleft()
            flow.first_sign_s = FIRST_SIGN_S
            self.servers.succeeded(server)
            tries.succeeded()
            yield Give(batch)

    def _request(self, images: Images, priority: Priority, request_id: str, model_id: str | None = None) -> Any:
        version = model_id or self._model_version
        return predict_request(images, priority, version, request_id, self._max_message_bytes)

    def _tries(self) -> _Tries:
        if self.closed:
            raise InputError(f"the client of {self.servers} was closed: make a new one")
        return _Tries(Backoff(self._retry_for_s, self._clock, self._uniform))

    def _note(self, server: Server, failure: Failure, tries: _Tries) -> None:
        tries.failed(server, failure)
        if failure.is_of_the_server:
            self.servers.failed(server, failure.pushback_s)

    def _try_again(self, server: Server, failure: Failure, tries: _Tries) -> Steps[None]:
        """Goes on at once where another server is up, else after a pause; raises where no more try is due."""
        if not failure.may_be_tried_again or self.closed:
            raise self._error(server, failure, tries) from failure.cause
        if self.servers.is_one_up(tries.asked_for_s):
            return
        if (pause_s := tries.next_pause_s()) is None:
            raise self._error(server, failure, tries) from failure.cause
        yield Pause(pause_s)
        if self.closed:
            raise self._error(server, failure, tries) from failure.cause

    def _error(self, server: Server, failure: Failure, tries: _Tries) -> PrelabelError:
        if self.closed:
            return ServerUnavailableError(f"the client of {self.servers} was closed before the answer came")
        # Where nobody answers, all servers are named; other failures are one server's.
        where = str(self.servers) if failure.may_be_tried_again else server.address
        return to_error(failure, where, str(tries), self._timeout_s)


def _answer(response: Any, server: Server, flow: _Flow) -> PredictionBatch:
    """Returns the answer to the oldest unanswered batch, which this must be, by the model that answered before."""
    sent = flow.unanswered[0]
    if response is None or response.request_id != sent.request_id:
        raise RemoteError(f"{server.address} left out the answer to batch {sent.request_id}")
    batch = prediction_batch(response, sent.images)
    if flow.model_id not in (None, batch.model_id):
        if server.address == flow.model_address:
            change = f"{server.address} changed its model from {flow.model_id} to {batch.model_id}"
        else:
            change = (
                f"{server.address} has model {batch.model_id}, but {flow.model_address} answered with {flow.model_id}"
            )
        raise ModelChangedError(
            f"{change} in mid-stream at batch {sent.request_id}: start again to have one model's answers"
        )
    flow.model_id, flow.model_address = batch.model_id, server.address
    return batch


def _agreed(models: dict[str, ModelInfo]) -> ModelInfo:
    """Returns the model that all servers hold, with the least of their limits."""
    holders: dict[str, list[str]] = {}
    for address, model in models.items():
        holders.setdefault(model.model_id, []).append(address)
    if len(holders) > 1:
        raise RemoteError(
            f"the servers hold different models: {_listed(holders.items())}: start them all with the same bundle"
        )
    first, *_ = models.values()
    return dataclasses.replace(first, max_request_images=min(one.max_request_images for one in models.values()))


def _listed(holders: Iterable[tuple[str, list[str]]]) -> str:
    return "; ".join(f"{model_id} at {', '.join(addresses)}" for model_id, addresses in holders)
