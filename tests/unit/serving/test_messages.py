"""What is refused before it is parsed, and that nothing else is."""

import contextlib

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from prelabel.v1 import prelabel_pb2 as pb
from serving import messages
from serving.inference_v2 import open_inference_pb2 as v2
from serving.messages import MAX_FIELDS, Unreadable, reader

MANY = MAX_FIELDS + 1


def field(number: int, content: bytes) -> bytes:
    return (
        pb.PredictRequest(request_id="x" * len(content))
        .SerializeToString()
        .replace(b"x" * len(content), content)
        .replace(b"\x0a", bytes([number << 3 | 2]), 1)
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pb.PredictRequest, field(3, b"\x0a\x00" * 9 * MANY)),
        (pb.PredictRequest, b"\x12\x00\x1a\x00" * 5 * MANY),
        (pb.PredictRequest, field(2, field(1, b"\x01" * 20 * MANY))),
        (pb.PredictRequest, field(2, b"\x08\x01" * 9 * MANY)),
        (v2.ModelInferRequest, b"\x2a\x00" * 9 * MANY),
        (v2.ModelInferRequest, b"\x22\x00" * 9 * MANY),
        (v2.ModelInferRequest, b"\x3a\x00" * 9 * MANY),
        (v2.ModelInferRequest, field(5, field(5, field(3, b"\x01" * 20 * MANY)))),
        (pb.GetModelRequest, b"\x78\x00" * 9 * MANY),
    ],
    ids=["files", "one after the other", "shape", "shape, unpacked", "inputs", "parameters", "raw", "int64", "unknown"],
)
def test_messages_of_too_many_fields_are_not_parsed(kind: type[Message], message: bytes) -> None:
    kind.FromString(message)  # a message all the same
    answer = reader(kind.FromString)(message)
    assert isinstance(answer, Unreadable)
    assert f"more than {MAX_FIELDS} fields" in answer.reason


def infer(count: int, **contents: list[int] | list[bytes]) -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name="m")
    request.inputs.add(name="images", datatype="UINT8", shape=[count]).contents.CopyFrom(
        v2.InferTensorContents(**contents)
    )
    return request


@pytest.mark.parametrize(
    "request_",
    [
        pb.PredictRequest(encoded=pb.EncodedImages(images=[b"\x0a\x00" * 40] * 4097)),
        pb.PredictRequest(tensor=pb.ImageTensor(shape=[4096, 9, 9, 1], dtype=1, data=b"\x0a" * 81 * 4096)),
        infer(4096, uint_contents=[200] * 81 * 4096),
        infer(4096, bytes_contents=[b"\x0a\x00" * 40] * 4096),
        v2.ModelInferRequest(raw_input_contents=[b"\x0a\x00" * 9 * MANY]),
    ],
    ids=["files", "pixels", "typed pixels", "typed files", "raw"],
)
def test_the_largest_requests_are_parsed(request_: Message) -> None:
    assert request_.ByteSize() > messages._SMALL_BYTES
    assert reader(type(request_).FromString)(request_.SerializeToString()) == request_


PIECES = st.sampled_from(
    [b"\x0a", b"\x12", b"\x1a", b"\x00", b"\x01", b"\x02", b"\x08", b"\x0b", b"\x0d", b"\x80", b"\xff"]
)


@given(message=st.lists(PIECES, max_size=40).map(b"".join) | st.binary(max_size=40))
def test_what_the_parser_takes_is_taken_and_what_it_refuses_is_no_error(message: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "_SMALL_BYTES", -1)
        answer = reader(v2.ModelInferRequest.FromString)(message)
    wanted = None
    with contextlib.suppress(DecodeError):
        wanted = v2.ModelInferRequest.FromString(message)
    if wanted is None:
        assert isinstance(answer, Unreadable)
        assert answer.reason == "are no request message"
    else:
        assert answer == wanted
