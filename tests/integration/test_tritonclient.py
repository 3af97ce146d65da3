"""Conformance: NVIDIA's own client, sync and asyncio, against the real server's process."""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

import prelabel
from prelabel.client import PrelabelClient
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch
from serving.inference_v2 import open_inference_pb2 as pb
from support import triton
from support.servers import RunningServer

T = TypeVar("T")

IMAGES: Pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


FILES = [png(20), b"", png(130)[:40], png(230)]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Runs a function in a process that has not loaded serving/inference_v2."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(triton.run, function, *arguments).result(timeout=120)


@pytest.fixture(scope="module")
def sync_answers(server: RunningServer, elsewhere: Callable[..., Any]) -> dict[str, Any]:
    answers: dict[str, Any] = elsewhere(triton.sync_client, server.address, IMAGES, FILES)
    return answers


@pytest.fixture(scope="module")
def asyncio_answers(server: RunningServer, elsewhere: Callable[..., Any]) -> dict[str, Any]:
    answers: dict[str, Any] = elsewhere(triton.asyncio_client, server.address, IMAGES, FILES)
    return answers


def assert_same(answer: dict[str, Any], wanted: PredictionBatch) -> None:
    """The outputs are those of prelabel.v1, bit for bit."""
    assert answer["outputs"]["probabilities"].dtype == answer["outputs"]["realness"].dtype == np.float32
    np.testing.assert_array_equal(answer["outputs"]["probabilities"], wanted.probabilities)
    np.testing.assert_array_equal(answer["outputs"]["realness"], wanted.realness)
    assert answer["model"] == ("tiny", wanted.model_id)
    errors = json.loads(answer["parameters"].get("errors", "{}"))
    assert {int(index): message for index, message in errors.items()} == wanted.errors


def test_health(sync_answers: dict[str, Any], asyncio_answers: dict[str, Any]) -> None:
    for answers in (sync_answers, asyncio_answers):
        assert answers["live"] is answers["ready"] is answers["model_ready"] is True
    assert sync_answers["version_ready"] is True
    assert sync_answers["other_ready"] is False


def test_metadata(sync_answers: dict[str, Any], asyncio_answers: dict[str, Any], client: PrelabelClient) -> None:
    assert sync_answers["server"] == {"name": "prelabel", "version": prelabel.__version__}
    model = sync_answers["model"]
    assert asyncio_answers["model"] == model
    assert (model["name"], model["versions"], model["platform"]) == ("tiny", [client.model().model_id], "onnx_onnxv1")
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": ["-1", "8", "8", "1"]}]
    assert model["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": ["-1", "3"]},
        {"name": "realness", "datatype": "FP32", "shape": ["-1"]},
    ]


@pytest.mark.parametrize("kind", ["images", "bulk", "compressed"])
def test_pixels_get_the_answers_of_prelabel_v1(sync_answers: dict[str, Any], client: PrelabelClient, kind: str) -> None:
    assert_same(sync_answers[kind], client.predict(IMAGES))
    assert sync_answers["images"]["id"] == "mine"


def test_files_get_the_answers_of_prelabel_v1(
    sync_answers: dict[str, Any], asyncio_answers: dict[str, Any], client: PrelabelClient
) -> None:
    wanted = client.predict(FILES)
    assert list(wanted.errors) == [1, 2]
    assert_same(sync_answers["files"], wanted)
    assert_same(asyncio_answers["files"], wanted)


def test_concurrent_requests_of_the_asyncio_client_get_their_own_answers(
    asyncio_answers: dict[str, Any], client: PrelabelClient
) -> None:
    for i, answer in enumerate(asyncio_answers["images"]):
        assert answer["id"] == str(i)
        assert_same(answer, client.predict(IMAGES[i : i + 1]))


def test_one_output_alone(sync_answers: dict[str, Any], client: PrelabelClient) -> None:
    (name,) = sync_answers["realness"]["outputs"]
    assert name == "realness"
    np.testing.assert_array_equal(sync_answers["realness"]["outputs"]["realness"], client.predict(IMAGES).realness)


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        ("unknown model", "NOT_FOUND", "model 'other' is not served here"),
        ("unknown output", "INVALID_ARGUMENT", "output 'label' is unknown"),
        ("sequence", "INVALID_ARGUMENT", "is unknown: `priority` and `timeout` are known"),
        ("wrong shape", "INVALID_ARGUMENT", "[40, 4, 8, 1]: [B, 8, 8, 1] wanted"),
        ("config", "UNIMPLEMENTED", "ModelConfig is not part of the Open Inference Protocol"),
        ("stream", "UNIMPLEMENTED", "prelabel.v1.PrelabelService/PredictStream"),
    ],
)
def test_what_cannot_be_answered_is_a_clear_error(
    sync_answers: dict[str, Any], call: str, status: str, text: str
) -> None:
    given, message = sync_answers[call]
    assert given.endswith(status)
    assert text in message


def test_our_messages_have_the_fields_of_tritons(elsewhere: Callable[..., Any]) -> None:
    """What only one side has is an extension: Triton's statistics, our properties (the specification has them)."""
    ours: dict[str, dict[str, tuple[int, int, bool]]] = {}
    waiting = list(pb.DESCRIPTOR.message_types_by_name.values())
    names = [message.name for message in waiting]
    while waiting:
        message = waiting.pop()
        ours[message.full_name] = {
            field.name: (field.number, field.type, field.is_repeated) for field in message.fields
        }
        waiting += message.nested_types
    theirs = elsewhere(triton.message_fields, names)
    only_ours = {
        f"{message}.{field}" for message in ours for field in ours[message].keys() - theirs.get(message, {}).keys()
    }
    assert only_ours == {
        "inference.ModelMetadataResponse.properties",
        "inference.ModelMetadataResponse.PropertiesEntry.key",
        "inference.ModelMetadataResponse.PropertiesEntry.value",
    }
    for message, fields in ours.items():
        shared = fields.keys() & theirs.get(message, {}).keys()
        assert {field: fields[field] for field in shared} == {field: theirs[message][field] for field in shared}
