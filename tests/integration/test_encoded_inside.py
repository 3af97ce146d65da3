"""Image files on the server in this process: they take places in the queue while they are decoded."""

import asyncio
import io
import threading
from collections.abc import Callable

import grpc
import grpc.aio
import numpy as np
import pytest
from PIL import Image

from prelabel.images import ImageSpec, Pixels, decode_image
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving import decoder
from serving.inference_v2 import open_inference_pb2 as v2_pb
from serving.inference_v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serving.requests import Observer, RequestRecord
from support.engines import EchoEngine, marked
from support.inside import serving_inside
from support.open_inference import column


def files(*marks: int) -> list[bytes]:
    """A PNG for each mark, which the engine answers."""
    found = []
    for image in marked(list(marks)):
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0]).save(file, "PNG")
        found.append(file.getvalue())
    return found


class HeldDecoding:
    """Decodes when the test opens the gate; notes what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()
        self.given: list[bytes] = []
        monkeypatch.setattr(decoder, "decode_image", self)

    def __call__(self, data: bytes, spec: ImageSpec, max_pixels: int) -> Pixels:
        self.given.append(data)
        self.begun.set()
        assert self.gate.wait(30), "the test never opened the gate"
        return decode_image(data, spec, max_pixels)


Ask = Callable[[grpc.aio.Channel, list[bytes]], "grpc.aio.UnaryUnaryCall"]


def prelabel_v1(channel: grpc.aio.Channel, images: list[bytes]) -> "grpc.aio.UnaryUnaryCall":
    return PrelabelServiceStub(channel).Predict(pb.PredictRequest(encoded=pb.EncodedImages(images=images)))


def open_inference(channel: grpc.aio.Channel, images: list[bytes]) -> "grpc.aio.UnaryUnaryCall":
    infer = v2_pb.ModelInferRequest(model_name="echo")
    infer.inputs.add(name="encoded", datatype="BYTES", shape=[len(images)]).contents.bytes_contents.extend(images)
    return GRPCInferenceServiceStub(channel).ModelInfer(infer)


def realness(answer: pb.PredictResponse | v2_pb.ModelInferResponse) -> list[float]:
    if isinstance(answer, pb.PredictResponse):
        return list(answer.realness)
    return column(answer, "realness").tolist()


@pytest.mark.parametrize("ask", [prelabel_v1, open_inference])
async def test_files_that_the_queue_has_no_room_for_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    class Ended(Observer):
        def request_ended(self, request: RequestRecord) -> None:
            ended.append((request.images, request.cause))

    ended: list[tuple[int, str | None]] = []
    held = HeldDecoding(monkeypatch)
    async with serving_inside(EchoEngine(), [Ended()], max_queue_images=4) as (_, channel):
        waiting = ask(channel, files(1, 2, 3))
        assert await asyncio.to_thread(held.begun.wait, 30)
        with pytest.raises(grpc.aio.AioRpcError, match="3 images") as caught:
            await ask(channel, files(4, 5))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ended == [(2, "queue_full")]
        held.gate.set()
        assert realness(await waiting) == [1, 2, 3]
        assert realness(await ask(channel, files(6, 7, 8, 9))) == [6, 7, 8, 9]
    assert set(held.given) == set(files(1, 2, 3, 6, 7, 8, 9))


@pytest.mark.parametrize("ask", [prelabel_v1, open_inference])
async def test_who_leaves_while_files_are_decoded_gives_the_places_back(
    monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    held = HeldDecoding(monkeypatch)
    async with serving_inside(EchoEngine(), max_queue_images=4) as (_, channel):
        left = ask(channel, files(1, 2, 3))
        assert await asyncio.to_thread(held.begun.wait, 30)
        left.cancel()
        images = marked([4, 5, 6, 7])
        tensor = pb.ImageTensor(shape=images.shape, dtype=pb.DATA_TYPE_UINT8, data=images.tobytes())
        async with asyncio.timeout(30):  # the cancellation takes a moment
            while True:
                try:
                    answer = await PrelabelServiceStub(channel).Predict(pb.PredictRequest(tensor=tensor))
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
        assert realness(answer) == [4, 5, 6, 7]
        held.gate.set()


async def test_files_larger_than_the_whole_queue_are_invalid() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1100, 1100), np.uint8))
    file = io.BytesIO()
    noise.save(file, "BMP")
    async with serving_inside(EchoEngine(), max_queue_mib=1) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError, match="never fits the server's queue") as caught:
            await prelabel_v1(channel, [file.getvalue()])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert realness(await prelabel_v1(channel, files(1))) == [1]
