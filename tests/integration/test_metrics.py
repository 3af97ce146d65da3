"""What Prometheus reads from a running server."""

import asyncio
import socket
import urllib.request
from pathlib import Path

import grpc
import grpc.aio
import pytest
from conftest import write_tiny_bundle

from prelabel.bundle import MODEL_FILE, load_bundle
from prelabel.engine import load_engine
from prelabel.errors import InputError
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving.config import Config
from serving.models import Models
from serving.server import Server
from support.engines import EchoEngine, entered
from support.inside import request
from support.scrape import Samples, read, serving, until
from support.servers import run_server

PREDICT, STREAM = ("prelabel.v1.PrelabelService/Predict", "prelabel.v1.PrelabelService/PredictStream")


async def fails(call: "grpc.aio.UnaryUnaryCall[pb.PredictRequest, pb.PredictResponse]") -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_calls_requests_images_and_batches_are_counted() -> None:
    async with serving(EchoEngine(not_finite=frozenset({5})), max_batch_size=2) as (server, stub):
        await stub.Predict(request([4, 5, 6]))
        stream = stub.PredictStream(iter([request([7]), request([8])]))
        assert [int(answer.request_id) async for answer in stream] == [7, 8]
        await stub.GetModel(pb.GetModelRequest())
        samples = await until(server, lambda read: f'prelabel_rpcs_total{{code="OK",rpc="{STREAM}"}}' in read)
    assert samples[f'prelabel_rpcs_total{{code="OK",rpc="{PREDICT}"}}'] == 1
    assert samples[f'prelabel_request_seconds_count{{rpc="{PREDICT}"}}'] == 1
    assert samples[f'prelabel_request_seconds_count{{rpc="{STREAM}"}}'] == 2
    assert samples['prelabel_images_total{outcome="answered"}'] == 4
    assert samples['prelabel_images_total{outcome="unusable"}'] == 1
    assert samples["prelabel_batch_images_sum"] == 5
    assert samples["prelabel_infer_seconds_count"] == samples["prelabel_batch_images_count"] >= 3
    assert samples["prelabel_decode_seconds_count"] == samples["prelabel_encode_seconds_count"] == 3
    assert samples['prelabel_queue_seconds_count{priority="interactive"}'] == 1
    assert samples['prelabel_queue_seconds_count{priority="bulk"}'] == 2
    stages = sum(samples[f"prelabel_{name}_seconds_sum"] for name in ("decode", "encode"))
    assert 0 < stages <= sum(samples[f'prelabel_request_seconds_sum{{rpc="{rpc}"}}'] for rpc in (PREDICT, STREAM))
    assert sum(value for name, value in samples.items() if name.startswith("prelabel_rejections_total")) == 0


async def test_the_queue_is_shown_by_priority_with_its_age_and_limits() -> None:
    engine = EchoEngine()
    async with serving(engine, max_queue_images=100, max_queue_mib=1) as (server, stub):
        assert (await read(server))['prelabel_queue_oldest_age_seconds{priority="interactive"}'] == 0
        engine.gate.clear()
        running = stub.Predict(request([1, 2]))
        await entered(engine)
        waiting = stub.Predict(request([3, 4, 5]))
        stream = stub.PredictStream(iter([request([6])]))
        await until(server, lambda read: read['prelabel_queue_waiting_images{priority="bulk"}'] == 1)
        samples = await until(server, lambda read: read['prelabel_queue_waiting_images{priority="interactive"}'] == 3)
        later = await read(server)
        engine.gate.set()
        await asyncio.gather(running, waiting, stream.read())
    assert samples['prelabel_queue_unanswered_images{priority="interactive"}'] == 5
    assert samples['prelabel_queue_unanswered_bytes{priority="interactive"}'] == 5 * 4
    assert samples['prelabel_queue_unanswered_bytes{priority="bulk"}'] == 4
    assert samples["prelabel_queue_limit_images"] == 100
    assert samples["prelabel_queue_limit_bytes"] == 1 << 20
    for priority in ("interactive", "bulk"):
        name = f'prelabel_queue_oldest_age_seconds{{priority="{priority}"}}'
        assert 0 < samples[name] < later[name]


