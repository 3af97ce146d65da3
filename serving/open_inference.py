"""The Open Inference Protocol (KServe's version 2) beside prelabel.v1: the same models, batcher and errors.

A model's name is its bundle's name. Its version is its model_id or its name in the repository; an empty version is the
latest one.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np

import prelabel
from prelabel.errors import InputError, ModelNotFoundError, PrelabelError, UnsupportedError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, Priority
from prelabel.wire import Images
from serving.infer_request import DATATYPES, ENCODED, IMAGES, PROBABILITIES, REALNESS, parse
from serving.inference_v2 import open_inference_pb2 as pb
from serving.inference_v2.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from serving.model import MAX_REQUEST_IMAGES, Model
from serving.models import Models

OPEN_INFERENCE = "inference.GRPCInferenceService"

_PLATFORM = "onnx_onnxv1"
"""The protocol's name for an ONNX file, whatever engine runs it."""


class OpenInferenceService(GRPCInferenceServiceServicer):
    """Answers the six calls of the protocol. Errors are raised; `serving.errors` turns them into status."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._stopping = False

    def add_to(self, server: Any) -> None:
        """Registers the service, and a refusal of other servers' extensions, as `PrelabelService.add_to` does."""
        add_GRPCInferenceServiceServicer_to_server(self, server)
        server.add_generic_rpc_handlers((_Extensions(),))

    def drain(self) -> None:
        """Says not ready from now on; calls in flight go on."""
        self._stopping = True

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:  # noqa: N802
        """Says that the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:  # noqa: N802
        """Says whether there is a model that can be asked."""
        return pb.ServerReadyResponse(ready=not self._stopping and self._models.default is not None)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """Says whether one model can be asked; a name that is not here is not ready."""
        try:
            with self._lease(request.name, request.version):
                return pb.ModelReadyResponse(ready=not self._stopping)
        except PrelabelError:
            return pb.ModelReadyResponse(ready=False)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Any
    ) -> pb.ServerMetadataResponse:
        """Names the server."""
        return pb.ServerMetadataResponse(name="prelabel", version=prelabel.__version__)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Any
    ) -> pb.ModelMetadataResponse:
        """Describes a model.

        Generic clients send every input of the list, so `encoded`, which goes instead of `images`, is a property.
        """
        tensor = pb.ModelMetadataResponse.TensorMetadata
        alternative = {"name": ENCODED, "datatype": DATATYPES[ENCODED], "shape": [-1]}
        with self._lease(request.name, request.version) as model:
            bundle = model.engine.bundle
            return pb.ModelMetadataResponse(
                name=bundle.name,
                versions=self._versions(bundle.name),
                platform=_PLATFORM,
                inputs=[tensor(name=IMAGES, datatype=DATATYPES[IMAGES], shape=[-1, *bundle.input.shape])],
                outputs=[
                    tensor(name=PROBABILITIES, datatype="FP32", shape=[-1, len(bundle.classes)]),
                    tensor(name=REALNESS, datatype="FP32", shape=[-1]),
                ],
                properties={
                    "classes": json.dumps(bundle.classes),
                    "max_request_images": str(model.max_request_images),
                    "alternative_input": json.dumps(alternative),
                },
            )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:  # noqa: N802
        """Answers one batch, by default before bulk work."""
        lease = self._lease(request.model_name, request.model_version)
        with self._models.requests.request() as seen, lease as model:
            wanted = parse(request, model.engine.bundle.input, model.max_request_images)
            total = seen.images = len(wanted.images)
            try:
                async with asyncio.timeout(wanted.timeout_s) as limit:
                    with seen.stage("decode"):
                        images, errors = await _decoded(model, wanted.images, wanted.priority)
                    answer = await model.predict(images, errors, total, context.time_remaining(), wanted.priority)
            except TimeoutError as error:
                if limit.expired():
                    raise TimeoutError(f"the request's timeout of {wanted.timeout_s} s passed") from error
                raise
            with seen.stage("encode"):
                seen.unusable = len(answer.errors)
                return _response(request, model.engine.bundle.name, answer, wanted.outputs)

    @contextlib.contextmanager
    def _lease(self, name: str, version: str) -> Iterator[Model]:
        if not name:
            raise InputError("the request names no model: set the name that prelabel.v1's GetModel tells")
        # Versions of one repository may come from runs of different names; the latest one of this name is meant.
        versions = self._versions(name)
        with self._models.lease(version or (versions[-1] if versions else "")) as model:
            if name != model.engine.bundle.name:
                raise ModelNotFoundError(
                    f"model {name[:80]!r} is not served here"
                    + (f" as version {version[:80]!r}" if version else "")
                    + f", but {model.engine.bundle.name!r}"
                )
            yield model

    def _versions(self, name: str) -> list[str]:
        """Returns the model_ids of all versions of that name, the latest last."""
        served = [status.model_id for status in self._models.statuses() if status.state == "serving"]
        return [model_id for model_id in served if self._name_of(model_id) == name]

    def _name_of(self, model_id: str) -> str:
        with self._models.lease(model_id) as model:
            return model.engine.bundle.name


def count_inputs(request: Any) -> int:
    """Returns what a request costs its caller's rate limit, unchecked; free: metadata and health."""
    if not isinstance(request, pb.ModelInferRequest):
        return 0
    shape = request.inputs[0].shape if request.inputs else []
    # Wrong requests cost one image, too. What a shape pretends beyond the limit is refused later.
    return max(1, min(MAX_REQUEST_IMAGES, shape[0] if shape else 1))


class _Extensions(grpc.GenericRpcHandler):
    """Answers methods that other servers add to the protocol, for example ModelStreamInfer, with what there is."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns a handler for every method below the service's name: those of the protocol are found before."""
        method = handler_call_details.method
        if not method.startswith(f"/{OPEN_INFERENCE}/"):
            return None

        async def refuse(requests: Any, context: Any) -> Any:
            raise UnsupportedError(
                f"{method[:200]} is not part of the Open Inference Protocol and not served: use ModelInfer, or for "
                "streams prelabel.v1.PrelabelService/PredictStream"
            )
            yield  # type: ignore[unreachable]  # makes this function a stream of responses

        return grpc.stream_stream_rpc_method_handler(refuse)


async def _decoded(model: Model, images: Images, priority: Priority) -> tuple[Pixels, dict[int, str]]:
    return (images, {}) if isinstance(images, np.ndarray) else await model.decode(images, priority)


def _response(
    request: pb.ModelInferRequest, name: str, batch: PredictionBatch, outputs: Iterable[str]
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=name, model_version=batch.model_id, id=request.id)
    columns = {PROBABILITIES: batch.probabilities, REALNESS: batch.realness}
    for output in outputs:
        column = columns[output]
        response.outputs.add(name=output, datatype="FP32", shape=column.shape)
        response.raw_output_contents.append(np.ascontiguousarray(column, "<f4").tobytes())
    if batch.errors:
        response.parameters["errors"].string_param = json.dumps(batch.errors)
    return response
