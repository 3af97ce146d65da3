"""The Open Inference Protocol on the real server, by hand-made messages; test_tritonclient.py has another client."""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from conftest import write_tiny_bundle
from PIL import Image

from prelabel.bundle import BUNDLE_FILE, load_bundle
from prelabel.client import PrelabelClient
from prelabel.images import Pixels
from prelabel.v1 import prelabel_pb2 as v1
from serving.inference_v2 import open_inference_pb2 as pb
from serving.inference_v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from support.open_inference import column, request
from support.servers import RunningServer, run_server

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def v2(server: RunningServer) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def encoded(*files: bytes) -> pb.ModelInferRequest:
    infer = pb.ModelInferRequest(model_name="tiny")
    infer.inputs.add(name="encoded", datatype="BYTES", shape=[len(files)])
    infer.inputs[0].contents.bytes_contents.extend(files)
    return infer


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
