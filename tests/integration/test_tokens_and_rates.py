"""The server's process with tokens and with a rate for each caller."""

import json
from pathlib import Path

import pytest

from prelabel import __main__ as cli
from prelabel.client import PrelabelClient
from prelabel.errors import AccessError, OverloadedError
from support.guarded import IMAGES, USER, connect, health
from support.servers import run_server


def test_tokens(
    tiny_bundle: Path,
    tmp_path: Path,
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("PRELABEL_TOKEN", raising=False)
    with run_server(tiny_bundle, tmp_path / "port", "--token-file", str(token_file)) as server:
        with connect(server, token=USER) as client:
            assert len(client.predict(IMAGES)) == 3
            assert [len(batch) for batch in client.predict_stream([IMAGES] * 5)] == [3] * 5
            assert USER not in repr(client)
        messages = []
        for token in (None, "the-token-of-nobody"):
            with connect(server, token=token) as client:
                for call in (
                    client.model,
                    lambda: client.predict(IMAGES),
                    lambda: list(client.predict_stream([IMAGES])),
                ):
                    with pytest.raises(AccessError, match="UNAUTHENTICATED") as caught:
                        call()
                    messages.append(str(caught.value))
        assert len(set(messages)) == 1
        assert health(server).returncode == 0

        assert cli.main(["info", server.address]) == 2
        assert "PRELABEL_TOKEN" in capsys.readouterr().err
        monkeypatch.setenv("PRELABEL_TOKEN", USER)
        assert cli.main(["info", server.address]) == 0
        status, log = server.terminate()
    assert status == 0
    assert "token-of" not in json.dumps(log)


def test_a_client_over_its_rate_stays_away_for_as_long_as_the_server_says(tiny_bundle: Path, tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise EnoughError

    slept: list[float] = []
    limits = ("--rate-limit-images-per-s", "0.01", "--rate-limit-burst-images", "4")
    with (
        run_server(tiny_bundle, tmp_path / "port", *limits) as server,
        PrelabelClient(server.address, retry_for_s=3600, sleep=sleep) as client,
    ):
        answers = client.predict_stream([IMAGES, IMAGES], window=1)
        assert len(next(answers)) == 3
        with pytest.raises(EnoughError):
            next(answers)
        with pytest.raises(EnoughError):
            client.predict(IMAGES)
        client.model()
        with (
            PrelabelClient(server.address, retry_for_s=0) as hasty,
            pytest.raises(OverloadedError, match=r"0\.01 images per second"),
        ):
            hasty.predict(IMAGES)
    # Two images are missing: 200 s, less what the test took.
    assert min(slept) > 100
