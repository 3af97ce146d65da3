import io
import socket
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from PIL import Image

from prelabel.client import MAX_MESSAGE_BYTES, PrelabelClient
from prelabel.errors import InputError, ModelNotFoundError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.testing import FakeServer
from support.clients import CLASSES, EXHAUSTED, SPEC, UNAVAILABLE, Time, assert_same, images


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound and not listened on: every connection is refused, and nobody else can take it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_the_model_is_described(client: PrelabelClient) -> None:
    model = client.model()
    assert (model.classes, model.input, model.execution_provider) == (CLASSES, SPEC, "FakeServer")
    assert (model.model_id, model.name, model.max_request_images) == ("fake000000000000", "fake", 4096)


def test_pixels_are_predicted(server: FakeServer, client: PrelabelClient) -> None:
    batch = client.predict(images(7))
    assert_same(batch, server.expected(images(7)))
    assert batch.probabilities.dtype == batch.realness.dtype == np.float32
    assert (server.calls, server.batches, server.images) == (1, 1, 7)


def test_image_files_are_predicted_and_a_broken_one_is_an_error_of_its_row(
    server: FakeServer, client: PrelabelClient
) -> None:
    pixels = images(3)
    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0]).save(file, "PNG")
        files.append(file.getvalue())
    batch = client.predict([files[0], files[1][:30], files[2]])
    assert list(batch.errors) == [1]
    assert np.isnan(batch.probabilities[1]).all()
    np.testing.assert_array_equal(batch.realness[[0, 2]], server.expected(pixels).realness[[0, 2]])


@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED])
def test_a_failing_call_is_tried_again(
    server: FakeServer, client: PrelabelClient, time: Time, code: grpc.StatusCode
) -> None:
    server.fail_next(3, code)
    assert_same(client.predict(images(2)), server.expected(images(2)))
    assert (server.calls, time.sleeps) == (4, 3)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InputError),
        (grpc.StatusCode.NOT_FOUND, ModelNotFoundError),
        (grpc.StatusCode.INTERNAL, RemoteError),
        (grpc.StatusCode.UNIMPLEMENTED, RemoteError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ServerUnavailableError),
    ],
)
def test_other_failures_are_not_tried_again(
    server: FakeServer, client: PrelabelClient, time: Time, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    server.fail_next(1, code)
    with pytest.raises(kind):
        client.predict(images(2))
    with pytest.raises(InputError, match="wanted"):
        client.predict(images(2)[:, :3])
    assert (server.calls, time.sleeps) == (2, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_an_unreachable_server_is_an_error_that_says_what_to_do(unused_port: int, time: Time, stream: bool) -> None:
    address = f"127.0.0.1:{unused_port}"
    with (
        PrelabelClient(address, retry_for_s=20, sleep=time.sleep, clock=time.clock) as client,
        pytest.raises(ServerUnavailableError) as caught,
    ):
        list(client.predict_stream([images(1)])) if stream else client.predict(images(1))
    message = str(caught.value)
    assert address in message
    assert "in 20 s" in message
    assert "make serve" in message
    assert "\n" not in message
    assert time.now_s == pytest.approx(20)


def test_an_overloaded_server_is_an_error_of_its_own(server: FakeServer, time: Time) -> None:
    server.fail_next(100, EXHAUSTED)
    with (
        PrelabelClient(server.address, retry_for_s=3, sleep=time.sleep, clock=time.clock) as client,
        pytest.raises(OverloadedError, match=f"{server.address} is overloaded"),
    ):
        client.predict(images(1))
    assert server.calls == time.sleeps + 1 > 3


def test_a_server_that_does_not_answer_is_an_error(server: FakeServer, time: Time) -> None:
    server.hold()
    with PrelabelClient(server.address, timeout_s=0.2, retry_for_s=0.3, sleep=time.sleep, clock=time.clock) as client:
        with pytest.raises(ServerUnavailableError, match=r"did not answer within 0\.2 s"):
            client.predict(images(1))
        assert time.sleeps == 0
        with pytest.raises(ServerUnavailableError, match=r"did not answer within 0\.2 s"):
            list(client.predict_stream([images(1)]))
        assert time.sleeps > 0


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":50051", "localhost:x", "localhost:0", "h:65536"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        PrelabelClient(address)


def test_what_cannot_be_a_request_is_not_sent(server: FakeServer, client: PrelabelClient) -> None:
    with pytest.raises(InputError, match="float32"):
        client.predict(np.zeros((1, *SPEC.shape), np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"uint8 \[6, 5, 1\]"):
        client.predict(images(1)[0])
    with pytest.raises(InputError, match="no images"):
        client.predict(images(0))
    with pytest.raises(InputError, match="no images"):
        client.predict([])
    with pytest.raises(InputError, match="over the limit"):
        client.predict([bytes(MAX_MESSAGE_BYTES)])
    with pytest.raises(InputError, match="window is 0"):
        next(client.predict_stream([images(1)], window=0))
    assert server.calls == 0


def test_a_version_is_asked_for_by_name_or_model_id(server: FakeServer) -> None:
    for version in ("1", server.model_id):
        with PrelabelClient(server.address, model_version=version) as client:
            assert client.model().model_version == "1"
            assert len(client.predict(images(2))) == 2
            assert [len(answer) for answer in client.predict_stream([images(3)])] == [3]
    with PrelabelClient(server.address, model_version="9") as client:
        with pytest.raises(ModelNotFoundError, match=r"the server at .*: no model '9': 1 is served"):
            client.model()
        with pytest.raises(ModelNotFoundError, match=r"the server at .*: no model '9': 1 is served"):
            client.predict(images(2))
        with pytest.raises(ModelNotFoundError, match=r"the server at .*: no model '9': 1 is served"):
            list(client.predict_stream([images(1)]))
