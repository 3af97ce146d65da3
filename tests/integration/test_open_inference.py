"""The Open Inference Protocol on the real server, by hand-made messages; test_tritonclient.py has another client."""

import asyncio
import dataclasses
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from conftest import write_tiny_bundle
from PIL import Image

from prelabel.bundle import BUNDLE_FILE, load_bundle
from prelabel.client import PUSHBACK_KEY, PrelabelClient
from prelabel.images import Pixels
from prelabel.v1 import prelabel_pb2 as v1
from serving.config import Config
from serving.inference_v2 import open_inference_pb2 as pb
from serving.inference_v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serving.models import Models
from serving.server import Server
from support.engines import EchoEngine, marked
from support.scrape import Samples, scrape, serving
from support.servers import RunningServer, run_server

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def v2(server: RunningServer) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def request(images: Pixels, model: str = "tiny", version: str = "") -> pb.ModelInferRequest:
    infer = pb.ModelInferRequest(model_name=model, model_version=version, id="mine")
    infer.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    infer.raw_input_contents.append(images.tobytes())
    return infer


def encoded(*files: bytes) -> pb.ModelInferRequest:
    infer = pb.ModelInferRequest(model_name="tiny")
    infer.inputs.add(name="encoded", datatype="BYTES", shape=[len(files)])
    infer.inputs[0].contents.bytes_contents.extend(files)
    return infer


def column(response: pb.ModelInferResponse, name: str) -> np.ndarray:
    position = [output.name for output in response.outputs].index(name)
    shape = list(response.outputs[position].shape)
    return np.frombuffer(response.raw_output_contents[position], "<f4").reshape(shape)


@pytest.fixture
def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 200).save(file, "PNG")
    return file.getvalue()


def random_images(count: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), np.uint8)


def test_answers_are_those_of_prelabel_v1_bit_for_bit(v2: GRPCInferenceServiceStub, client: PrelabelClient) -> None:
    images = random_images(300)
    response, wanted = v2.ModelInfer(request(images)), client.predict(images)
    assert [output.name for output in response.outputs] == ["probabilities", "realness"]
    assert [output.datatype for output in response.outputs] == ["FP32", "FP32"]
    np.testing.assert_array_equal(column(response, "probabilities"), wanted.probabilities)
    np.testing.assert_array_equal(column(response, "realness"), wanted.realness)
    assert (response.model_name, response.model_version, response.id) == ("tiny", wanted.model_id, "mine")
    assert dict(response.parameters) == {}


def test_typed_contents_get_the_same_answers(v2: GRPCInferenceServiceStub) -> None:
    images = random_images(5)
    typed = request(images)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(images.ravel().tolist())
    assert v2.ModelInfer(typed) == v2.ModelInfer(request(images))


def test_outputs_come_as_requested(v2: GRPCInferenceServiceStub) -> None:
    images = random_images(3)
    every = v2.ModelInfer(request(images))
    chosen = request(images)
    chosen.outputs.add(name="realness")
    only = v2.ModelInfer(chosen)
    assert [output.name for output in only.outputs] == ["realness"]
    assert list(only.raw_output_contents) == [every.raw_output_contents[1]]
    chosen.outputs.add(name="probabilities")
    assert list(v2.ModelInfer(chosen).raw_output_contents) == [*reversed(every.raw_output_contents)]


def test_files_that_cannot_be_decoded_are_rows_of_nan_and_the_errors_say_why(
    v2: GRPCInferenceServiceStub, client: PrelabelClient, png: bytes
) -> None:
    files = [png, png[:50], png, b""]
    response, wanted = v2.ModelInfer(encoded(*files)), client.predict(files)
    np.testing.assert_array_equal(column(response, "probabilities"), wanted.probabilities)
    np.testing.assert_array_equal(column(response, "realness"), wanted.realness)
    assert np.isnan(column(response, "probabilities")).all(axis=1).tolist() == [False, True, False, True]
    errors = json.loads(response.parameters["errors"].string_param)
    assert {int(index): message for index, message in errors.items()} == wanted.errors
    assert sorted(errors) == ["1", "3"]


