"""The server in this process, around an engine that shows what reaches it and can be held."""

import asyncio
import logging
import threading
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from prelabel.client import PUSHBACK_KEY, PrelabelClient
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving.service import STREAM_WINDOW, STREAM_WINDOW_IMAGES
from support.engines import EchoEngine, entered, marked, marks_of
from support.inside import request, serving_inside

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_requests_that_arrive_together_are_inferred_together() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, max_queue_delay_ms=3_600_000.0, max_batch_size=12) as (_, channel):
        stub = PrelabelServiceStub(channel)
        calls = [stub.Predict(request([2 * i, 2 * i + 1])) for i in range(6)]
        for i, call in enumerate(calls):
            assert list((await call).realness) == [2 * i, 2 * i + 1]
    (batch,) = engine.batches
    assert sorted(batch) == list(range(12))


async def test_answers_that_are_not_finite_are_item_errors() -> None:
    async with serving_inside(EchoEngine(not_finite=frozenset({5}))) as (_, channel):
        response = await PrelabelServiceStub(channel).Predict(request([4, 5, 6]))
    assert [error.index for error in response.errors] == [1]
    assert "NaN" in response.errors[0].message
    assert list(response.label_index) == [0, -1, 0]


async def test_an_engine_error_is_internal_with_an_id_and_the_next_request_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_inside(EchoEngine(broken=frozenset({5}))) as (_, channel):
        stub = PrelabelServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request([5]))
        assert list((await stub.Predict(request([6]))).realness) == [6]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["error_id"] in caught.value.details()
    assert "secret" not in caught.value.details()
    assert "secret of the engine" in caplog.text


async def test_a_full_queue_is_resource_exhausted() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, max_queue_images=4) as (_, channel):
        stub = PrelabelServiceStub(channel)
        engine.gate.clear()
        accepted = stub.Predict(request([1, 2, 3]))
        await entered(engine)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request([4, 5]))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "3 images" in caught.value.details()
        engine.gate.set()
        assert list((await accepted).realness) == [1, 2, 3]


async def test_what_the_queue_can_never_hold_is_invalid_and_the_announced_number_is_accepted() -> None:
    async with serving_inside(EchoEngine(), max_queue_images=4) as (_, channel):
        stub = PrelabelServiceStub(channel)
        largest = (await stub.GetModel(pb.GetModelRequest())).max_request_images
        assert largest == 4
        assert list((await stub.Predict(request(range(largest)))).realness) == list(range(largest))
        with pytest.raises(grpc.aio.AioRpcError, match="5 images: 1 to 4 wanted") as caught:
            await stub.Predict(request(range(largest + 1)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_server_says_when_to_come_back_and_the_client_does() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, max_queue_images=4) as (server, channel):
        stub = PrelabelServiceStub(channel)
        await stub.Predict(request([1, 2, 3, 4]))  # the server learns its speed
        engine.entered = threading.Semaphore(0)
        engine.gate.clear()
        accepted = stub.Predict(request([1, 2, 3]))
        await entered(engine)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request([4, 5]))
        hints = dict(caught.value.trailing_metadata())
        assert int(hints[PUSHBACK_KEY]) >= 1

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            engine.gate.set()

        slept: list[float] = []
        asked = partial(PrelabelClient, f"127.0.0.1:{server.port}", sleep=sleep, retry_for_s=60)
        answer = await asyncio.to_thread(lambda: asked().predict(marked([4, 5])))
        assert marks_of(answer) == [4, 5]
        assert slept[0] >= int(hints[PUSHBACK_KEY]) / 1000
        await accepted


async def test_a_request_that_expires_while_it_waits_never_reaches_the_engine() -> None:
    engine = EchoEngine()
    async with serving_inside(engine) as (_, channel):
        stub = PrelabelServiceStub(channel)
        engine.gate.clear()
        plug = stub.Predict(request([1]))
        await entered(engine)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request([2]), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        engine.gate.set()
        await plug
        assert list((await stub.Predict(request([3]))).realness) == [3]
    assert engine.seen == {1, 3}


async def test_a_stream_has_its_window_of_batches_in_flight_and_no_more() -> None:
    engine = EchoEngine()
    images = STREAM_WINDOW_IMAGES // STREAM_WINDOW
    async with serving_inside(engine, max_batch_size=images, instances=2 * STREAM_WINDOW) as (_, channel):
        engine.gate.clear()
        starts = range(0, 40 * images, images)
        call = PrelabelServiceStub(channel).PredictStream(request(range(start, start + images)) for start in starts)
        for _ in range(STREAM_WINDOW):
            await entered(engine)
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert sorted(engine.seen) == list(range(STREAM_WINDOW_IMAGES))
        engine.gate.set()
        assert [int(response.request_id) async for response in call] == list(starts)


