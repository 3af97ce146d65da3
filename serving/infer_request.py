"""What a ModelInfer request of the Open Inference Protocol asks for, checked from the first byte to the last."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prelabel.errors import InputError
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import Priority
from prelabel.wire import Images
from serving.inference_v2 import open_inference_pb2 as pb

IMAGES, ENCODED = "images", "encoded"
"""The two inputs, of which a request has one."""
DATATYPES = {IMAGES: "UINT8", ENCODED: "BYTES"}

PROBABILITIES, REALNESS = "probabilities", "realness"
OUTPUTS = (PROBABILITIES, REALNESS)
"""What is answered where a request does not choose."""

LONGEST_ID = 1024
"""Characters of a request's id: no limit of the queue counts it."""

_LENGTH_BYTES = 4
"""In raw contents each element of a BYTES tensor follows its length, an unsigned little-endian number."""

# Triton's numbers: 0 is the default, 1 the highest level.
_PRIORITIES: dict[str | int, Priority] = {
    "interactive": "interactive",
    "bulk": "bulk",
    0: "interactive",
    1: "interactive",
    2: "bulk",
}

# Names and values from strangers are shown cut short: an error has to fit the headers of a reply.
_shown = reprlib.repr


@dataclass(frozen=True)
class InferRequest:
    """A checked request."""

    images: Images
    """uint8 [B, H, W, C] of the model's H, W and C; or B image files."""
    outputs: tuple[str, ...]
    """Names of the wanted outputs in the wanted order, at least one."""
    priority: Priority
    """Who waits."""
    timeout_s: float | None
    """After so many seconds nobody wants the answer."""


def check_id(name: str, value: str) -> None:
    """Checks what a caller calls a request, which is kept with it until it is answered.

    Raises:
        InputError: It is too long.
    """
    if len(value) > LONGEST_ID:
        raise InputError(f"{name} has {len(value)} characters: at most {LONGEST_ID} wanted")


def parse(request: pb.ModelInferRequest, spec: ImageSpec, max_images: int) -> InferRequest:
    """Reads a request for a model.

    Args:
        request: Whatever came over the wire.
        spec: The model's image shape.
        max_images: Most images of one request.

    Raises:
        InputError: Something does not fit, or would be ignored.
    """
    check_id("id", request.id)
    for name in request.parameters:
        if name not in ("priority", "timeout"):
            raise InputError(f"parameter {_shown(name)} is unknown: `priority` and `timeout` are known")
    return InferRequest(
        _images(request, spec, max_images),
        _outputs(request),
        _priority(request.parameters),
        _timeout_s(request.parameters),
    )


