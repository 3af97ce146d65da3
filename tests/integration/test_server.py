"""The server as users meet it: a process, real sockets, ONNX Runtime, the tiny model of tests/conftest.py."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from prelabel.bundle import load_bundle
from prelabel.client import PrelabelClient
from prelabel.engine import load_engine
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from support.servers import RunningServer

SERVICE = "prelabel.v1.PrelabelService"
OPEN_INFERENCE = "inference.GRPCInferenceService"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def image(first_pixel: int) -> NDArray[np.uint8]:
    """uint8 [8, 8, 1]; the tiny model's classes are low (32), middle (128), high (224) by the first pixel."""
    pixels = np.zeros((8, 8, 1), np.uint8)
    pixels[0, 0], pixels[0, 1] = first_pixel, 128
    return pixels


def encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(file, kind, **options)
    return file.getvalue()


def tensor(
    shape: tuple[int, ...] = (2, 8, 8, 1), dtype: int = pb.DATA_TYPE_UINT8, size: int | None = None
) -> pb.PredictRequest:
    data = bytes(int(np.prod(shape)) if size is None else size)
    return pb.PredictRequest(tensor=pb.ImageTensor(shape=shape, dtype=dtype, data=data))


def test_the_model_is_described(client: PrelabelClient, tiny_bundle: Path) -> None:
    model, bundle = client.model(), load_bundle(tiny_bundle)
    assert (model.model_id, model.name, model.classes, model.input) == (
        bundle.model_id,
        "tiny",
        ("low", "middle", "high"),
        bundle.input,
    )
    assert (model.execution_provider, model.max_request_images) == ("CPUExecutionProvider", 4096)


def test_a_tensor_gets_the_answers_of_the_model(client: PrelabelClient, tiny_bundle: Path) -> None:
    images = np.stack([image(pixel) for pixel in (230, 20, 140, 255, 0)])
    batch = client.predict(images)
    assert batch.label_index.tolist() == [2, 0, 1, 2, 0]
    assert batch.errors == {}
    wanted = load_engine(tiny_bundle, "cpu").predict(images)
    np.testing.assert_allclose(batch.probabilities, wanted.probabilities, atol=1e-6)
    np.testing.assert_allclose(batch.realness, wanted.realness, atol=1e-6)
    assert batch.model_id == wanted.model_id


def test_the_response_repeats_what_its_columns_say(stub: PrelabelServiceStub) -> None:
    request = pb.PredictRequest(request_id="mine", tensor=tensor().tensor)
    response = stub.Predict(request)
    probabilities = np.array(response.probabilities).reshape(2, 3)
    assert response.request_id == "mine"
    assert list(response.label_index) == probabilities.argmax(axis=1).tolist()
    np.testing.assert_array_equal(response.confidence, probabilities.max(axis=1))


def test_image_files_are_decoded_and_a_truncated_one_is_an_error_of_its_item(client: PrelabelClient) -> None:
    flat = np.full((16, 16, 1), 225, np.uint8)
    files = [
        encoded(image(30), "PNG"),
        encoded(image(130), "PNG")[:50],
        encoded(flat, "JPEG", quality=95),
        b"",
        encoded(image(130), "BMP"),
    ]
    batch = client.predict(files)
    assert batch.label_index.tolist() == [0, -1, 2, -1, 1]
    assert list(batch.errors) == [1, 3]
    assert "empty" in batch.errors[3]
    assert np.isnan(batch.probabilities[[1, 3]]).all()
    assert np.isfinite(batch.probabilities[[0, 2, 4]]).all()


