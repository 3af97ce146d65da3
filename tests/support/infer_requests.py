"""Requests of the Open Inference Protocol for a small model: some that fit, and changes to them."""

import struct

from prelabel.images import ImageSpec
from serving.infer_request import InferRequest, parse
from serving.inference_v2 import open_inference_pb2 as pb

SPEC = ImageSpec(2, 3, 1)
MAX_IMAGES = 5

Request = pb.ModelInferRequest


def checked(request: Request) -> InferRequest:
    return parse(request, SPEC, MAX_IMAGES)


def pixels(count: int = 2, raw: bytes | None = None) -> Request:
    """A request that fits: `count` images whose pixels count up from 0."""
    request = Request(model_name="m", raw_input_contents=[bytes(range(6 * count)) if raw is None else raw])
    request.inputs.add(name="images", datatype="UINT8", shape=[count, 2, 3, 1])
    return request


def files(*contents: bytes) -> Request:
    request = Request(model_name="m", raw_input_contents=[joined(contents)])
    request.inputs.add(name="encoded", datatype="BYTES", shape=[len(contents)])
    return request


def joined(elements: tuple[bytes, ...] | list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def typed(request: Request, **contents: list[int] | list[bytes]) -> Request:
    del request.raw_input_contents[:]
    request.inputs[0].contents.CopyFrom(pb.InferTensorContents(**contents))
    return request


def with_parameter(name: str, **value: str | float | bool) -> Request:
    request = pixels()
    request.parameters[name].CopyFrom(pb.InferParameter(**value))
    return request


def with_shape(request: Request, *shape: int) -> Request:
    request.inputs[0].ClearField("shape")
    request.inputs[0].shape.extend(shape)
    return request