async def test_a_stream_has_as_many_small_batches_in_flight_as_fill_an_inference() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, max_batch_size=1, instances=1) as (server, channel):
        engine.gate.clear()
        call = PrelabelServiceStub(channel).PredictStream(request([i]) for i in range(2 * STREAM_WINDOW_IMAGES))
        await entered(engine)
        model = server._models.default
        assert model is not None
        while (waiting := model.batcher.queue_state()["bulk"].unanswered_images) < STREAM_WINDOW_IMAGES:
            await asyncio.sleep(0)
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert model.batcher.queue_state()["bulk"].unanswered_images == waiting == STREAM_WINDOW_IMAGES
        engine.gate.set()
        assert len([response async for response in call]) == 2 * STREAM_WINDOW_IMAGES


async def test_a_stream_shows_a_sign_of_its_server_before_the_first_request() -> None:
    async with serving_inside(EchoEngine()) as (_, channel):
        stream = PrelabelServiceStub(channel).PredictStream()
        async with asyncio.timeout(60):
            await stream.initial_metadata()
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_small_batches_of_one_stream_are_joined() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, max_queue_delay_ms=3_600_000.0, max_batch_size=STREAM_WINDOW) as (_, channel):
        call = PrelabelServiceStub(channel).PredictStream(request([i]) for i in range(STREAM_WINDOW))
        assert [int(response.request_id) async for response in call] == list(range(STREAM_WINDOW))
    assert engine.batches == [list(range(STREAM_WINDOW))]


async def test_without_a_model_the_server_is_unavailable_and_not_serving() -> None:
    async with serving_inside(None) as (_, channel):
        stub, health = PrelabelServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        for call in (stub.GetModel(pb.GetModelRequest()), stub.Predict(request([1]))):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "holds no model" in caught.value.details()
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING


async def test_a_stopping_server_says_so_answers_what_it_has_and_takes_nothing_new() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, instances=2) as (server, channel):
        stub, health = PrelabelServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="prelabel.v1.PrelabelService"))
        assert (await watch.read()).status == SERVING
        engine.gate.clear()
        call, stream = stub.Predict(request([1])), stub.PredictStream()
        await entered(engine)
        await stream.write(request([2]))
        await entered(engine)
        stopping = asyncio.create_task(server.stop())
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Predict(request([9]))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        engine.gate.set()
        assert list((await call).realness) == [1]
        assert (await stream.read()).request_id == "2"
        with pytest.raises(grpc.aio.AioRpcError, match="send the unanswered requests again") as ended:
            await stream.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        await stopping
    assert engine.seen == {1, 2}


async def test_a_server_whose_time_to_stop_is_over_breaks_off_and_ends() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, drain_timeout_s=0.1) as (server, channel):
        engine.gate.clear()
        call = PrelabelServiceStub(channel).Predict(request([1]))
        await entered(engine)
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        engine.gate.set()
        await stopping


async def test_an_idle_reflection_stream_does_not_hold_a_stopping_server() -> None:
    async with serving_inside(EchoEngine(), drain_timeout_s=3600.0) as (server, channel):
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await stream.read()).list_services_response.service
        async with asyncio.timeout(60):
            await server.stop()
        with pytest.raises(grpc.aio.AioRpcError, match="the server is stopping") as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tokens_that_travel_unencrypted_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("user:the-token-of-a-user\n")
    tokens.chmod(0o600)
    async with serving_inside(EchoEngine(), token_file=tokens):
        assert "unencrypted" not in caplog.text
    async with serving_inside(EchoEngine(), token_file=tokens, host="0.0.0.0"):
        assert "tokens travel unencrypted" in caplog.text


async def test_clients_that_leave_free_their_places() -> None:
    engine = EchoEngine()
    async with serving_inside(engine, max_queue_images=20, instances=2, max_batch_size=1) as (_, channel):
        stub = PrelabelServiceStub(channel)
        engine.gate.clear()
        stream = stub.PredictStream(request([100 + i]) for i in range(5))
        await entered(engine)
        call = stub.Predict(request(range(200, 210)))
        await entered(engine)
        stream.cancel()
        call.cancel()
        engine.gate.set()
        # The cancellations take a moment; then all 20 places are free again.
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = await stub.Predict(request(range(1, 21)))
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
    assert list(answer.realness) == list(range(1, 21))
