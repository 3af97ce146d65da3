"""The clients' logic against a world in which every call can fail at every point."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import (
    ModelChangedError,
    ModelNotFoundError,
    OverloadedError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
)
from prelabel.exchange import FIRST_SIGN_S, Exchange
from prelabel.failures import Failure, silence
from prelabel.images import RESIZE_RULE, Pixels
from prelabel.predictions import PredictionBatch
from prelabel.steps import END, Ask, Close, Finish, Give, Meet, Open, Pause, Receive, Send, Take
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.wire import predict_response

ENDED = object()
"""The server ends the stream in mid-stream without an error."""
SILENCE = silence(5.0)
PASSING = [Failure(code) for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)]
PASSING += [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_s=seconds) for seconds in (0.0, 2.0)]
LASTING = [Failure(code, "no") for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)]
LASTING += [Failure(grpc.StatusCode.DEADLINE_EXCEEDED)]


def batch_of(mark: int) -> Pixels:
    """uint8 [1 or 2, 1, 1, 1]: a batch that carries its number."""
    return np.full((1 + mark % 2, 1, 1, 1), mark, np.uint8)


@dataclass
class World:
    """Servers and time. The k-th call or wait comes out as `script` says (None: well), and well when it is used up."""

    script: deque[object]
    batches: int
    models: dict[str, str] = field(default_factory=lambda: {"a:1": "model"})
    now_s: float = 0.0
    answers: list[int] = field(default_factory=list)
    model_ids: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    """Servers of the streams since the last pause or answer."""
    all_opened: list[str] = field(default_factory=list)
    taken: int = 0
    patience_s: list[float] = field(default_factory=list)
    unanswered: deque[pb.PredictRequest] | None = None
    """What the open stream was sent and has not answered; None: no stream is open."""
    finished: bool = False

    def clock(self) -> float:
        return self.now_s

    def run(self, exchange: Exchange, window: int) -> None:
        steps, outcome = exchange.stream(window, "bulk"), None
        try:
            while True:
                step = steps.send(outcome)
                outcome = self.do(step)
                assert self.unanswered is None or len(self.unanswered) <= window
        except StopIteration:
            assert self.unanswered is None

    def do(self, step: object) -> Any:
        match step:
            case Open(address):
                assert address not in self.opened, "one server was tried twice without a pause"
                assert self.unanswered is None, "the last stream is still open"
                self.opened.append(address)
                self.all_opened.append(address)
                self.unanswered, self.finished = deque(), False
            case Send(request):
                assert self.unanswered is not None
                assert not self.finished
                self.unanswered.append(request)
            case Finish():
                assert not self.finished
                self.finished = True
            case Close():
                self.unanswered = None
            case Meet(timeout_s):
                self.patience_s.append(timeout_s)
                outcome = self.next_outcome()
                return None if outcome is ENDED else outcome
            case Receive():
                assert self.unanswered, "it waits for an answer that nobody owes"
                outcome = self.next_outcome()
                if outcome is None:
                    return self.answer(self.unanswered.popleft())
                return None if outcome is ENDED else outcome
            case Take():
                self.taken += 1
                return batch_of(self.taken - 1) if self.taken <= self.batches else END
            case Give(batch):
                self.answers.append(int(batch.realness[0]))
                assert len(batch) == 1 + self.answers[-1] % 2
                self.model_ids.append(batch.model_id)
                self.opened.clear()
            case Pause(seconds):
                assert seconds >= 0
                self.pauses.append(seconds)
                self.now_s += seconds
                self.opened.clear()
            case _:
                raise AssertionError(step)
        return None

    def next_outcome(self) -> object:
        return self.script.popleft() if self.script else None

    def answer(self, request: pb.PredictRequest) -> pb.PredictResponse:
        marks = np.frombuffer(request.tensor.data, np.uint8).astype(np.float32)
        probabilities = np.tile(np.float32([0.25, 0.75]), (len(marks), 1))
        return predict_response(request, PredictionBatch(probabilities, marks, self.models[self.all_opened[-1]]))


def scripts(failures: list[Any]) -> st.SearchStrategy[deque[object]]:
    return st.lists(st.sampled_from([None, *failures]), max_size=40).map(deque)


@given(scripts([*PASSING, SILENCE]), st.integers(0, 20), st.integers(1, 6), st.integers(1, 3))
def test_whatever_passes_costs_no_batch_and_doubles_none(
    script: deque[object], batches: int, window: int, servers: int
) -> None:
    world = World(script, batches, {f"{name}:1": "model" for name in "abc"[:servers]})
    exchange = Exchange(list(world.models), retry_for_s=1e6, clock=world.clock)
    world.run(exchange, window)
    assert world.answers == list(range(batches))
    assert [server.load for server in exchange.servers.every()] == [0] * servers


@given(
    scripts([*PASSING, SILENCE, *LASTING, ENDED]),
    st.integers(0, 20),
    st.integers(1, 6),
    st.lists(st.booleans(), max_size=3),
)
def test_every_batch_is_answered_once_and_in_order_or_there_is_one_clear_error(
    script: deque[object], batches: int, window: int, others: list[bool]
) -> None:
    models = {"a:1": "model"} | {
        f"{name}:1": "other" if it else "model" for name, it in zip("bcd", others, strict=False)
    }
    world = World(script, batches, models)
    exchange = Exchange(list(world.models), retry_for_s=10, clock=world.clock)
    error: str | None = None
    try:
        world.run(exchange, window)
    except PrelabelError as raised:
        error = str(raised)
    assert world.answers == list(range(len(world.answers) if error is not None else batches))
    assert error is None or (error and "\n" not in error)
    assert len(set(world.model_ids)) <= 1
    assert sum(server.load for server in exchange.servers.every()) == 0


def test_a_stream_goes_on_at_another_server_at_once() -> None:
    world = World(deque([None, None, PASSING[0]]), 3, {"a:1": "model", "b:1": "model"})
    world.run(Exchange("a:1,b:1", clock=world.clock), window=2)
    assert (world.all_opened, world.pauses, world.answers) == (["a:1", "b:1"], [], [0, 1, 2])


def test_a_stream_does_not_go_on_with_another_model() -> None:
    world = World(deque([None, None, PASSING[0]]), 3, {"a:1": "model", "b:1": "other"})
    with pytest.raises(
        ModelChangedError, match="b:1 has model other, but a:1 answered with model in mid-stream at batch 1"
    ):
        world.run(Exchange("a:1,b:1", clock=world.clock), window=2)


def test_the_model_that_began_a_stream_is_asked_for_when_it_goes_on() -> None:
    """A server may hold it beside a later one, which a new call would get without that."""
    world = World(deque([None, None, PASSING[0]]), 5)
    asked: list[str] = []
    answer = world.answer
    world.answer = lambda request: asked.append(request.model_version) or answer(request)  # type: ignore[method-assign, func-returns-value]
    world.run(Exchange("a:1", clock=world.clock, model_version="1"), window=2)
    assert (world.answers, asked) == (list(range(5)), ["1"] + ["model"] * 4)


def test_a_model_that_is_no_longer_held_ends_the_stream_by_name() -> None:
    gone = Failure(grpc.StatusCode.NOT_FOUND, "no model 'model'")
    with pytest.raises(ModelChangedError, match="a:1 has no model model any more, which answered before batch 1"):
        World(deque([None, None, gone]), 3).run(Exchange("a:1"), window=2)
    with pytest.raises(ModelNotFoundError, match="no model 'model'"):
        World(deque([None, gone]), 3).run(Exchange("a:1"), window=2)


def test_each_server_is_tried_once_before_the_first_pause_and_all_are_named() -> None:
    world = World(deque([PASSING[0]] * 9), 1, {name: "model" for name in ("a:1", "b:1", "c:1")})
    with pytest.raises(ServerUnavailableError, match=r"at a:1, b:1, c:1 \(tried 3 times"):
        world.run(Exchange(list(world.models), retry_for_s=0, clock=world.clock), window=2)
    assert (world.all_opened, world.pauses) == (["a:1", "b:1", "c:1"], [])


def test_a_server_that_answers_others_is_not_asked_again_without_a_pause() -> None:
    class Busy(World):
        def do(self, step: object) -> Any:
            for server in exchange.servers.every():
                exchange.servers.succeeded(server)
            return super().do(step)

    world = Busy(deque([PASSING[2]] * 6), 1, {"a:1": "model", "b:1": "model"})
    exchange = Exchange("a:1,b:1", clock=world.clock)
    exchange.servers.every()[1].load = 100
    world.run(exchange, window=2)
    assert (world.answers, len(world.pauses)) == ([0], 3)
    assert world.all_opened == ["a:1", "b:1"] * 3 + ["a:1"]


def test_a_pause_is_as_long_as_the_least_that_a_server_asks_for() -> None:
    full = [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_s=seconds) for seconds in (9.0, 4.0)]
    world = World(deque(full), 1, {"a:1": "model", "b:1": "model"})
    world.run(Exchange("a:1,b:1", clock=world.clock, uniform=lambda: 0.0), window=2)
    # After four seconds the server is asked that said so, and not the one that wants nine.
    assert (world.pauses, world.all_opened) == ([4.0], ["a:1", "b:1", "b:1"])


def test_a_server_that_stays_full_is_an_overload() -> None:
    world = World(deque([PASSING[2]] * 99), 1)
    with pytest.raises(OverloadedError, match="a:1 is overloaded"):
        world.run(Exchange("a:1", retry_for_s=3, clock=world.clock), window=2)


def test_the_first_sign_of_a_server_is_waited_for_longer_after_every_silence_and_anew_after_an_answer() -> None:
    silent = [PASSING[0], SILENCE, SILENCE, SILENCE, None, None, PASSING[0], SILENCE]
    world = World(deque(silent), 2)
    world.run(Exchange("a:1", timeout_s=15, clock=world.clock), window=1)
    assert world.answers == [0, 1]
    assert world.patience_s == [FIRST_SIGN_S, FIRST_SIGN_S, 2 * FIRST_SIGN_S, 15, 15, FIRST_SIGN_S, 2 * FIRST_SIGN_S]


def test_a_server_that_gives_no_sign_is_an_error_that_says_how_long_it_was_waited_for() -> None:
    world = World(deque([SILENCE]), 1)
    with pytest.raises(ServerUnavailableError, match="a:1 did not answer within 5 s"):
        world.run(Exchange("a:1", timeout_s=60, retry_for_s=0, clock=world.clock), window=1)


def test_an_answer_that_belongs_to_another_batch_is_an_error() -> None:
    class Confused(World):
        def answer(self, request: pb.PredictRequest) -> pb.PredictResponse:
            answer = super().answer(request)
            answer.request_id = "17"
            return answer

    world = Confused(deque(), 3)
    with pytest.raises(RemoteError, match="a:1 left out the answer to batch 0"):
        world.run(Exchange("a:1", clock=world.clock), window=2)


def model_of(exchange: Exchange, outcomes: dict[str, object]) -> Any:
    """Runs `model` in a world that answers each server's question with its outcome."""
    steps, outcome = exchange.model(), None
    try:
        while True:
            step = steps.send(outcome)
            outcome = outcomes[step.address] if isinstance(step, Ask) else None
    except StopIteration as end:
        return end.value


