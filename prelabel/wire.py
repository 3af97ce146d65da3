"""Protobuf to arrays and back: what the clients, the service and the test double say to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError, RemoteError
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch, Priority
from prelabel.v1 import prelabel_pb2 as pb

MAX_MESSAGE_BYTES = 64 << 20
"""Largest request and response, on both sides: a few hundred large images; gRPC's own limit of 4 MiB is too small."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata of RESOURCE_EXHAUSTED: after so many milliseconds there is room. gRPC's own key: clients
with a retry policy obey it, too."""

Images = Pixels | Sequence[bytes]
"""uint8 [B, H, W, C], 0..255, of the model's H, W and C; or B image files (PNG, JPEG, ...) of any size."""

_RAW = np.dtype("<f4")
"""Numbers of the raw columns."""

_PRIORITIES: dict[Priority, "pb.Priority.ValueType"] = {
    "interactive": pb.PRIORITY_INTERACTIVE,
    "bulk": pb.PRIORITY_BULK,
}


@dataclass(frozen=True)
class ModelInfo:
    """The model that a server holds."""

    model_id: str
    """Identity of the model, derived from its bundle's content."""
    name: str
    """Name given at training time."""
    classes: tuple[str, ...]
    """Class names; the position is the label index."""
    input: ImageSpec
    """The tensor that the model takes for one image."""
    execution_provider: str
    """What runs the model, for example `CPUExecutionProvider`."""
    max_request_images: int
    """Most images that one request may hold."""
    model_version: str = ""
    """Its name among the versions that the server holds."""


def model_request(model_version: str) -> pb.GetModelRequest:
    """Returns the question what a model is; an empty version means the latest."""
    return pb.GetModelRequest(model_version=model_version)


def model_info(response: pb.GetModelResponse) -> ModelInfo:
    """Returns the answer to `model_request`."""
    spec = response.input
    return ModelInfo(
        model_id=response.model_id,
        name=response.name,
        classes=tuple(response.classes),
        input=ImageSpec(spec.height, spec.width, cast(Literal[1, 3], spec.channels), spec.resize_rule),
        execution_provider=response.execution_provider,
        max_request_images=response.max_request_images,
        model_version=response.model_version,
    )


def predict_request(
    images: Images,
    priority: Priority,
    model_version: str = "",
    request_id: str = "",
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> pb.PredictRequest:
    """Returns the request for one batch; the answer's columns are wanted as raw bytes.

    Raises:
        InputError: There are no images, the pixels are not uint8 [B, H, W, C], or they do not fit a message.
    """
    if len(images) == 0:
        raise InputError("a batch of no images was given: at least 1 wanted")
    request = pb.PredictRequest(
        request_id=request_id, priority=_PRIORITIES[priority], model_version=model_version, raw_answers=True
    )
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise InputError(f"images are {images.dtype} {list(images.shape)}: uint8 [B, H, W, C] (0..255) wanted")
        request.tensor.shape.extend(images.shape)
        request.tensor.dtype = pb.DATA_TYPE_UINT8
        request.tensor.data = images.tobytes()
    else:
        request.encoded.images.extend(images)
    if (size_bytes := request.ByteSize()) > max_message_bytes:
        raise InputError(
            f"{len(images)} images make a request of {size_bytes} bytes, over the limit of {max_message_bytes}: "
            "give smaller batches"
        )
    return request


def predict_response(request: pb.PredictRequest, batch: PredictionBatch) -> pb.PredictResponse:
    """Returns the answer to a request, in the columns that it asks for."""
    response = pb.PredictResponse(
        request_id=request.request_id,
        model_id=batch.model_id,
        errors=[pb.ItemError(index=i, message=message) for i, message in batch.errors.items()],
    )
    if request.raw_answers:
        response.probabilities_raw = batch.probabilities.astype(_RAW, copy=False).tobytes()
        response.realness_raw = batch.realness.astype(_RAW, copy=False).tobytes()
    else:
        response.probabilities.extend(batch.probabilities.ravel().tolist())
        response.realness.extend(batch.realness.tolist())
        response.label_index.extend(batch.label_index.tolist())
        response.confidence.extend(batch.confidence.tolist())
    return response


def prediction_batch(response: pb.PredictResponse, count: int) -> PredictionBatch:
    """Returns the answer to a request of `count` images; a server that knows no raw columns is understood, too.

    Raises:
        RemoteError: The columns do not make up `count` rows.
    """
    if response.realness_raw or response.probabilities_raw:
        realness, probabilities = _from_raw(response.realness_raw), _from_raw(response.probabilities_raw)
    else:
        realness = np.array(response.realness, np.float32)
        probabilities = np.array(response.probabilities, np.float32)
    if len(realness) != count or len(probabilities) % count:
        raise RemoteError(
            f"the server answered {len(realness)} rows and {len(probabilities)} probabilities for {count} images"
        )
    errors = {error.index: error.message for error in response.errors}
    return PredictionBatch(probabilities.reshape(count, -1), realness, response.model_id, errors)


def _from_raw(column: bytes) -> NDArray[np.float32]:
    if len(column) % _RAW.itemsize:
        raise RemoteError(f"the server answered a raw column of {len(column)} bytes: whole float32 numbers wanted")
    # The one copy makes the array the caller's to change, and of the machine's byte order.
    return np.frombuffer(column, _RAW).astype(np.float32)
