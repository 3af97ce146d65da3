"""Made-up bytes and requests: wholly understood or refused, never half."""

import contextlib

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from serving.infer_request import split_bytes
from serving.inference_v2 import open_inference_pb2 as pb
from support.infer_requests import (
    MAX_IMAGES,
    SPEC,
    Request,
    checked,
    files,
    joined,
    pixels,
    typed,
    with_parameter,
    with_shape,
)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_bytes_elements_come_back(elements: list[bytes]) -> None:
    assert split_bytes(joined(elements), len(elements)) == elements


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4), st.data())
def test_truncated_bytes_are_refused(elements: list[bytes], data: st.DataObject) -> None:
    raw = joined(elements)
    with pytest.raises(InputError):
        split_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))], len(elements))


@given(st.lists(st.binary(max_size=8), max_size=4), st.binary(min_size=1, max_size=8))
def test_bytes_after_the_last_element_are_refused(elements: list[bytes], rest: bytes) -> None:
    with pytest.raises(InputError):
        split_bytes(joined(elements) + rest, len(elements))


@given(st.binary(max_size=40), st.integers(0, 6))
def test_any_bytes_are_elements_or_refused(raw: bytes, count: int) -> None:
    try:
        elements = split_bytes(raw, count)
    except InputError:
        return
    assert len(elements) == count
    assert joined(elements) == raw


small = st.integers(-2, 7) | st.integers(-(2**63), 2**63 - 1)
parameters = st.dictionaries(
    st.sampled_from(["priority", "timeout", "other"]),
    st.builds(lambda value: pb.InferParameter(int64_param=value), small)
    | st.builds(lambda value: pb.InferParameter(string_param=value), st.sampled_from(["bulk", "interactive", "x"]))
    | st.builds(lambda value: pb.InferParameter(bool_param=value), st.booleans())
    | st.just(pb.InferParameter()),
    max_size=2,
)
contents = st.builds(
    pb.InferTensorContents,
    uint_contents=st.lists(st.integers(0, 260), max_size=14),
    bytes_contents=st.lists(st.binary(max_size=4), max_size=3),
    int_contents=st.lists(st.integers(0, 3), max_size=1),
)
inputs = st.builds(
    Request.InferInputTensor,
    name=st.sampled_from(["images", "encoded", "other"]),
    datatype=st.sampled_from(["UINT8", "BYTES", "FP32"]),
    shape=st.lists(small, max_size=5) | st.builds(lambda b: [b, *SPEC.shape], small) | st.builds(lambda b: [b], small),
    contents=st.none() | contents,
)
outputs = st.builds(Request.InferRequestedOutputTensor, name=st.sampled_from(["probabilities", "realness"]))
raw_contents = (
    st.binary(max_size=40)
    | st.builds(bytes, st.sampled_from([6, 12, 18]))
    | st.builds(joined, st.lists(st.binary(max_size=3), max_size=4))
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request that fits, some fields of which are then replaced by anything."""
    count = draw(st.integers(1, MAX_IMAGES))
    good = [
        pixels(count),
        typed(pixels(count), uint_contents=list(range(6 * count))),
        files(*[b"file"] * count),
        typed(files(*[b"file"] * count), bytes_contents=[b"file"] * count),
    ]
    request = Request()
    request.CopyFrom(draw(st.sampled_from(good)))
    request.outputs.extend(draw(st.just([]) | st.lists(outputs, max_size=2)))
    match draw(st.integers(0, 6)):
        case 1:
            request.inputs.append(draw(inputs))
        case 2:
            request.inputs[0].CopyFrom(draw(inputs))
        case 3:
            with_shape(request, *draw(st.lists(small, max_size=5)))
        case 4:
            request.raw_input_contents[:] = draw(st.lists(raw_contents, max_size=2))
        case 5:
            request.inputs[0].contents.CopyFrom(draw(contents))
        case 6:
            for name, value in draw(parameters).items():
                request.parameters[name].CopyFrom(value)
    return request


@given(requests())
def test_any_request_is_wholly_understood_or_refused(request_: Request) -> None:
    try:
        wanted = checked(request_)
    except InputError:
        return
    (tensor,) = request_.inputs
    assert len(wanted.images) == tensor.shape[0]
    assert 1 <= len(wanted.images) <= MAX_IMAGES
    if tensor.name == "images":
        assert isinstance(wanted.images, np.ndarray)
        assert (wanted.images.dtype, wanted.images.shape[1:]) == (np.uint8, SPEC.shape)
    else:
        assert all(isinstance(file, bytes) for file in wanted.images)
    assert [output.name for output in request_.outputs] in ([], list(wanted.outputs))
    assert wanted.timeout_s is None or wanted.timeout_s > 0


@given(st.sampled_from([pixels(), files(b"a", b"bc"), with_parameter("timeout", int64_param=5)]), st.data())
def test_a_damaged_message_is_understood_or_refused(request_: Request, data: st.DataObject) -> None:
    message = bytearray(request_.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = Request.FromString(bytes(message[: data.draw(st.integers(0, len(message)))]))
    except DecodeError:
        return
    with contextlib.suppress(InputError):
        assert 1 <= len(checked(damaged).images) <= MAX_IMAGES