def split_bytes(raw: bytes, count: int) -> list[bytes]:
    """Returns the elements of a BYTES tensor with `count` elements from its raw contents.

    Raises:
        InputError: The contents end within an element, or hold more or fewer of them.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw) and len(elements) < count:
        start = position + _LENGTH_BYTES
        length = int.from_bytes(raw[position:start], "little")
        position = start + length
        if position > len(raw):
            raise InputError(
                f"the raw contents of BYTES end within element {len(elements)}: each one is its length (4 bytes, "
                "little-endian) and then so many bytes"
            )
        elements.append(raw[start:position])
    if len(elements) != count or position != len(raw):
        raise InputError(
            f"the raw contents of BYTES hold {len(elements)} elements and {len(raw) - position} bytes after them, "
            f"but the shape says {count} elements"
        )
    return elements


def _images(request: pb.ModelInferRequest, spec: ImageSpec, max_images: int) -> Images:
    if len(request.inputs) != 1:
        names = _shown([tensor.name for tensor in request.inputs[:9]])
        raise InputError(
            f"the request has {len(request.inputs)} inputs {names}: one is wanted, `{IMAGES}` or `{ENCODED}`"
        )
    tensor, raw = request.inputs[0], request.raw_input_contents
    if tensor.name not in DATATYPES:
        raise InputError(f"input {_shown(tensor.name)} is unknown: `{IMAGES}` or `{ENCODED}` wanted")
    if tensor.parameters:
        raise InputError(
            f"parameter {_shown(next(iter(tensor.parameters)))} of input `{tensor.name}` is unknown: inputs take none "
            "(no shared memory here)"
        )
    if tensor.datatype != DATATYPES[tensor.name]:
        raise InputError(
            f"input `{tensor.name}` has datatype {_shown(tensor.datatype)}: {DATATYPES[tensor.name]} wanted"
        )
    count = _count(tensor.name, list(tensor.shape[:5]), spec, max_images)
    _check_contents(tensor, len(raw))
    if tensor.name == ENCODED:
        return split_bytes(raw[0], count) if raw else _files(tensor.contents.bytes_contents, count)
    shape = (count, *spec.shape)
    return _raw_pixels(raw[0], shape) if raw else _pixels(tensor.contents.uint_contents, shape)


def _count(name: str, shape: list[int], spec: ImageSpec, max_images: int) -> int:
    wanted = list(spec.shape) if name == IMAGES else []
    if not shape or shape[1:] != wanted:
        text = ", ".join(["B", *map(str, wanted)])
        raise InputError(f"input `{name}` has shape {_shown(shape)}: [{text}] wanted")
    if not 1 <= shape[0] <= max_images:
        raise InputError(
            f"input `{name}` has shape {shape}, but a request holds 1 to {max_images} images (max_request_images of "
            "ModelMetadata)"
        )
    return shape[0]


def _check_contents(tensor: pb.ModelInferRequest.InferInputTensor, raw_count: int) -> None:
    """Makes sure that the elements are given once, in the one place for them."""
    given = {field.name for field, _ in tensor.contents.ListFields()}
    if raw_count and given:
        raise InputError(f"input `{tensor.name}` has raw_input_contents and contents: give one of them")
    if raw_count > 1:
        raise InputError(f"the request has {raw_count} raw_input_contents for one input: give one")
    wanted = "uint_contents" if tensor.name == IMAGES else "bytes_contents"
    if not raw_count and given != {wanted}:
        raise InputError(
            f"input `{tensor.name}` has {sorted(given) or 'no contents'}: raw_input_contents (faster) or {wanted} "
            "wanted"
        )


def _raw_pixels(raw: bytes, shape: tuple[int, ...]) -> Pixels:
    if len(raw) != math.prod(shape):
        raise InputError(
            f"the raw contents of `{IMAGES}` have {len(raw)} bytes, but shape {list(shape)} of UINT8 has "
            f"{math.prod(shape)}"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _pixels(values: Sequence[int], shape: tuple[int, ...]) -> Pixels:
    if len(values) != math.prod(shape):
        raise InputError(
            f"the uint_contents of `{IMAGES}` have {len(values)} elements, but shape {list(shape)} has "
            f"{math.prod(shape)}"
        )
    wide = np.fromiter(values, np.uint32, len(values))
    if wide.max() > 255:
        raise InputError(f"the uint_contents of `{IMAGES}` hold {wide.max()}: UINT8 is 0 to 255")
    return wide.astype(np.uint8).reshape(shape)


def _files(files: Sequence[bytes], count: int) -> list[bytes]:
    if len(files) != count:
        raise InputError(f"the bytes_contents of `{ENCODED}` have {len(files)} elements, but the shape says {count}")
    return list(files)


def _outputs(request: pb.ModelInferRequest) -> tuple[str, ...]:
    chosen: list[str] = []
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise InputError(f"output {_shown(output.name)} is unknown: `{PROBABILITIES}` and `{REALNESS}` are known")
        if output.name in chosen:
            raise InputError(f"output `{output.name}` is requested twice")
        if output.parameters:
            raise InputError(
                f"parameter {_shown(next(iter(output.parameters)))} of output `{output.name}` is unknown: outputs take "
                "none (no classification, no shared memory here)"
            )
        chosen.append(output.name)
    return tuple(chosen) or OUTPUTS


def _priority(parameters: Mapping[str, pb.InferParameter]) -> Priority:
    if "priority" not in parameters:
        return "interactive"
    value = _value(parameters["priority"])
    # True and 1.0 would find the key 1.
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value in _PRIORITIES:
        return _PRIORITIES[value]
    raise InputError(f"priority {_shown(value)} is unknown: 'interactive' or 1, 'bulk' or 2, or 0 (interactive) wanted")


def _timeout_s(parameters: Mapping[str, pb.InferParameter]) -> float | None:
    if "timeout" not in parameters:
        return None
    value = _value(parameters["timeout"])
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"timeout is {_shown(value)}: an integer of microseconds, 0 (none) or more, wanted")
    return value / 1e6 if value else None


def _value(parameter: pb.InferParameter) -> str | int | bool | float | None:
    kind = parameter.WhichOneof("parameter_choice")
    value: str | int | bool | float | None = None if kind is None else getattr(parameter, kind)
    return value