async def test_requests_that_never_reach_the_engine_are_counted_by_cause() -> None:
    engine = EchoEngine()
    async with serving(engine, max_queue_images=6) as (server, stub):
        engine.gate.clear()
        plug = stub.Predict(request([1]))
        await entered(engine)
        assert await fails(stub.Predict(request([2, 3]), timeout=0.3)) is grpc.StatusCode.DEADLINE_EXCEEDED
        left = stub.Predict(request([4, 5, 6]), timeout=3600)
        # The plug, and the request that will leave: the expired one has to be gone for it.
        await until(server, lambda read: read['prelabel_queue_waiting_images{priority="interactive"}'] == 3)
        assert await fails(stub.Predict(request([7, 8, 9]))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await fails(stub.Predict(pb.PredictRequest())) is grpc.StatusCode.INVALID_ARGUMENT
        left.cancel()
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="cancelled"}'] == 1)
        engine.gate.set()
        await plug
    for cause in ("expired", "queue_full", "invalid"):
        assert samples[f'prelabel_rejections_total{{cause="{cause}"}}'] == 1, cause
    assert samples['prelabel_images_total{outcome="rejected"}'] == 2 + 3 + 3
    assert samples[f'prelabel_rpcs_total{{code="DEADLINE_EXCEEDED",rpc="{PREDICT}"}}'] == 1
    assert samples[f'prelabel_rpcs_total{{code="CANCELLED",rpc="{PREDICT}"}}'] == 1
    assert samples[f'prelabel_rpcs_total{{code="RESOURCE_EXHAUSTED",rpc="{PREDICT}"}}'] == 1
    assert engine.seen == {1}


async def test_bytes_that_are_no_request_are_invalid_ones() -> None:
    many = b"\x2a\x00" * (1 << 20)  # inputs of ModelInfer without end: parsed, they would take a hundred times as much
    async with serving(EchoEngine()) as (server, _):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            assert await fails(channel.unary_unary(f"/{PREDICT}")(b"\xff")) is grpc.StatusCode.INVALID_ARGUMENT
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(many)
            assert await fails(infer) is grpc.StatusCode.INVALID_ARGUMENT
            assert "more than 16384 fields" in (await infer.details() or "")
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.stream_stream(f"/{STREAM}")(iter([b"\xff"])).read()
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="invalid"}'] == 3)
    assert sum(value for name, value in samples.items() if name.startswith("prelabel_rejections_total")) == 3


async def test_what_ends_in_the_engine_is_no_rejection() -> None:
    engine = EchoEngine(broken=frozenset({9}))
    async with serving(engine) as (server, stub):
        assert await fails(stub.Predict(request([9]))) is grpc.StatusCode.INTERNAL
        await entered(engine)
        engine.gate.clear()
        left = stub.Predict(request([1, 2]))
        await entered(engine)
        left.cancel()
        samples = await until(server, lambda read: read['prelabel_images_total{outcome="abandoned"}'] == 2)
        engine.gate.set()
    assert samples['prelabel_images_total{outcome="failed"}'] == 1
    assert sum(value for name, value in samples.items() if name.startswith("prelabel_rejections_total")) == 0


async def test_a_server_without_a_model_is_not_ready_and_counts_what_it_refuses() -> None:
    async with serving(None) as (server, stub):
        assert await fails(stub.Predict(request([1]))) is grpc.StatusCode.UNAVAILABLE
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="no_model"}'] == 1)
    assert samples["prelabel_ready"] == 0
    assert "prelabel_model_info" not in samples.labels


async def test_a_stopping_server_is_not_ready_and_still_shows_what_it_does() -> None:
    engine = EchoEngine()
    async with serving(engine, instances=2) as (server, stub):
        assert (await read(server))["prelabel_ready"] == 1
        engine.gate.clear()
        call = stub.Predict(request([1]))
        await entered(engine)
        stopping = asyncio.create_task(server.stop())
        samples = await until(server, lambda read: read["prelabel_ready"] == 0)
        assert samples['prelabel_queue_unanswered_images{priority="interactive"}'] == 1
        engine.gate.set()
        await call
        await stopping


async def test_each_server_of_a_process_has_its_own_numbers() -> None:
    async with serving(EchoEngine()) as (one, stub), serving(EchoEngine()) as (other, _):
        await stub.Predict(request([1]))
        assert (await read(one))['prelabel_images_total{outcome="answered"}'] == 1
        assert (await read(other))['prelabel_images_total{outcome="answered"}'] == 0


async def test_without_the_option_there_is_no_port() -> None:
    async with serving(EchoEngine(), metrics_port=None) as (server, stub):
        await stub.Predict(request([1]))
        assert server.metrics_port is None


async def test_a_metrics_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = Config(Path("unused"), port=0, metrics_port=port)
        server = Server(Models.of(EchoEngine(), config), config)
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port} for metrics"):
            await server.start()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_metrics_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=f"metrics_port is {port}"):
        Config(Path("unused"), metrics_port=port)


