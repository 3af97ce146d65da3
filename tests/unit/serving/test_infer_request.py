"""The parser of the Open Inference Protocol against requests that fit, nearly fit, and do not fit at all."""

import contextlib
import struct
from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.images import ImageSpec
from serving.infer_request import InferRequest, parse, split_bytes
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


def test_raw_pixels_are_the_images_row_by_row() -> None:
    images = checked(pixels(2)).images
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1))


def test_typed_pixels_are_the_same_images() -> None:
    images = checked(typed(pixels(2), uint_contents=list(range(12)))).images
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, checked(pixels(2)).images)


def test_encoded_files_come_raw_or_typed() -> None:
    contents = [b"one", b"", b"three" * 100]
    assert checked(files(*contents)).images == contents
    assert checked(typed(files(*contents), bytes_contents=contents)).images == contents


def test_a_request_that_says_nothing_gets_all_outputs_before_bulk_work_and_has_no_timeout() -> None:
    request = checked(pixels())
    assert (request.outputs, request.priority, request.timeout_s) == (
        ("probabilities", "realness"),
        "interactive",
        None,
    )


def test_outputs_are_a_choice_in_an_order() -> None:
    request = pixels()
    request.outputs.add(name="realness")
    assert checked(request).outputs == ("realness",)
    request.outputs.add(name="probabilities")
    assert checked(request).outputs == ("realness", "probabilities")


@pytest.mark.parametrize(
    ("parameter", "priority"),
    [
        (pb.InferParameter(string_param="interactive"), "interactive"),
        (pb.InferParameter(string_param="bulk"), "bulk"),
        (pb.InferParameter(int64_param=0), "interactive"),
        (pb.InferParameter(int64_param=1), "interactive"),
        (pb.InferParameter(uint64_param=1), "interactive"),
        (pb.InferParameter(uint64_param=2), "bulk"),
    ],
    ids=str,
)
def test_priority_is_a_name_or_a_number_of_tritons(parameter: pb.InferParameter, priority: str) -> None:
    request = pixels()
    request.parameters["priority"].CopyFrom(parameter)
    assert checked(request).priority == priority


@pytest.mark.parametrize(("timeout_us", "timeout_s"), [(1, 1e-6), (2_500_000, 2.5), (0, None)])
def test_the_timeout_is_in_microseconds_and_0_is_none(timeout_us: int, timeout_s: float | None) -> None:
    request = pixels()
    request.parameters["timeout"].int64_param = timeout_us
    assert checked(request).timeout_s == timeout_s


def with_parameter(name: str, **value: str | float | bool) -> Request:
    request = pixels()
    request.parameters[name].CopyFrom(pb.InferParameter(**value))
    return request


def changed(request: Request, change: Callable[[Request], object]) -> Request:
    change(request)
    return request


def with_output(name: str, *parameters: str) -> Request:
    request = pixels()
    output = request.outputs.add(name=name)
    for parameter in parameters:
        output.parameters[parameter].int64_param = 1
    return request


def with_shape(request: Request, *shape: int) -> Request:
    request.inputs[0].ClearField("shape")
    request.inputs[0].shape.extend(shape)
    return request


def with_input(**fields: object) -> Request:
    request = pixels()
    for name, value in fields.items():
        setattr(request.inputs[0], name, value)
    return request


def with_input_parameter(name: str) -> Request:
    return changed(pixels(), lambda request: request.inputs[0].parameters[name].SetInParent())


