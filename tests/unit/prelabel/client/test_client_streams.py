"""Streams of the client: in order, at most a window ahead, and nothing lost or doubled by what fails."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from prelabel.client import PrelabelClient
from prelabel.duplex import Duplex
from prelabel.errors import InputError, RemoteError
from prelabel.failures import silence
from prelabel.images import Pixels
from prelabel.testing import FakeServer
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from support.clients import EXHAUSTED, UNAVAILABLE, Time, assert_same, images


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
    # By its answer to a batch that is on its way, or by its refusal of the next one, whichever comes first.
    seen = "changed its model from fake000000000000 to other00000000000|has no model fake000000000000 any more"
    with pytest.raises(RemoteError, match=seen):
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
