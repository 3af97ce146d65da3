"""Calls are counted from before their message has come until they end, and there are not more of them than may be."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prelabel.client import PUSHBACK_KEY
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving import server as module
from support.engines import EchoEngine, entered
from support.inside import request, serving_inside
from support.scrape import serving, until

PREDICT = "/prelabel.v1.PrelabelService/Predict"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until_there_is_room(call: Callable[[], Awaitable[object]]) -> None:
    """Asks until the server has noticed that a call has ended."""
    async with asyncio.timeout(30):
        while (code := await code_of(call())) is not grpc.StatusCode.OK:
            assert code is EXHAUSTED


async def test_calls_over_the_limit_are_refused_with_a_time_and_their_places_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_CALLS", 2)
    engine = EchoEngine()
    async with serving(engine) as (server, stub):
        engine.gate.clear()
        running = stub.Predict(request([1]))
        await entered(engine)
        stream = stub.PredictStream()
        await stream.initial_metadata()
        refused = stub.Predict(request([2]))
        with pytest.raises(grpc.aio.AioRpcError, match="2 calls are open") as caught:
            await refused
        assert caught.value.code() is EXHAUSTED
        assert int(dict(await refused.trailing_metadata())[PUSHBACK_KEY]) > 0
        await until(server, lambda read: read['prelabel_rejections_total{cause="queue_full"}'] == 1)
        engine.gate.set()
        await running
        stream.cancel()
        await until_there_is_room(lambda: stub.Predict(request([3])))
    assert engine.seen == {1, 3}


async def test_a_call_whose_message_does_not_come_counts_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_CALLS", 1)
    async with serving_inside(EchoEngine()) as (_, channel):
        stub = PrelabelServiceStub(channel)
        silent = channel.stream_unary(PREDICT)()
        async with asyncio.timeout(30):
            while await code_of(stub.Predict(request([1]))) is not EXHAUSTED:
                if silent.done():  # it came second, and was refused itself
                    silent = channel.stream_unary(PREDICT)()
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        silent.cancel()
        await until_there_is_room(lambda: stub.Predict(request([2])))


async def test_watchers_are_bounded_and_their_places_come_back() -> None:
    async with serving_inside(EchoEngine(), max_connections=2) as (_, channel):
        health = health_pb2_grpc.HealthStub(channel)
        watching = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for call in watching:
            assert (await call.read()).status == 1
        with pytest.raises(grpc.aio.AioRpcError, match="too many calls watch") as caught:
            await health.Watch(health_pb2.HealthCheckRequest()).read()
        assert caught.value.code() is EXHAUSTED
        watching[0].cancel()
        await until_there_is_room(lambda: health.Watch(health_pb2.HealthCheckRequest()).read())


async def test_methods_that_do_not_exist_are_one_series() -> None:
    async with serving(EchoEngine()) as (server, _):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for name in ("prelabel.v1.PrelabelService/A", "inference.GRPCInferenceService/B", "nothing.Here/C"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(f"/{name}")(b"")
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        series = 'prelabel_rpcs_total{code="UNIMPLEMENTED",rpc="other"}'
        await until(server, lambda read: read.get(series) == 2)