BAD = {
    "no input": (Request(model_name="m"), "0 inputs"),
    "two inputs": (changed(pixels(), lambda r: r.inputs.append(r.inputs[0])), r"2 inputs \['images', 'images'\]"),
    "unknown input": (with_input(name="pictures"), "input 'pictures' is unknown: `images` or `encoded`"),
    "no name": (with_input(name=""), "input '' is unknown"),
    "wrong datatype": (with_input(datatype="FP32"), "datatype 'FP32': UINT8 wanted"),
    "encoded as UINT8": (with_input(name="encoded"), "datatype 'UINT8': BYTES wanted"),
    "shared memory": (with_input_parameter("shared_memory_region"), "'shared_memory_region' of input `images`"),
    "no shape": (with_shape(pixels()), r"shape \[\]: \[B, 2, 3, 1\] wanted"),
    "wrong height": (with_shape(pixels(), 2, 3, 2, 1), r"shape \[2, 3, 2, 1\]: \[B, 2, 3, 1\]"),
    "too few dimensions": (with_shape(pixels(), 2, 6), r"shape \[2, 6\]"),
    "too many dimensions": (with_shape(pixels(), *[1] * 1000), r"shape \[1, 1, 1, 1, 1\]"),
    "negative": (with_shape(pixels(), -1, 2, 3, 1), r"shape \[-1, 2, 3, 1\], but a request holds 1 to 5"),
    "negative twice": (with_shape(pixels(), -2, -2, 3, 1), r"shape \[-2, -2, 3, 1\]"),
    "none": (with_shape(pixels(raw=b"x"), 0, 2, 3, 1), r"shape \[0, 2, 3, 1\], but a request holds"),
    "too many": (pixels(6), "1 to 5 images"),
    "huge": (with_shape(pixels(), 2**62, 2, 3, 1), "1 to 5 images"),
    "encoded [B, 1]": (with_shape(files(b"x"), 1, 1), r"shape \[1, 1\]: \[B\] wanted"),
    "short": (pixels(raw=bytes(11)), "11 bytes, but shape .* has 12"),
    "long": (pixels(raw=bytes(13)), "13 bytes"),
    "empty raw": (pixels(raw=b""), "0 bytes"),
    "no contents": (typed(pixels()), "no contents"),
    "raw and typed": (
        changed(pixels(), lambda r: r.inputs[0].contents.uint_contents.extend(range(12))),
        "raw_input_contents and contents",
    ),
    "two raw contents": (changed(pixels(), lambda r: r.raw_input_contents.append(b"")), "2 raw_input_contents"),
    "wrong typed field": (typed(pixels(), int_contents=[0] * 12), "int_contents"),
    "two typed fields": (typed(pixels(), uint_contents=[0] * 12, int_contents=[0]), "uint_contents"),
    "typed, short": (typed(pixels(), uint_contents=[0] * 11), "11 elements"),
    "typed, over 255": (typed(pixels(), uint_contents=[0] * 11 + [256]), "256: UINT8"),
    "typed files, short": (typed(files(b"a", b"b"), bytes_contents=[b"a"]), "1 elements, but the shape says 2"),
    "unknown output": (with_output("label"), "output 'label' is unknown"),
    "output twice": (changed(with_output("realness"), lambda r: r.outputs.add(name="realness")), "twice"),
    "classification": (with_output("realness", "classification"), "'classification' of output `realness`"),
    "unknown parameter": (with_parameter("sequence_id", int64_param=7), "'sequence_id' is unknown"),
    "priority 3": (with_parameter("priority", int64_param=3), "priority 3 is unknown"),
    "priority -1": (with_parameter("priority", int64_param=-1), "priority -1"),
    "priority 'high'": (with_parameter("priority", string_param="high"), "priority 'high'"),
    "priority true": (with_parameter("priority", bool_param=True), "priority True"),
    "priority 1.0": (with_parameter("priority", double_param=1.0), r"priority 1\.0"),
    "priority of nothing": (with_parameter("priority"), "priority None"),
    "timeout -1": (with_parameter("timeout", int64_param=-1), "timeout is -1"),
    "timeout true": (with_parameter("timeout", bool_param=True), "timeout is True"),
    "timeout '1'": (with_parameter("timeout", string_param="1"), "timeout is '1'"),
}


@pytest.mark.parametrize(("request_", "text"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_refused_and_named(request_: Request, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        checked(request_)
    assert "\n" not in str(caught.value)


def test_an_error_fits_the_headers_of_a_reply_whatever_it_quotes() -> None:
    long = "x" * 100_000
    for request in (with_input(name=long), with_input(datatype=long), with_output(long), with_parameter(long)):
        with pytest.raises(InputError) as caught:
            checked(request)
        assert len(str(caught.value)) < 500
    with pytest.raises(InputError) as caught:
        checked(Request(inputs=[Request.InferInputTensor(name=long)] * 100))
    assert len(str(caught.value)) < 1000


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
