import io
import socket
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from PIL import Image

from prelabel.client import MAX_MESSAGE_BYTES, PrelabelClient
from prelabel.duplex import Duplex
from prelabel.errors import InputError, ModelNotFoundError, OverloadedError, RemoteError, ServerUnavailableError
from prelabel.failures import silence
from prelabel.images import Pixels
from prelabel.testing import FakeServer
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from support.clients import CLASSES, SPEC, Time, assert_same, images

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(CLASSES, SPEC) as fake:
        yield fake


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def client(server: FakeServer, time: Time) -> Iterator[PrelabelClient]:
    with PrelabelClient(server.address, timeout_s=30, sleep=time.sleep, clock=time.clock) as connected:
        yield connected


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


def test_a_stream_that_fell_silent_is_opened_again(server: FakeServer) -> None:
    server.hold()
    with PrelabelClient(server.address, timeout_s=0.2, sleep=lambda _: server.release()) as client:
        (answer,) = client.predict_stream([images(3)])
    assert_same(answer, server.expected(images(3)))
    assert server.calls == 2


class DeadCall:
    """A call that stays silent for ever, as one can whose server dies just as it starts."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def initial_metadata(self) -> None:
        self.cancelled.wait()

    def __iter__(self) -> Iterator[None]:
        return iter(())

    def cancel(self) -> None:
        self.cancelled.set()


def test_a_call_that_is_silent_from_its_start_has_a_deadline_of_its_own() -> None:
    stream: Duplex[int, int] = Duplex(lambda requests: DeadCall())
    assert stream.meet(timeout_s=0.01) == silence(0.01)
    stream.close()


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


def test_a_stream_answers_in_order(server: FakeServer, client: PrelabelClient) -> None:
    batches = [images(1 + i % 4, seed=i) for i in range(40)]
    answers = list(client.predict_stream(batches, window=5))
    assert len(answers) == 40
    for batch, answer in zip(batches, answers, strict=True):
        assert_same(answer, server.expected(batch))
    assert (server.calls, server.batches) == (1, 40)


def test_a_stream_of_nothing_is_empty(client: PrelabelClient) -> None:
    assert list(client.predict_stream([])) == []


def test_a_stream_reads_at_most_its_window_ahead(client: PrelabelClient) -> None:
    taken = 0

    def batches() -> Iterator[Pixels]:
        nonlocal taken
        while True:
            taken += 1
            yield images(1)

    stream = client.predict_stream(batches(), window=3)
    for answered in range(1, 6):
        next(stream)
        assert taken == answered + 2
    stream.close()  # type: ignore[attr-defined]


def test_a_stream_that_fails_again_and_again_loses_and_doubles_nothing(
    server: FakeServer, client: PrelabelClient, time: Time
) -> None:
    for answered, code in enumerate([UNAVAILABLE, EXHAUSTED, UNAVAILABLE, UNAVAILABLE, EXHAUSTED]):
        server.fail_next(1, code, after_answers=answered)
    batches = [images(2, seed=i) for i in range(30)]
    answers = list(client.predict_stream(batches, window=4))
    assert len(answers) == 30
    for batch, answer in zip(batches, answers, strict=True):
        assert_same(answer, server.expected(batch))
    assert (server.calls, time.sleeps) == (6, 5)


@pytest.mark.parametrize("dies_at", [0, 5, 19])
def test_a_stream_survives_a_server_that_dies_and_comes_back(server: FakeServer, dies_at: int) -> None:
    batches = [images(2, seed=i) for i in range(20)]
    deaths = 0

    def sleep(seconds: float) -> None:
        # Called between tries: at the second one the server is back.
        nonlocal deaths
        deaths += 1
        if deaths == 2:
            server.start()
        if deaths > 2:
            probe.GetModel(pb.GetModelRequest(), wait_for_ready=True, timeout=30)

    def source() -> Iterator[Pixels]:
        for i, batch in enumerate(batches):
            if i == dies_at:
                server.stop()
            yield batch

    with (
        grpc.insecure_channel(server.address) as channel,
        PrelabelClient(server.address, retry_for_s=1e9, sleep=sleep, clock=Time().clock) as client,
    ):
        probe = PrelabelServiceStub(channel)
        answers = list(client.predict_stream(source(), window=4))
    assert deaths >= 2
    assert len(answers) == 20
    for batch, answer in zip(batches, answers, strict=True):
        assert_same(answer, server.expected(batch))


def test_a_model_that_changes_in_mid_stream_is_an_error(server: FakeServer, client: PrelabelClient) -> None:
    stream = client.predict_stream((images(1) for _ in range(50)), window=2)
    next(stream)
    server.model_id = "other00000000000"
    with pytest.raises(RemoteError, match="changed its model from fake000000000000 to other00000000000"):
        list(stream)


def test_a_bad_batch_ends_the_stream_after_the_earlier_answers(server: FakeServer, client: PrelabelClient) -> None:
    stream = client.predict_stream([images(1), images(2), images(3)[:, :2], images(4)], window=4)
    assert [len(next(stream)), len(next(stream))] == [1, 2]
    with pytest.raises(InputError, match=r"tensor of shape \[3, 2, 5, 1\]"):
        next(stream)
    assert server.calls == 1


def test_an_error_of_the_source_is_the_callers(client: PrelabelClient) -> None:
    def batches() -> Iterator[Pixels]:
        yield images(1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(client.predict_stream(batches()))
    assert len(client.predict(images(2))) == 2


def test_the_stream_has_its_time_anew_after_every_answer(server: FakeServer, time: Time) -> None:
    with PrelabelClient(
        server.address, retry_for_s=0.05, sleep=time.sleep, clock=time.clock, uniform=lambda: 1.0
    ) as client:
        for _ in range(10):
            server.fail_next(1, UNAVAILABLE, after_answers=1)
        assert len(list(client.predict_stream([images(1)] * 11, window=1))) == 11
    assert (time.sleeps, time.now_s) == (10, pytest.approx(0.5))


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
