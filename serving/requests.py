"""What happens to each call and each request, noted once and told to every observer: metrics, traces, access log.

A call is an RPC; a request is one batch of images that a caller wants answered: the message of a unary call, or one
message of a stream. Times are those of `time.monotonic`.
"""

import asyncio
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from prelabel.errors import InputError, ModelNotFoundError, OverloadedError, ServerUnavailableError
from prelabel.predictions import Priority
from serving.observer import BatchRun

StageName = Literal["decode", "queue", "infer", "encode"]
Cause = Literal[
    "invalid",
    "queue_full",
    "rate_limited",
    "expired",
    "cancelled",
    "stopping",
    "no_model",
    "unauthenticated",
    "forbidden",
    "internal",
]


@dataclass(eq=False)
class Rpc:
    """One call."""

    method: str
    """Service and method, as in prelabel.v1.PrelabelService/Predict; `other` for methods that do not exist."""
    request_id: str
    """See `serving.request_ids`."""
    peer: str
    """The caller's address, as gRPC writes it."""
    streaming: bool
    """Whether it carries many requests."""
    timeout_s: float | None = None
    """How long the caller waits, from the start; None: for ever."""
    started_at_s: float = field(default_factory=time.monotonic)
    ended_at_s: float = math.inf
    """Infinite while it runs."""
    code: str = "OK"
    """Name of the gRPC status code with which it ended."""
    images: int = 0
    """Images of its requests so far."""
    causes: set[Cause] = field(default_factory=set)
    """Why requests of it had no answer."""

    @property
    def expired(self) -> bool:
        """Whether a cancellation now is the end of the caller's patience.

        The caller's clock runs ahead of ours by the network and by the rounding of the deadline on the wire (up to
        1 %), so its cancellation comes a little before our deadline.
        """
        if self.timeout_s is None:
            return False
        return time.monotonic() - self.started_at_s >= 0.99 * self.timeout_s - 0.01


_OUTSIDE = Rpc("none", "", "", streaming=False)
"""Stands for the call where a service is used without a server."""


@dataclass(frozen=True)
class Stage:
    """One stretch of a request's way."""

    name: StageName
    started_at_s: float
    ended_at_s: float
    run: BatchRun | None = None
    """The batch, where the stage is `infer`."""


@dataclass(eq=False)
class RequestRecord:
    """One request, complete when observers get it. Its stages are in the order of their ends."""

    rpc: Rpc
    started_at_s: float = field(default_factory=time.monotonic)
    ended_at_s: float = math.inf
    images: int = 0
    """Images that it holds; 0 where it ended before they were counted, because it was invalid, for example."""
    unusable: int = 0
    """Images that are answered with an error."""
    priority: Priority | None = None
    """None where it never waited for the engine."""
    stages: list[Stage] = field(default_factory=list)
    cause: Cause | None = None
    """Why there is no answer; None: there is one."""

    @property
    def inferred(self) -> bool:
        """Whether rows of it reached the engine."""
        return any(stage.name == "infer" for stage in self.stages)

    def stage(self, name: StageName) -> "_Stretch":
        """Notes when the block began and ended, however it ends."""
        return _Stretch(self.stages, name)


class _Stretch:
    """A context manager that notes a stage; a class, because one that is made of a generator costs twice as much."""

    __slots__ = ("_name", "_stages", "_started_at_s")

    def __init__(self, stages: list[Stage], name: StageName) -> None:
        self._stages, self._name = stages, name

    def __enter__(self) -> None:
        self._started_at_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._stages.append(Stage(self._name, self._started_at_s, time.monotonic()))


class Observer:
    """Is told what happens, in the event loop: must be quick and must not raise. Overrides what it wants to know."""

    def rpc_started(self, rpc: Rpc, metadata: Mapping[str, str | bytes]) -> None:
        """A call begins; `metadata` may hold secrets."""

    def rpc_ended(self, rpc: Rpc) -> None:
        """A call has ended, however it ended."""

    def request_ended(self, request: RequestRecord) -> None:
        """A request has ended, however it ended."""

    def batch_ran(self, run: BatchRun) -> None:
        """The engine is done with a batch, or failed on it."""


_rpc: ContextVar[Rpc] = ContextVar("_rpc", default=_OUTSIDE)
_record: ContextVar[RequestRecord | None] = ContextVar("_record", default=None)


class _Unfollowed:
    """A context manager with a record that nobody will look at."""

    def __enter__(self) -> RequestRecord:
        return RequestRecord(_OUTSIDE, 0.0)

    def __exit__(self, *error: object) -> None:
        pass


class Requests:
    """Follows calls and requests through the server; the batcher's observer."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.observers = list(observers)
        self.stopping = False
        """Whether requests are refused because the server stops."""

    @contextmanager
    def rpc(self, rpc: Rpc, metadata: Mapping[str, str | bytes]) -> Iterator[None]:
        """Follows a call, whose code must be known at the end of the block."""
        token = _rpc.set(rpc)
        for observer in self.observers:
            observer.rpc_started(rpc, metadata)
        try:
            yield
        finally:
            _rpc.reset(token)
            rpc.ended_at_s = time.monotonic()
            for observer in self.observers:
                observer.rpc_ended(rpc)

    def request(self) -> AbstractContextManager[RequestRecord]:
        """Follows a request of the call that this task works for; where nobody observes, its record is thrown away."""
        return self._followed() if self.observers else _Unfollowed()

    @contextmanager
    def _followed(self) -> Iterator[RequestRecord]:
        record = RequestRecord(_rpc.get())
        token = _record.set(record)
        try:
            yield record
        except BaseException as error:  # a cancellation is an end like any other
            record.cause = self._cause(error, record.rpc)
            record.rpc.causes.add(record.cause)
            raise
        finally:
            _record.reset(token)
            record.ended_at_s = time.monotonic()
            record.rpc.images += record.images
            for observer in self.observers:
                observer.request_ended(record)

    def batch_ran(self, run: BatchRun) -> None:
        """See `serving.observer.BatchObserver`."""
        for observer in self.observers:
            observer.batch_ran(run)

    def request_left(self, arrived_at_s: float, priority: Priority, runs: Sequence[BatchRun]) -> None:
        """See `serving.observer.BatchObserver`."""
        record = _record.get()
        if record is None:
            return
        # A request that was cancelled leaves before its batch has ended.
        now_s = time.monotonic()
        record.priority = priority
        record.stages.append(Stage("queue", arrived_at_s, min([now_s, *(run.started_at_s for run in runs)])))
        for run in runs:
            record.stages.append(Stage("infer", min(run.started_at_s, now_s), min(run.ended_at_s, now_s), run))

    def _cause(self, error: BaseException, rpc: Rpc) -> Cause:
        if isinstance(error, ModelNotFoundError):
            return "no_model"
        if isinstance(error, InputError):
            return "invalid"
        if isinstance(error, OverloadedError):
            return "queue_full"
        if isinstance(error, ServerUnavailableError):
            return "stopping" if self.stopping else "no_model"
        if isinstance(error, TimeoutError):
            return "expired"
        if isinstance(error, asyncio.CancelledError):
            return "expired" if rpc.expired else "cancelled"
        return "internal"
