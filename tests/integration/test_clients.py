"""Both clients against real servers: processes, sockets, ONNX Runtime; one of two servers is killed in mid-stream."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from prelabel.client import PrelabelClient
from prelabel.client_aio import AsyncPrelabelClient
from prelabel.engine import load_engine
from prelabel.errors import AccessError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch
from prelabel.tls import Tls
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from prelabel.wire import predict_request
from support.certificates import Authority
from support.servers import RunningServer, run_server


def batches(count: int) -> list[Pixels]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (1 + i % 5, 8, 8, 1), np.uint8) for i in range(count)]


def assert_all_answered(answers: list[PredictionBatch], asked: list[Pixels], bundle: Path) -> None:
    engine = load_engine(bundle, "cpu")
    assert len(answers) == len(asked)
    for answer, images in zip(answers, asked, strict=True):
        wanted = engine.predict(images)
        np.testing.assert_allclose(answer.probabilities, wanted.probabilities, atol=1e-6)
        np.testing.assert_allclose(answer.realness, wanted.realness, atol=1e-6)
        assert (answer.model_id, answer.errors) == (wanted.model_id, {})


async def test_the_asyncio_client_says_what_the_other_one_says(
    server: RunningServer, client: PrelabelClient, tiny_bundle: Path
) -> None:
    asked = batches(30)
    async with AsyncPrelabelClient(server.address, retry_for_s=0) as other:
        assert await other.model() == client.model()
        one = await other.predict(asked[4])
        np.testing.assert_array_equal(one.probabilities, client.predict(asked[4]).probabilities)
        broken = await other.predict([b"broken"])
        assert broken.errors == client.predict([b"broken"]).errors
        answers = [answer async for answer in other.predict_stream(asked, window=16)]
    assert_all_answered(answers, asked, tiny_bundle)


def test_the_server_answers_in_the_columns_that_a_request_asks_for(stub: PrelabelServiceStub) -> None:
    request = predict_request(batches(3)[2], "interactive", request_id="mine")
    raw = stub.Predict(request)
    assert (raw.request_id, len(raw.probabilities), len(raw.realness), len(raw.label_index)) == ("mine", 0, 0, 0)
    request.raw_answers = False
    old = stub.Predict(request)
    assert (old.probabilities_raw, old.realness_raw) == (b"", b"")
    assert np.frombuffer(raw.probabilities_raw, "<f4").tolist() == list(old.probabilities)
    assert np.frombuffer(raw.realness_raw, "<f4").tolist() == list(old.realness)


def kill(server: RunningServer) -> None:
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(60)


@pytest.fixture
def pair(tiny_bundle: Path, tmp_path: Path) -> Iterator[tuple[RunningServer, RunningServer]]:
    with run_server(tiny_bundle, tmp_path / "one") as one, run_server(tiny_bundle, tmp_path / "other") as other:
        yield one, other


def test_a_stream_survives_the_death_of_its_server(
    pair: tuple[RunningServer, RunningServer], tiny_bundle: Path
) -> None:
    asked = batches(60)

    def source() -> Iterator[Pixels]:
        for number, batch in enumerate(asked):
            if number == 30:
                kill(pair[0])  # of equally busy servers the first one is chosen first
            yield batch

    with PrelabelClient([server.address for server in pair]) as client:
        answers = list(client.predict_stream(source(), window=6))
        assert client.model().model_id == answers[0].model_id
    assert_all_answered(answers, asked, tiny_bundle)


async def test_a_stream_of_the_asyncio_client_survives_the_death_of_its_server(
    pair: tuple[RunningServer, RunningServer], tiny_bundle: Path
) -> None:
    asked = batches(60)

    async def source() -> AsyncIterator[Pixels]:
        for number, batch in enumerate(asked):
            if number == 30:
                kill(pair[0])
            yield batch

    async with AsyncPrelabelClient([server.address for server in pair]) as client:
        answers = [answer async for answer in client.predict_stream(source(), window=6)]
    assert_all_answered(answers, asked, tiny_bundle)


async def test_the_asyncio_client_speaks_tls_and_shows_its_token(tiny_bundle: Path, tmp_path: Path) -> None:
    authority, token = Authority(tmp_path), "the-token-of-a-user"
    certificate, key = authority.issue("server")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"user:{token}\n")
    tokens.chmod(0o600)
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--token-file", str(tokens))
    with run_server(tiny_bundle, tmp_path / "port", *options) as server:
        tls = Tls(authority.file)
        async with AsyncPrelabelClient(server.address, tls=tls, token=token) as client:
            assert len(await client.predict(batches(3)[2])) == 3
            assert [len(answer) async for answer in client.predict_stream(batches(5))] == [1, 2, 3, 4, 5]
        async with AsyncPrelabelClient(server.address, tls=tls, token=token[::-1]) as client:
            with pytest.raises(AccessError, match="refuses this caller"):
                await client.predict(batches(1)[0])
            with pytest.raises(AccessError, match="refuses this caller"):
                await anext(client.predict_stream(batches(1)))
        stranger = Authority(tmp_path, "stranger")
        async with AsyncPrelabelClient(server.address, tls=Tls(stranger.file), token=token) as client:
            with pytest.raises(AccessError, match="is not trusted"):
                await anext(client.predict_stream(batches(1)))