def model(model_id: str, limit: int = 8) -> pb.GetModelResponse:
    spec = pb.ImageSpec(height=1, width=1, channels=1, resize_rule=RESIZE_RULE)
    return pb.GetModelResponse(model_id=model_id, input=spec, max_request_images=limit)


def test_servers_that_agree_on_their_model_have_the_least_of_their_limits() -> None:
    outcomes = {"a:1": model("x", 9), "b:1": PASSING[0], "c:1": model("x", 5)}
    info = model_of(Exchange(list(outcomes)), outcomes)
    assert (info.model_id, info.max_request_images) == ("x", 5)


def test_servers_of_different_models_are_named() -> None:
    outcomes = {"a:1": model("x"), "b:1": model("y"), "c:1": model("x")}
    with pytest.raises(RemoteError, match=r"different models: x at a:1, c:1; y at b:1: start"):
        model_of(Exchange(list(outcomes)), outcomes)
    with pytest.raises(RemoteError, match="the server at b:1 failed: UNIMPLEMENTED: what"):
        model_of(Exchange("a:1,b:1"), {"a:1": model("x"), "b:1": Failure(grpc.StatusCode.UNIMPLEMENTED, "what")})
    with pytest.raises(ServerUnavailableError, match=r"at a:1, b:1 \(tried 2 times"):
        model_of(Exchange("a:1,b:1", retry_for_s=0), {"a:1": PASSING[0], "b:1": PASSING[1]})
