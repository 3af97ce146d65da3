"""Request ids, the access log, and what an observer is told, from a real server in this process."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc
import grpc.aio
import pytest

from prelabel.client import PUSHBACK_KEY
from prelabel.v1 import prelabel_pb2 as pb
from serving.logs import JsonFormatter
from serving.requests import Observer, RequestRecord, Rpc
from support.engines import ECHO_BUNDLE, EchoEngine, entered
from support.inside import request
from support.scrape import serving


@contextmanager
def json_lines(level: str) -> Iterator[list[dict[str, object]]]:
    """What the server would write to stderr."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("serving")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    lines: list[dict[str, object]] = []
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        lines += [json.loads(line) for line in text.getvalue().splitlines()]


async def test_the_request_id_is_in_the_answer_the_error_and_the_log() -> None:
    with json_lines("INFO") as lines:
        async with serving(EchoEngine(broken=frozenset({5}))) as (_, stub):
            given = (("x-request-id", "job-7/page-3"),)
            call = stub.Predict(request([1]), metadata=given)
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "job-7/page-3"
            made_up = stub.Predict(request([1]), metadata=(("x-request-id", "not sane"),))
            await made_up
            assert len(dict(await made_up.trailing_metadata())["x-request-id"]) == 32
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Predict(request([5]), metadata=given)
            assert dict(caught.value.trailing_metadata())["x-request-id"] == "job-7/page-3"
            stream = stub.PredictStream(iter([request([5])]), metadata=(("x-request-id", "stream-1"),))
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
            assert dict(await stream.trailing_metadata())["x-request-id"] == "stream-1"
    errors = [line for line in lines if line["level"] == "error"]
    assert [line["request_id"] for line in errors] == ["job-7/page-3", "stream-1"]
    assert str(errors[0]["error_id"]) in (caught.value.details() or "")
    assert all("request_id" not in line for line in lines if line not in errors)


async def test_a_full_server_gives_the_request_id_beside_the_time_to_come_back() -> None:
    engine = EchoEngine()
    async with serving(engine, max_queue_images=2) as (_, stub):
        await stub.Predict(request([1, 2]))  # the server learns its speed
        await entered(engine)
        engine.gate.clear()
        accepted = stub.Predict(request([3]))
        await entered(engine)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request([4, 5]), metadata=(("x-request-id", "r"),))
        engine.gate.set()
        await accepted
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(caught.value.trailing_metadata())
    assert trailing["x-request-id"] == "r"
    assert int(trailing[PUSHBACK_KEY]) >= 1


async def test_the_access_log_has_a_line_for_each_call_at_debug_level_only() -> None:
    secret = (("authorization", "Bearer secret"), ("x-request-id", "r1"))
    with json_lines("DEBUG") as lines:
        async with serving(EchoEngine()) as (_, stub):
            await stub.Predict(request([1, 2, 3]), metadata=secret)
            async for _ in stub.PredictStream(iter([request([1, 2]), request([3, 4])])):
                pass
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Predict(pb.PredictRequest())
    calls = [line for line in lines if line["message"] == "call"]
    assert [(str(line["rpc"]).rpartition("/")[2], line["code"], line["images"]) for line in calls] == [
        ("Predict", "OK", 3),
        ("PredictStream", "OK", 4),
        ("Predict", "INVALID_ARGUMENT", 0),
    ]
    first = calls[0]
    assert first["request_id"] == "r1"
    assert str(first["peer"]).startswith("ipv4:127.0.0.1:")
    assert isinstance(first["duration_ms"], float)
    assert first["duration_ms"] > 0
    assert "secret" not in json.dumps(lines)
    with json_lines("INFO") as lines:
        async with serving(EchoEngine()) as (_, stub):
            await stub.Predict(request([1]))
    assert "call" not in [line["message"] for line in lines]


class Recorder(Observer):
    """What a benchmark needs to draw a batch's time-line."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.calls: list[Rpc] = []

    def request_ended(self, request: RequestRecord) -> None:
        self.requests.append(request)

    def rpc_ended(self, rpc: Rpc) -> None:
        self.calls.append(rpc)


async def test_an_observer_can_draw_the_time_line_of_a_batch() -> None:
    recorder = Recorder()
    options = {"max_queue_delay_ms": 3_600_000.0, "max_batch_size": 3}
    async with serving(EchoEngine(), [recorder], **options) as (_, stub):

        async def messages() -> AsyncIterator[pb.PredictRequest]:
            yield request([1, 2])
            yield request([3])

        async for _ in stub.PredictStream(messages()):
            pass
    (run,) = {stage.run for one in recorder.requests for stage in one.stages if stage.run}
    assert (run.images, run.model_id) == (3, ECHO_BUNDLE.model_id)
    assert run.formed_at_s <= run.started_at_s < run.ended_at_s
    for one in recorder.requests:
        decode, queue, infer, encode = one.stages
        assert [stage.name for stage in one.stages] == ["decode", "queue", "infer", "encode"]
        assert one.started_at_s <= decode.started_at_s <= decode.ended_at_s <= queue.started_at_s <= run.formed_at_s
        assert (queue.ended_at_s, infer.ended_at_s) == (run.started_at_s, run.ended_at_s)
        assert infer.ended_at_s <= encode.started_at_s < encode.ended_at_s <= one.ended_at_s
    (call,) = recorder.calls
    assert call.images == 3
    assert call.ended_at_s >= max(one.ended_at_s for one in recorder.requests)
