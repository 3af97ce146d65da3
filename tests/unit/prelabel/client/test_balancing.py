"""The client with several servers, over real sockets."""

import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from prelabel.client import PrelabelClient
from prelabel.errors import RemoteError, ServerUnavailableError
from prelabel.images import Pixels
from prelabel.testing import FakeServer
from support.clients import CLASSES, SPEC, Time, assert_same, images


@pytest.fixture
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    with FakeServer(CLASSES, SPEC) as one, FakeServer(CLASSES, SPEC) as other:
        yield one, other


@pytest.fixture
def client(servers: tuple[FakeServer, FakeServer], time: Time) -> Iterator[PrelabelClient]:
    addresses = [server.address for server in servers]
    with PrelabelClient(addresses, sleep=time.sleep, clock=time.clock) as connected:
        yield connected


def test_calls_take_turns(servers: tuple[FakeServer, FakeServer], client: PrelabelClient) -> None:
    for seed in range(6):
        assert_same(client.predict(images(2, seed)), servers[0].expected(images(2, seed)))
    assert [server.batches for server in servers] == [3, 3]


def test_calls_avoid_the_server_of_an_open_stream(
    servers: tuple[FakeServer, FakeServer], client: PrelabelClient
) -> None:
    stream = client.predict_stream([images(1)] * 20, window=4)
    next(stream)
    busy = 0 if servers[0].calls else 1
    before = servers[busy].batches
    for _ in range(3):
        client.predict(images(1))
    assert servers[1 - busy].batches == 3
    assert len(list(stream)) == 19
    assert servers[busy].calls == 1
    assert servers[busy].batches == 20 >= before


def test_streams_of_several_threads_are_spread(servers: tuple[FakeServer, FakeServer], client: PrelabelClient) -> None:
    together = threading.Barrier(2, timeout=30)

    def batches() -> Iterator[Pixels]:
        for seed in range(10):
            if seed == 1:
                together.wait()
            yield images(1, seed)

    threads = [threading.Thread(target=lambda: list(client.predict_stream(batches()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [server.batches for server in servers] == [10, 10]


def test_a_dead_server_is_skipped_and_looked_at_again_later(
    servers: tuple[FakeServer, FakeServer], client: PrelabelClient, time: Time
) -> None:
    servers[0].stop()
    for seed in range(4):
        assert_same(client.predict(images(1, seed)), servers[1].expected(images(1, seed)))
    assert servers[1].calls == 4
    assert time.sleeps == 0
    servers[0].start()
    with grpc.insecure_channel(servers[0].address) as probe:
        grpc.channel_ready_future(probe).result(timeout=60)
    # gRPC itself connects again within two seconds; until then the other server answers.
    for _ in range(100_000):
        time.now_s += 60
        client.predict(images(1))
        if servers[0].calls:
            break
    assert servers[0].batches == 1
    assert time.sleeps == 0


def test_a_full_server_hands_its_calls_to_the_other(
    servers: tuple[FakeServer, FakeServer], client: PrelabelClient, time: Time
) -> None:
    servers[0].fail_next(1, grpc.StatusCode.RESOURCE_EXHAUSTED)
    client.predict(images(1))
    assert [(server.calls, server.batches) for server in servers] == [(1, 0), (1, 1)]
    assert time.sleeps == 0


@pytest.mark.parametrize("window", [1, 5])
def test_a_stream_whose_server_dies_goes_on_at_another_and_loses_and_doubles_nothing(
    servers: tuple[FakeServer, FakeServer], client: PrelabelClient, window: int
) -> None:
    batches = [images(1 + seed % 3, seed) for seed in range(40)]

    def source() -> Iterator[Pixels]:
        for number, batch in enumerate(batches):
            if number == 20:
                next(server for server in servers if server.calls).stop()
            yield batch

    answers = list(client.predict_stream(source(), window=window))
    assert len(answers) == 40
    for batch, answer in zip(batches, answers, strict=True):
        assert_same(answer, servers[0].expected(batch))
    assert all(server.batches for server in servers)


@pytest.mark.parametrize("round_", range(20))
def test_a_server_that_dies_just_as_a_stream_starts_costs_no_batch(round_: int) -> None:
    """At this moment gRPC's own retries lose the end of one call in 150."""
    with FakeServer(CLASSES, SPEC) as dying, FakeServer(CLASSES, SPEC) as living:
        with PrelabelClient([dying.address, living.address], sleep=lambda _: None) as client:
            death = threading.Thread(target=dying.stop)

            def source() -> Iterator[Pixels]:
                yield images(1, 0)
                death.start()
                yield from (images(1, seed) for seed in range(1, 4))

            answers = list(client.predict_stream(source(), window=2))
            death.join(60)
        for seed, answer in enumerate(answers):
            assert_same(answer, living.expected(images(1, seed)))
        assert len(answers) == 4


def test_servers_of_different_models_are_an_error_that_names_them(
    servers: tuple[FakeServer, FakeServer], client: PrelabelClient
) -> None:
    assert client.model().model_id == servers[0].model_id
    servers[1].model_id = "other00000000000"
    with pytest.raises(RemoteError) as caught:
        client.model()
    for server in servers:
        assert f"{server.model_id} at {server.address}" in str(caught.value)
    servers[1].stop()
    assert client.model().model_id == servers[0].model_id


def test_where_no_server_answers_all_are_named(servers: tuple[FakeServer, FakeServer], time: Time) -> None:
    addresses = ",".join(server.address for server in servers)
    for server in servers:
        server.stop()
    with (
        PrelabelClient(addresses, retry_for_s=5, sleep=time.sleep, clock=time.clock) as client,
        pytest.raises(ServerUnavailableError) as caught,
    ):
        client.predict(images(1))
    assert all(server.address in str(caught.value) for server in servers)
    assert time.now_s == pytest.approx(5)


def test_many_threads_get_their_own_answers_from_two_servers(
    servers: tuple[FakeServer, FakeServer], client: PrelabelClient
) -> None:
    wrong: list[int] = []

    def ask(first: int) -> None:
        for seed in range(first, first + 10):
            answer, wanted = client.predict(images(3, seed)), servers[0].expected(images(3, seed))
            if not np.array_equal(answer.realness, wanted.realness):
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert sum(server.batches for server in servers) == 80