def test_a_request_of_nothing_but_broken_files_is_answered(v2: GRPCInferenceServiceStub) -> None:
    response = v2.ModelInfer(encoded(b"x", b"y"))
    assert column(response, "probabilities").shape == (2, 3)
    assert sorted(json.loads(response.parameters["errors"].string_param)) == ["0", "1"]


def test_the_model_is_described(v2: GRPCInferenceServiceStub, client: PrelabelClient) -> None:
    about, model = v2.ModelMetadata(pb.ModelMetadataRequest(name="tiny")), client.model()
    assert (about.name, list(about.versions), about.platform) == ("tiny", [model.model_id], "onnx_onnxv1")
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in [*about.inputs, *about.outputs]]
    assert tensors == [
        ("images", "UINT8", [-1, 8, 8, 1]),
        ("probabilities", "FP32", [-1, 3]),
        ("realness", "FP32", [-1]),
    ]
    assert json.loads(about.properties["classes"]) == list(model.classes)
    assert int(about.properties["max_request_images"]) == model.max_request_images
    assert json.loads(about.properties["alternative_input"]) == {"name": "encoded", "datatype": "BYTES", "shape": [-1]}


def test_a_version_is_a_model_id_and_an_unknown_one_is_not_found(
    v2: GRPCInferenceServiceStub, tiny_bundle: Path
) -> None:
    model_id, images = load_bundle(tiny_bundle).model_id, random_images(1)
    assert v2.ModelInfer(request(images, version=model_id)).model_version == model_id
    assert v2.ModelReady(pb.ModelReadyRequest(name="tiny", version=model_id)).ready
    for name, version in (("other", ""), ("tiny", "1"), ("x" * 100_000, ""), ("tiny", "x" * 100_000)):
        assert not v2.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready
        for call in (
            lambda name=name, version=version: v2.ModelInfer(request(images, name, version)),
            lambda name=name, version=version: v2.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is NOT_FOUND
            assert "is not served here" in caught.value.details()


def test_a_request_without_a_model_name_is_invalid(v2: GRPCInferenceServiceStub) -> None:
    assert not v2.ModelReady(pb.ModelReadyRequest()).ready
    with pytest.raises(grpc.RpcError, match="names no model") as caught:
        v2.ModelInfer(request(random_images(1), model=""))
    assert caught.value.code() is INVALID


def test_a_request_that_does_not_fit_is_invalid_and_says_what_was_given(v2: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        v2.ModelInfer(request(np.zeros((2, 8, 9, 1), np.uint8)))
    assert caught.value.code() is INVALID
    assert "[2, 8, 9, 1]: [B, 8, 8, 1] wanted" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        v2.ModelInfer(request(np.zeros((4097, 8, 8, 1), np.uint8)))
    assert caught.value.code() is INVALID
    assert "1 to 4096 images" in caught.value.details()


def test_the_largest_request_and_its_answer_fit(v2: GRPCInferenceServiceStub) -> None:
    assert column(v2.ModelInfer(request(random_images(4096))), "probabilities").shape == (4096, 3)


@pytest.mark.parametrize("method", ["ModelStreamInfer", "ModelConfig", "RepositoryModelLoad"])
def test_extensions_of_other_servers_are_a_clear_unimplemented(server: RunningServer, method: str) -> None:
    path = f"/inference.GRPCInferenceService/{method}"
    with grpc.insecure_channel(server.address) as channel:
        for call in (lambda: channel.unary_unary(path)(b"x"), lambda: list(channel.stream_stream(path)(iter([b"x"])))):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is UNIMPLEMENTED
            assert f"{path} is not part of" in caught.value.details()
            assert "PredictStream" in caught.value.details()


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/ModelInfer", "/prelabel.v1.PrelabelService/Predict"])
def test_bytes_that_are_no_message_are_invalid(server: RunningServer, path: str) -> None:
    with (
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError, match="are no request message of") as caught,
    ):
        channel.unary_unary(path)(b"\xff" * 9)
    assert caught.value.code() is INVALID


def test_bytes_that_are_no_message_end_a_stream_after_the_answers_before_them(server: RunningServer) -> None:
    good = v1.PredictRequest(request_id="a", tensor=v1.ImageTensor(shape=(1, 8, 8, 1), dtype=1, data=bytes(64)))
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            "/prelabel.v1.PrelabelService/PredictStream", response_deserializer=v1.PredictResponse.FromString
        )(iter([good.SerializeToString(), b"\xff" * 9]))
        assert next(call).request_id == "a"
        with pytest.raises(grpc.RpcError, match="are no request message of") as caught:
            next(call)
    assert caught.value.code() is INVALID