def test_a_request_of_nothing_but_broken_files_is_answered(client: PrelabelClient) -> None:
    batch = client.predict([b"x", b"y", b"z"])
    assert list(batch.errors) == [0, 1, 2]
    assert batch.probabilities.shape == (3, 3)
    assert batch.model_id == client.model().model_id


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (tensor((2, 8, 9, 1)), "[2, 8, 9, 1]"),
        (tensor((2, 8, 8, 3)), "[2, 8, 8, 3]"),
        (tensor((8, 8, 1)), "3 dimensions"),
        (tensor((0, 8, 8, 1)), "0 images"),
        (tensor((4097, 8, 8, 1), size=0), "4097 images"),
        (tensor((2**32 - 1,) * 4, size=10), "4294967295 images"),
        (tensor(dtype=pb.DATA_TYPE_UNSPECIFIED), "DATA_TYPE_UNSPECIFIED"),
        (tensor(dtype=77), "77"),
        (tensor(size=127), "127 bytes"),
        (tensor(size=129), "129 bytes"),
        (pb.PredictRequest(tensor=pb.ImageTensor()), "0 images"),
        (pb.PredictRequest(encoded=pb.EncodedImages()), "0 images"),
        (pb.PredictRequest(encoded=pb.EncodedImages(images=[b""] * 4097)), "4097 images"),
        (pb.PredictRequest(request_id="x"), "no images"),
        (pb.PredictRequest(request_id="x" * 1025), "request_id has 1025 characters: at most 1024 wanted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_request_is_invalid_and_says_what_was_given(
    stub: PrelabelServiceStub, request_: pb.PredictRequest, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request_)
    assert caught.value.code() is INVALID
    assert text in caught.value.details()


def test_a_stream_of_many_batches_is_answered_in_order(client: PrelabelClient) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, 400).tolist()
    sizes = [1 + i % 7 for i in range(100)]
    ends = np.cumsum(sizes)
    batches = [
        np.stack([image(pixel) for pixel in pixels[end - size : end]]) for end, size in zip(ends, sizes, strict=True)
    ]
    answers = list(client.predict_stream(batches, window=16))
    assert [len(answer) for answer in answers] == sizes
    labels = np.concatenate([answer.label_index for answer in answers])
    centres = np.array([32, 128, 224])
    np.testing.assert_array_equal(labels, abs(np.array(pixels[: len(labels)])[:, None] - centres).argmin(axis=1))


def test_a_bad_request_ends_the_stream_after_the_earlier_answers(stub: PrelabelServiceStub) -> None:
    def requests() -> Iterator[pb.PredictRequest]:
        yield pb.PredictRequest(request_id="a", tensor=tensor().tensor)
        yield pb.PredictRequest(request_id="b", tensor=tensor((1, 8, 8, 1)).tensor)
        yield tensor((1, 2, 3, 4))
        yield tensor()

    call = stub.PredictStream(requests())
    assert [next(call).request_id, next(call).request_id] == ["a", "b"]
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is INVALID
    assert "[1, 2, 3, 4]" in caught.value.details()


def test_health(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE, OPEN_INFERENCE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watched = next(stub.Watch(health_pb2.HealthCheckRequest(service="other")))
        assert watched.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert set(stub.List(health_pb2.HealthListRequest()).statuses) == {"", SERVICE, OPEN_INFERENCE}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 256, f"no service '{'x' * 80}' here"),
        ("\U0010ffff" * 256, r"no service '\U0010ffff\U0010ffff"),
        ("x" * 1_000_000, "no service of 1000000 characters here"),
    ],
    ids=["long", "escaped", "huge"],
)
def test_a_health_check_repeats_little_of_what_it_was_asked(server: RunningServer, name: str, said: str) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().startswith(said)
    assert len(caught.value.details()) < 1000


def test_the_health_command(server: RunningServer) -> None:
    def check(address: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "serving.health", "--address", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    good = check(server.address)
    assert (good.returncode, good.stdout.split()[-1]) == (0, "SERVING")
    bad = check("127.0.0.1:1")
    assert bad.returncode == 1
    assert "UNAVAILABLE" in bad.stdout
    assert bad.stderr == ""


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_and_describes_the_service(server: RunningServer, version: str) -> None:
    wanted = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    with grpc.insecure_channel(server.address) as channel:
        if version == "v1":
            call = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
        else:
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        listed, described = call(iter(wanted))
    assert {SERVICE, OPEN_INFERENCE, "grpc.health.v1.Health"} <= {
        service.name for service in listed.list_services_response.service
    }
    assert any(b"PredictStream" in file for file in described.file_descriptor_response.file_descriptor_proto)


async def test_a_connection_with_many_calls_at_a_time_loses_none(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = PrelabelServiceStub(channel)

        async def caller() -> None:
            for _ in range(100):
                assert len((await stub.Predict(tensor())).realness) == 2

        await asyncio.gather(*(caller() for _ in range(90)))
