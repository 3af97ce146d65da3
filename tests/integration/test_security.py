"""What the server's process refuses, on real sockets: too much of anything, and bytes that are no message."""

import io
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from prelabel.client import PrelabelClient
from prelabel.errors import InputError
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from scripts.soak.http2 import GOAWAY, PING, PREFACE, SETTINGS, frame
from support.guarded import connect
from support.servers import RunningServer, run_server

PREDICT = "/prelabel.v1.PrelabelService/Predict"

LIMITS = ("--max-message-mib", "2", "--max-image-pixels", "1000000", "--max-connections", "6")


@pytest.fixture(scope="module")
def limited(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_server(tiny_bundle, tmp_path_factory.mktemp("limited") / "port", *LIMITS) as server:
        yield server


def test_a_message_over_the_server_s_limit_is_an_error_at_once(limited: RunningServer) -> None:
    with connect(limited) as client:
        # An answer of one image is planned with 524 bytes here; 1 MiB is kept for what is not images.
        assert client.model().max_request_images == (1 << 20) // 524
        assert len(client.predict(np.zeros((2001, 8, 8, 1), np.uint8))) == 2001
        with pytest.raises(InputError, match="give smaller batches"):
            client.predict([bytes(3 << 20)])
        with pytest.raises(InputError, match="give smaller batches"):
            list(client.predict_stream([[bytes(3 << 20)]]))
    with (
        PrelabelClient(limited.address, max_message_bytes=1000) as small,
        pytest.raises(InputError, match="over the limit of 1000"),
    ):
        small.predict([bytes(1000)])


def test_a_compressed_message_is_measured_by_what_it_unpacks_to(limited: RunningServer) -> None:
    request = pb.PredictRequest(encoded=pb.EncodedImages(images=[bytes(40 << 20)]))
    options = [("grpc.max_send_message_length", 64 << 20)]
    with grpc.insecure_channel(limited.address, options=options) as channel:
        stub = PrelabelServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="larger than max") as caught:
            stub.Predict(request, compression=grpc.Compression.Gzip, timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        small = pb.PredictRequest(encoded=pb.EncodedImages(images=[bytes(1000)]))
        assert len(stub.Predict(small, compression=grpc.Compression.Gzip, timeout=30).errors) == 1


def png(width: int, height: int) -> bytes:
    """A black image, one bit a pixel: complete, valid, and about a thousandth of its pixels in size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_an_error_of_its_item(limited: RunningServer) -> None:
    bomb = png(30_000, 30_000)
    assert len(bomb) < 200_000
    good = io.BytesIO()
    Image.new("L", (1000, 1000), 230).save(good, "PNG")
    with connect(limited) as client:
        batch = client.predict([bomb, good.getvalue(), png(1001, 1000)])
    assert list(batch.errors) == [0, 2]
    assert batch.errors[0].startswith("over the limit of 1000000 pixels: Image size (900000000 pixels)")
    assert batch.errors[2] == "1001 x 1000 pixels are over the limit of 1000000 pixels"
    assert batch.label_index[1] == 2


def test_metadata_over_8_kib_is_refused(limited: RunningServer) -> None:
    with grpc.insecure_channel(limited.address) as channel:
        stub = PrelabelServiceStub(channel)
        stub.GetModel(pb.GetModelRequest(), metadata=[("x-note", "y" * 6000)], timeout=30)
        with pytest.raises(grpc.RpcError, match="metadata size exceeds") as caught:
            stub.GetModel(pb.GetModelRequest(), metadata=[("x-note", "y" * 8500)], timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_connections_are_bounded_and_their_places_come_back(limited: RunningServer) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(limited.address, options=options)) for _ in range(8)]
        outcomes = []
        for channel in channels:
            try:
                PrelabelServiceStub(channel).GetModel(pb.GetModelRequest(), timeout=30)
                outcomes.append("answered")
            except grpc.RpcError as error:
                outcomes.append(error.code().name)
    assert outcomes == ["answered"] * 6 + ["UNAVAILABLE"] * 2
    # Closing takes a moment.
    with PrelabelClient(limited.address, retry_for_s=30) as client:
        client.model()


def read_frame(stream: io.BufferedReader) -> tuple[int, bytes]:
    head = stream.read(9)
    assert len(head) == 9, "the server closed the connection without a word"
    return head[3], stream.read(int.from_bytes(head[:3], "big"))


def test_http2_settings_and_pings(limited: RunningServer) -> None:
    host, _, port = limited.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as stream:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        kind, payload = read_frame(stream)
        assert kind == SETTINGS
        settings = dict(struct.iter_unpack(">HI", payload))
        assert settings[3] == 256  # MAX_CONCURRENT_STREAMS
        assert settings[6] == 8 << 10  # MAX_HEADER_LIST_SIZE
        connection.sendall(b"".join(frame(PING, 0, 0, struct.pack(">Q", number)) for number in range(6)))
        while kind != GOAWAY:
            kind, payload = read_frame(stream)
        assert payload[4:8] == bytes([0, 0, 0, 0x0B])  # ENHANCE_YOUR_CALM
        assert b"too_many_pings" in payload


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_bytes_that_are_no_message_are_invalid(limited: RunningServer, stream: bool) -> None:
    garbage = b"\xff\xff\xff"
    with grpc.insecure_channel(limited.address) as channel:
        if stream:
            call = channel.stream_stream(f"{PREDICT}Stream")(iter([garbage]), timeout=30)
        else:
            call = channel.unary_unary(PREDICT).future(garbage, timeout=30)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        method = f"{PREDICT}Stream" if stream else PREDICT
        assert call.details() == f"the bytes sent are no request message of {method}"


def test_no_answer_names_a_path_or_a_class_of_the_server(limited: RunningServer, tiny_bundle: Path) -> None:
    tensor = pb.ImageTensor(shape=[1, 8, 8, 1], dtype=pb.DATA_TYPE_UINT8, data=bytes(64))
    files = [
        b"",
        b"x",
        b"/etc/passwd",
        b"\x89PNG\r\n\x1a\n",
        png(8, 8)[:40],
        b"GIF89a" + bytes(30),
        b"II*\0" + bytes(50),
    ]
    requests = [
        pb.PredictRequest(),
        pb.PredictRequest(tensor=pb.ImageTensor(shape=[1, 2], data=b"1")),
        pb.PredictRequest(tensor=pb.ImageTensor(shape=[1, 2, 2, 1], dtype=1, data=b"1234")),
        pb.PredictRequest(tensor=tensor, priority=99),
        pb.PredictRequest(encoded=pb.EncodedImages(images=files)),
    ]
    texts = []
    with grpc.insecure_channel(limited.address) as channel:
        stub = PrelabelServiceStub(channel)
        for request in requests:
            try:
                texts += [error.message for error in stub.Predict(request, timeout=30).errors]
            except grpc.RpcError as error:
                texts.append(error.details())
        for method in ("/prelabel.v1.PrelabelService/Nothing", "/x/y", "/"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", timeout=30)
            texts.append(caught.value.details())
    assert len(texts) == 4 + len(files) + 3
    for text in texts:
        assert not re.search(r"/(tmp|home|usr|work|app)|\.py\b|<class|object at 0x|Traceback", text), text
        assert str(tiny_bundle) not in text