def test_other_services_stay_unknown(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/other.Service/Method")(b"")
    assert caught.value.code() is UNIMPLEMENTED
    assert "Open Inference" not in caught.value.details()


@asynccontextmanager
async def inside(engine: EchoEngine | None, **options: object) -> AsyncIterator[GRPCInferenceServiceStub]:
    """The server in this process, around an engine that shows what reaches it and can be held."""
    config = Config(Path("unused"), port=0, **{"instances": 1, "max_queue_delay_ms": 0.0, **options})
    server = Server(Models.of(engine, config), config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield GRPCInferenceServiceStub(channel)
    await server.stop()


def echo(mark: int, timeout_us: int = 0) -> pb.ModelInferRequest:
    infer = request(marked([mark]), model="echo")
    infer.parameters["timeout"].int64_param = timeout_us
    return infer


async def entered(engine: EchoEngine) -> None:
    assert await asyncio.to_thread(engine.entered.acquire, timeout=30)


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


def test_versions_of_a_repository_are_served_side_by_side(tmp_path: Path) -> None:
    names = {"1": "old", "2": "tiny", "3": "tiny"}
    ids = {}
    for version, name in names.items():
        bundle = write_tiny_bundle(tmp_path / "models" / version, name)
        changed = dataclasses.replace(load_bundle(bundle), training={"version": version})
        (bundle / BUNDLE_FILE).write_text(changed.to_json())
        ids[version] = changed.model_id
    with (
        run_server(tmp_path / "models", tmp_path / "port", "--versions", "all") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        v2 = GRPCInferenceServiceStub(channel)
        assert list(v2.ModelMetadata(pb.ModelMetadataRequest(name="tiny")).versions) == [ids["2"], ids["3"]]
        images = random_images(2)
        asked = {("tiny", ""): "3", ("tiny", "2"): "2", ("tiny", ids["2"]): "2", ("old", ""): "1", ("old", "1"): "1"}
        for (name, version), wanted in asked.items():
            assert v2.ModelInfer(request(images, name, version)).model_version == ids[wanted]
        with pytest.raises(grpc.RpcError, match="model 'old' is not served here as version '3', but 'tiny'") as caught:
            v2.ModelInfer(request(images, "old", "3"))
        assert caught.value.code() is NOT_FOUND


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
        async with asyncio.timeout(30):  # a client may have its answer before the call is counted
            while (invented := 'prelabel_rpcs_total{code="UNIMPLEMENTED",rpc="other"}') not in (
                samples := Samples(await scrape(server))
            ):
                pass
    assert samples[f'prelabel_rpcs_total{{code="OK",rpc="{rpc}"}}'] == 1
    assert samples[f'prelabel_rpcs_total{{code="NOT_FOUND",rpc="{rpc}"}}'] == 1
    assert samples[invented] == 1
    assert samples['prelabel_images_total{outcome="answered"}'] == 2
    assert samples['prelabel_images_total{outcome="unusable"}'] == 1
    assert samples['prelabel_rejections_total{cause="no_model"}'] == 1
    assert samples["prelabel_decode_seconds_count"] == samples["prelabel_encode_seconds_count"] == 1
