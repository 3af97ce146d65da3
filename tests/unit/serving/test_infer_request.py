"""The parser of the Open Inference Protocol against requests that fit, nearly fit, and do not fit at all."""

from collections.abc import Callable

import numpy as np
import pytest

from prelabel.errors import InputError
from serving.inference_v2 import open_inference_pb2 as pb
from support.infer_requests import Request, checked, files, pixels, typed, with_parameter, with_shape


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


def test_an_id_is_kept_with_its_request_and_must_not_be_long() -> None:
    request = pixels()
    request.id = "x" * 1024
    checked(request)
    request.id += "x"
    with pytest.raises(InputError, match="id has 1025 characters: at most 1024 wanted"):
        checked(request)


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


def changed(request: Request, change: Callable[[Request], object]) -> Request:
    change(request)
    return request


def with_output(name: str, *parameters: str) -> Request:
    request = pixels()
    output = request.outputs.add(name=name)
    for parameter in parameters:
        output.parameters[parameter].int64_param = 1
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
