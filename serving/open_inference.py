"""The Open Inference Protocol (KServe's version 2) beside prelabel.v1: the same models, batcher and errors.

A model's name is its bundle's name and its version is its model_id; an empty version is the current one.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import numpy as np

import prelabel
from prelabel.errors import InputError, PrelabelError, ServerUnavailableError, UnknownModelError, UnsupportedError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch
from serving.infer_request import DATATYPES, ENCODED, IMAGES, PROBABILITIES, REALNESS, parse
from serving.inference_v2 import open_inference_pb2 as pb
from serving.inference_v2.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from serving.service import Model

SERVICE = "inference.GRPCInferenceService"

FindModel = Callable[[str, str], Model]
"""(name, version) -> the model. An empty version is the current one; an empty name and version are the model that makes
the server ready. Raises `UnknownModelError`, or `ServerUnavailableError` where there is no model at all."""

_PLATFORM = "onnx_onnxv1"
"""The protocol's name for an ONNX file, whatever engine runs it."""


def one_model(model: Model | None) -> FindModel:
    """Returns how a server finds the one model that it holds, or none."""

    def find(name: str, version: str) -> Model:
        if model is None:
            raise ServerUnavailableError("the server holds no model: start it with --model BUNDLE_DIRECTORY")
        bundle = model.engine.bundle
        if name not in ("", bundle.name) or version not in ("", bundle.model_id):
            raise UnknownModelError(
                f"model {name[:80]!r}, version {version[:80]!r} is not here: this server holds {bundle.name!r}, "
                f"version {bundle.model_id!r} (or '' for the current one)"
            )
        return model

    return find


class OpenInferenceService(GRPCInferenceServiceServicer):
    """Answers the six calls of the protocol. Errors are raised; `serving.errors` turns them into status."""

    def __init__(self, find: FindModel) -> None:
        self._find = find
        self._stopping = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service, and a refusal of other servers' extensions, with a server that has not started."""
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
        return pb.ServerReadyResponse(ready=self._ready("", ""))

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """Says whether one model can be asked; a name that is not here is not ready."""
        return pb.ModelReadyResponse(ready=bool(request.name) and self._ready(request.name, request.version))

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
        model = self._named(request.name, request.version)
        bundle = model.engine.bundle
        tensor = pb.ModelMetadataResponse.TensorMetadata
        alternative = {"name": ENCODED, "datatype": DATATYPES[ENCODED], "shape": [-1]}
        return pb.ModelMetadataResponse(
            name=bundle.name,
            versions=[bundle.model_id],
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
        model = self._named(request.model_name, request.model_version)
        wanted = parse(request, model.engine.bundle.input, model.max_request_images)
        try:
            async with asyncio.timeout(wanted.timeout_s) as limit:
                images, errors = await _decoded(model, wanted.images)
                total = len(wanted.images)
                answer = await model.predict(images, errors, total, context.time_remaining(), wanted.priority)
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"the request's timeout of {wanted.timeout_s} s passed") from error
            raise
        return _response(request, model.engine.bundle.name, answer, wanted.outputs)

    def _named(self, name: str, version: str) -> Model:
        if not name:
            raise InputError("the request names no model: set the name that prelabel.v1's GetModel tells")
        return self._find(name, version)

    def _ready(self, name: str, version: str) -> bool:
        if self._stopping:
            return False
        try:
            self._find(name, version)
        except PrelabelError:
            return False
        return True


class _Extensions(grpc.GenericRpcHandler):
    """Answers methods that other servers add to the protocol, for example ModelStreamInfer, with what there is."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns a handler for every method below the service's name: those of the protocol are found before."""
        method = handler_call_details.method
        if not method.startswith(f"/{SERVICE}/"):
            return None

        async def refuse(requests: Any, context: Any) -> Any:
            raise UnsupportedError(
                f"{method[:200]} is not part of the Open Inference Protocol and not served: use ModelInfer, or for "
                "streams prelabel.v1.PrelabelService/PredictStream"
            )
            yield  # type: ignore[unreachable]  # makes this function a stream of responses

        return grpc.stream_stream_rpc_method_handler(refuse)


async def _decoded(model: Model, images: Any) -> tuple[Pixels, dict[int, str]]:
    return (images, {}) if isinstance(images, np.ndarray) else await model.decoder.decode(images)


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
