"""The Open Inference Protocol on the server in this process, around an engine that can be held."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from prelabel.client import PUSHBACK_KEY
from serving.inference_v2 import open_inference_pb2 as pb
from serving.inference_v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from support.engines import EchoEngine, entered, marked
from support.inside import serving_inside
from support.open_inference import column, request
from support.scrape import serving, until


@asynccontextmanager
async def inside(engine: EchoEngine | None, **options: object) -> AsyncIterator[GRPCInferenceServiceStub]:
    async with serving_inside(engine, **options) as (_, channel):
        yield GRPCInferenceServiceStub(channel)


def echo(mark: int, timeout_us: int = 0) -> pb.ModelInferRequest:
    infer = request(marked([mark]), model="echo")
    infer.parameters["timeout"].int64_param = timeout_us
    return infer


async def test_a_timeout_is_answered_although_the_engine_is_busy_and_the_request_never_reaches_it() -> None:
    engine = EchoEngine()
    async with inside(engine) as v2:
        engine.gate.clear()
        plug = v2.ModelInfer(echo(1))
        await entered(engine)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await v2.ModelInfer(echo(2, timeout_us=50_000))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "timeout of 0.05 s passed" in caught.value.details()
        engine.gate.set()
        await plug
        assert column(await v2.ModelInfer(echo(3, timeout_us=60_000_000)), "realness").tolist() == [3]
    assert engine.seen == {1, 3}


async def test_without_a_model_the_server_is_live_and_not_ready() -> None:
    async with inside(None) as v2:
        assert (await v2.ServerLive(pb.ServerLiveRequest())).live
        assert not (await v2.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await v2.ModelReady(pb.ModelReadyRequest(name="echo"))).ready
        with pytest.raises(grpc.aio.AioRpcError, match="holds no model") as caught:
            await v2.ModelInfer(echo(1))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_over_its_rate_is_told_when_to_come_back() -> None:
    async with inside(EchoEngine(), rate_limit_images_per_s=0.001, rate_limit_burst_images=2) as v2:
        await v2.ModelInfer(request(marked([1, 2]), model="echo"))
        assert (await v2.ServerReady(pb.ServerReadyRequest())).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await v2.ModelInfer(echo(3))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())[PUSHBACK_KEY]) >= 1


async def test_without_a_valid_token_nothing_is_answered(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("alice:0123456789abcdef\n")
    tokens.chmod(0o600)
    async with inside(EchoEngine(), token_file=tokens) as v2:
        for call in (v2.ModelInfer(echo(1)), v2.ServerLive(pb.ServerLiveRequest())):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        authorization = (("authorization", "Bearer 0123456789abcdef"),)
        assert column(await v2.ModelInfer(echo(1), metadata=authorization), "realness").tolist() == [1]


async def test_its_requests_are_counted_and_methods_that_do_not_exist_make_no_metrics_of_their_own() -> None:
    rpc = "inference.GRPCInferenceService/ModelInfer"
    async with serving(EchoEngine(not_finite=frozenset({5}))) as (server, _):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            v2 = GRPCInferenceServiceStub(channel)
            await v2.ModelInfer(request(marked([4, 5, 6]), model="echo"))
            with pytest.raises(grpc.aio.AioRpcError):
                await v2.ModelInfer(request(marked([4]), model="other"))
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/inference.GRPCInferenceService/Invented")(b"")
        invented = 'prelabel_rpcs_total{code="UNIMPLEMENTED",rpc="other"}'
        samples = await until(server, lambda read: invented in read)
    assert samples[f'prelabel_rpcs_total{{code="OK",rpc="{rpc}"}}'] == 1
    assert samples[f'prelabel_rpcs_total{{code="NOT_FOUND",rpc="{rpc}"}}'] == 1
    assert samples[invented] == 1
    assert samples['prelabel_images_total{outcome="answered"}'] == 2
    assert samples['prelabel_images_total{outcome="unusable"}'] == 1
    assert samples['prelabel_rejections_total{cause="no_model"}'] == 1
    assert samples["prelabel_decode_seconds_count"] == samples["prelabel_encode_seconds_count"] == 1
