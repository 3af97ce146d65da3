"""prelabel.v1.PrelabelService: protobuf to arrays and back, and nothing else."""

import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np

from prelabel.engine import check_images
from prelabel.errors import InputError
from prelabel.images import Pixels
from prelabel.predictions import Priority
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceServicer, add_PrelabelServiceServicer_to_server
from prelabel.wire import predict_response
from serving.infer_request import check_id
from serving.model import MAX_REQUEST_IMAGES, Model
from serving.models import Models
from serving.requests import RequestRecord
from serving.streams import OrderedStreams

SERVICE = "prelabel.v1.PrelabelService"

STREAM_WINDOW, STREAM_WINDOW_IMAGES = 8, 256
"""What one stream may have in flight, whichever is more: hides network and batching from a bulk client, fills a batch
with single images, and holds little for a slow client."""
STREAM_IMAGE_BYTES = 64 << 10
"""A message counts in the window for as many images of this size as it has bytes: 256 of them are 16 MiB, and of larger
messages 8 are read ahead. A window full of large files would fill the queue, and end the stream, not slow it."""


class PrelabelService(PrelabelServiceServicer):
    """Answers with the served models. Errors are raised; `serving.errors` turns them into status."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._streams: OrderedStreams[pb.PredictRequest, pb.PredictResponse] = OrderedStreams(
            STREAM_WINDOW, STREAM_WINDOW_IMAGES, _share_of_window
        )

    def add_to(self, server: Any) -> None:
        """Registers the service with a server that has not started, or with its routes."""
        add_PrelabelServiceServicer_to_server(self, server)

    def drain(self) -> None:
        """Ends the streams after what they have read; calls in flight go on."""
        self._streams.drain()

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:  # noqa: N802
        """Describes a model."""
        with self._models.lease(request.model_version) as model:
            bundle = model.engine.bundle
            return pb.GetModelResponse(
                model_id=bundle.model_id,
                name=bundle.name,
                classes=bundle.classes,
                input=pb.ImageSpec(
                    height=bundle.input.height,
                    width=bundle.input.width,
                    channels=bundle.input.channels,
                    resize_rule=bundle.input.resize_rule,
                ),
                execution_provider=model.engine.execution_provider,
                max_request_images=model.max_request_images,
                model_version=model.version,
            )

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        """Answers one batch, by default before bulk work."""
        with self._models.requests.request() as seen, self._models.lease(request.model_version) as model:
            return await _answer(model, request, context, "interactive", seen)

    async def PredictStream(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.PredictResponse]:
        """Answers many batches, several at a time, in order; by default after what people ask for.

        A version that was loaded for one request answers the later ones, also where a newer one is loaded meanwhile.
        """
        # Tells the client that the call has arrived: the first answer may take its time.
        await context.send_initial_metadata(())
        with contextlib.ExitStack() as leases:
            chosen: dict[str, Model] = {}

            async def answer_one(request: pb.PredictRequest) -> pb.PredictResponse:
                version = request.model_version
                with self._models.requests.request() as seen:
                    if version not in chosen:
                        chosen[version] = leases.enter_context(self._models.lease(version))
                    return await _answer(chosen[version], request, context, "bulk", seen)

            async with aclosing(self._streams.answer(request_iterator, answer_one)) as responses:
                async for response in responses:
                    yield response


async def _answer(
    model: Model, request: pb.PredictRequest, context: Any, default: Priority, seen: RequestRecord
) -> pb.PredictResponse:
    check_id("request_id", request.request_id)
    priority = _priority(request, default)
    with seen.stage("decode"):
        images, errors, total = await _images(request, model, priority, seen)
    seen.images = total
    answer = await model.predict(images, errors, total, context.time_remaining(), priority)
    with seen.stage("encode"):
        seen.unusable = len(answer.errors)
        return predict_response(request, answer)


async def _images(
    request: pb.PredictRequest, model: Model, priority: Priority, seen: RequestRecord
) -> tuple[Pixels, dict[int, str], int]:
    """Returns uint8 [G, H, W, C] of the usable images, position -> error of the others, and how many were given."""
    kind = request.WhichOneof("images")
    if kind == "tensor":
        _check_count(request.tensor.shape[0] if request.tensor.shape else 0, model)
        images = _tensor(request.tensor)
        check_images(images, model.engine.bundle)
        return images, {}, len(images)
    if kind == "encoded":
        _check_count(len(request.encoded.images), model)
        files = list(request.encoded.images)  # the field would copy a file each time that it is looked at
        seen.images = len(files)  # also where the queue has no room for them
        images, errors = await model.decode(files, priority)
        return images, errors, len(files)
    raise InputError("the request holds no images: set `tensor` or `encoded`")


def count_images(request: Any) -> int:
    """Returns what a request costs its caller's rate limit, before anything of it is checked; free: `GetModel`."""
    if not isinstance(request, pb.PredictRequest):
        return 0
    shape = request.tensor.shape
    # Wrong requests cost one image, too. What a shape pretends beyond the limit is refused later.
    return max(1, min(MAX_REQUEST_IMAGES, shape[0] if shape else len(request.encoded.images)))


def _share_of_window(request: pb.PredictRequest) -> int:
    images = count_images(request)
    # Eight messages of more images fill the window in any case. Of others, to be measured is to be copied.
    if images * STREAM_WINDOW >= STREAM_WINDOW_IMAGES:
        return images
    return max(images, request.ByteSize() // STREAM_IMAGE_BYTES)


def _priority(request: pb.PredictRequest, default: Priority) -> Priority:
    match request.priority:
        case pb.PRIORITY_UNSPECIFIED:
            return default
        case pb.PRIORITY_INTERACTIVE:
            return "interactive"
        case pb.PRIORITY_BULK:
            return "bulk"
    raise InputError(f"priority {request.priority} is unknown: PRIORITY_INTERACTIVE or PRIORITY_BULK wanted")


def _check_count(count: int, model: Model) -> None:
    limit = model.max_request_images
    if not 1 <= count <= limit:
        raise InputError(f"the request holds {count} images: 1 to {limit} wanted (max_request_images of GetModel)")


def _tensor(tensor: pb.ImageTensor) -> Pixels:
    if len(tensor.shape) != 4:
        raise InputError(f"the tensor has {len(tensor.shape)} dimensions: 4 wanted, [B, H, W, C]")
    shape = list(tensor.shape)
    if tensor.dtype != pb.DATA_TYPE_UINT8:
        given = pb.DataType.Name(tensor.dtype) if tensor.dtype in pb.DataType.values() else str(tensor.dtype)
        raise InputError(f"the tensor's dtype is {given}: DATA_TYPE_UINT8 (pixels 0..255, not scaled) wanted")
    data = tensor.data  # once: each look at the field copies it
    if len(data) != math.prod(shape):
        raise InputError(f"the tensor's data has {len(data)} bytes, but shape {shape} of uint8 has {math.prod(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)