async def test_models_that_come_and_cannot_come_are_shown_and_counted(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "1", "old")
    config = Config(tmp_path, versions="all", port=0, metrics_port=0, reload_every_s=0.0)
    models = Models(tmp_path, lambda directory: load_engine(directory, "cpu", threads=1), config)
    await models.open()
    server = Server(models, config)
    await server.start()
    assert (await read(server))["prelabel_models_failed"] == 0
    new = load_bundle(write_tiny_bundle(tmp_path / "2", "new")).model_id
    (write_tiny_bundle(tmp_path / "3", "bad") / MODEL_FILE).write_bytes(b"changed")
    await models.reload()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = PrelabelServiceStub(channel)
        tensor = pb.ImageTensor(shape=(1, 8, 8, 1), dtype=pb.DATA_TYPE_UINT8, data=bytes(64))
        await stub.Predict(pb.PredictRequest(tensor=tensor))
        assert (
            await fails(stub.Predict(pb.PredictRequest(tensor=tensor, model_version="9"))) is grpc.StatusCode.NOT_FOUND
        )
        info = f'execution_provider="CPUExecutionProvider",model_id="{new}",name="new",version="2"'
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="no_model"}'] == 1)
    await server.stop()
    assert samples[f"prelabel_model_info{{{info}}}"] == 1
    assert samples["prelabel_models_failed"] == 1
    assert samples["prelabel_batch_images_sum"] == 1


async def test_what_is_refused_at_the_door_is_counted_and_made_up_methods_are_one_series(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("alice:0123456789abcdef\n")
    (tmp_path / "tokens").chmod(0o600)
    async with serving(EchoEngine(), token_file=tmp_path / "tokens") as (server, stub):
        assert await fails(stub.Predict(request([1]))) is grpc.StatusCode.UNAUTHENTICATED
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for name in ("A", "B"):
                assert await fails(channel.unary_unary(f"/prelabel.v1.PrelabelService/{name}")(b"")) is (
                    grpc.StatusCode.UNAUTHENTICATED
                )
            reload = channel.unary_unary("/prelabel.v1.AdminService/Reload")
            given = (("authorization", "Bearer 0123456789abcdef"),)
            assert await fails(reload(b"", metadata=given)) is grpc.StatusCode.PERMISSION_DENIED
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="forbidden"}'] == 1)
    assert samples['prelabel_rejections_total{cause="unauthenticated"}'] == 3
    calls = {name: value for name, value in samples.items() if name.startswith("prelabel_rpcs_total")}
    assert calls == {
        f'prelabel_rpcs_total{{code="UNAUTHENTICATED",rpc="{PREDICT}"}}': 1,
        'prelabel_rpcs_total{code="UNAUTHENTICATED",rpc="other"}': 2,
        'prelabel_rpcs_total{code="PERMISSION_DENIED",rpc="prelabel.v1.AdminService/Reload"}': 1,
    }


async def test_callers_over_their_rate_are_told_apart_from_a_full_queue() -> None:
    engine = EchoEngine()
    options = {"rate_limit_images_per_s": 1e-6, "rate_limit_burst_images": 5, "max_queue_images": 2}
    async with serving(engine, **options) as (server, stub):
        engine.gate.clear()
        accepted = stub.Predict(request([1, 2]))
        await entered(engine)
        assert await fails(stub.Predict(request([3, 4]))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        engine.gate.set()
        await accepted
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="queue_full"}'] == 1)
        assert samples['prelabel_rejections_total{cause="rate_limited"}'] == 0
        limited = stub.Predict(request([5, 6]), metadata=(("x-request-id", "r"),))
        assert await fails(limited) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await limited.trailing_metadata())["x-request-id"] == "r"
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictStream(iter([request([7, 8])])).read()
        samples = await until(server, lambda read: read['prelabel_rejections_total{cause="rate_limited"}'] == 2)
    assert samples['prelabel_rejections_total{cause="queue_full"}'] == 1


def test_the_command_serves_metrics_and_says_where(tiny_bundle: Path, tmp_path: Path) -> None:
    with run_server(tiny_bundle, tmp_path / "port", "--metrics-port", "0") as server:
        with urllib.request.urlopen(f"http://{server.started['metrics_address']}/metrics", timeout=30) as response:
            samples = Samples(response.read().decode())
        status, _ = server.terminate()
    assert samples["prelabel_ready"] == 1
    assert samples["process_resident_memory_bytes"] > 1 << 20
    (model,) = [name for name in samples if name.startswith("prelabel_model_info")]
    assert isinstance(server.started["models"], dict)
    ((version, model_id),) = server.started["models"].items()
    assert f'model_id="{model_id}"' in model
    assert f'version="{version}"' in model
    assert 'execution_provider="CPUExecutionProvider"' in model
    assert status == 0
