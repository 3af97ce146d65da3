import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch, Priority
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.wire import MAX_MESSAGE_BYTES
from serving.batcher import Batcher, BatchLimits
from serving.decoder import Decoder
from serving.model import MAX_REQUEST_IMAGES, Model
from serving.models import Models
from serving.queue import Request, RequestQueue
from serving.requests import Requests
from serving.service import PrelabelService
from support.batchers import limits, settle
from support.engines import ECHO_BUNDLE, EchoEngine, marked

UNUSED = cast(Decoder, None)
ROOMY = limits(images=65536, size_bytes=512 << 20)


def limit(spec: ImageSpec, classes: int, queue: BatchLimits = ROOMY) -> int:
    names = tuple(f"class {i}" for i in range(classes))
    bundle = dataclasses.replace(ECHO_BUNDLE, input=spec, classes=names)
    batcher = cast(Batcher, SimpleNamespace(limits=queue))
    return Model(EchoEngine(bundle), batcher, UNUSED).max_request_images


@pytest.mark.parametrize(
    ("spec", "classes"),
    [(ImageSpec(28, 28, 1), 10), (ImageSpec(512, 512, 3), 10), (ImageSpec(8, 8, 1), 20_000), (ImageSpec(64, 64, 3), 2)],
    ids=str,
)
def test_the_largest_request_and_its_answer_fit_a_message(spec: ImageSpec, classes: int) -> None:
    count = limit(spec, classes)
    assert 1 <= count <= 4096
    pixels = bytes(count * spec.height * spec.width * spec.channels)
    request = pb.PredictRequest(tensor=pb.ImageTensor(shape=(count, *spec.shape), dtype=1, data=pixels))
    assert request.ByteSize() <= MAX_MESSAGE_BYTES
    ones = [1.0] * count
    response = pb.PredictResponse(
        probabilities=[0.5] * count * classes,
        realness=ones,
        confidence=ones,
        label_index=[classes - 1] * count,
        errors=[pb.ItemError(index=i, message="x" * 400) for i in range(count)],
    )
    assert response.ByteSize() <= MAX_MESSAGE_BYTES


def test_small_images_are_limited_by_number_and_huge_ones_do_not_fit() -> None:
    assert limit(ImageSpec(28, 28, 1), 10) == 4096
    assert limit(ImageSpec(8000, 8000, 3), 10) == 0


@given(
    images=st.integers(1, 6000),
    size_bytes=st.integers(1, 1 << 22),
    spec=st.builds(ImageSpec, st.integers(1, 64), st.integers(1, 64), st.sampled_from([1, 3])),
)
def test_the_largest_request_fits_the_queue_and_one_image_more_fits_nothing(
    images: int, size_bytes: int, spec: ImageSpec
) -> None:
    count = limit(spec, 2, limits(images=images, size_bytes=size_bytes))

    def add(count: int) -> None:
        pixels = np.empty((count, *spec.shape), np.uint8)
        RequestQueue(images, size_bytes).add(Request(pixels, cast(Any, None), 0.0, 1.0))

    if count:
        add(count)
    if count < MAX_REQUEST_IMAGES:
        with pytest.raises(InputError, match="never fits"):
            add(count + 1)


class PriorityRecorder:
    """Stands in for the batcher and notes who waits."""

    limits = ROOMY

    def __init__(self) -> None:
        self.priorities: list[Priority] = []

    async def predict(self, images: Pixels, timeout_s: float | None, priority: Priority) -> PredictionBatch:
        self.priorities.append(priority)
        return EchoEngine().predict(images)


class NoDeadline:
    def time_remaining(self) -> None:
        return None

    async def send_initial_metadata(self, metadata: tuple[()]) -> None: ...


async def test_single_requests_are_interactive_and_streams_bulk_unless_they_say_otherwise() -> None:
    recorder = PriorityRecorder()
    model = Model(EchoEngine(), cast(Batcher, recorder), UNUSED)
    models = SimpleNamespace(lease=lambda version: contextlib.nullcontext(model), requests=Requests())
    service = PrelabelService(cast(Models, models))

    def request(priority: int) -> pb.PredictRequest:
        tensor = pb.ImageTensor(shape=(1, 1, 4, 1), dtype=pb.DATA_TYPE_UINT8, data=marked([7]).tobytes())
        return pb.PredictRequest(tensor=tensor, priority=cast(Any, priority))

    every = [request(priority) for priority in (pb.PRIORITY_UNSPECIFIED, pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK)]

    async def stream() -> AsyncIterator[pb.PredictRequest]:
        for one in every:
            yield one

    for one in every:
        await service.Predict(one, NoDeadline())
    assert recorder.priorities == ["interactive", "interactive", "bulk"]
    assert [answer.realness[0] async for answer in service.PredictStream(stream(), NoDeadline())] == [7, 7, 7]
    assert recorder.priorities[3:] == ["bulk", "interactive", "bulk"]
    with pytest.raises(InputError, match="priority 9 is unknown"):
        await service.Predict(request(9), NoDeadline())


@pytest.mark.parametrize(("file_bytes", "window"), [(100, 256), (256 << 10, 64), (4 << 20, 8)])
async def test_a_stream_of_large_files_is_read_ahead_by_fewer_messages(file_bytes: int, window: int) -> None:
    async def decode(files: list[bytes], priority: Priority) -> None:
        await asyncio.Event().wait()

    async def stream() -> AsyncIterator[pb.PredictRequest]:
        nonlocal taken
        while True:
            taken += 1
            yield one

    taken = 0
    one = pb.PredictRequest(encoded=pb.EncodedImages(images=[bytes(file_bytes)]))
    model = SimpleNamespace(decode=decode, max_request_images=MAX_REQUEST_IMAGES)
    models = SimpleNamespace(lease=lambda version: contextlib.nullcontext(model), requests=Requests())
    answers = PrelabelService(cast(Models, models)).PredictStream(stream(), NoDeadline())
    first = asyncio.ensure_future(anext(answers))
    while taken < window:
        await asyncio.sleep(0)
    await settle()
    assert taken == window
    first.cancel()
    await asyncio.wait([first])
