"""`prelabel info`: what predictions, a bundle or a server are."""

import json
from pathlib import Path

import pytest

from prelabel.commands import info
from prelabel.connection import Connection
from prelabel.errors import ServerUnavailableError
from prelabel.testing import FakeServer
from support.command_line import bulk, error_line, run
from support.samples import write_pile


def test_info_on_predictions(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pile = write_pile(tmp_path / "pile", 9, broken=[4])
    bulk(pile, tiny_bundle)
    capsys.readouterr()
    assert run("info", pile.parent / "out", "--json") == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["kind"] == "predictions"
    assert (fields["rows"], fields["errors"], fields["shards"], fields["input_images"]) == (9, 1, 3, 9)
    assert fields["labels"] == {"low": 8, "middle": 0, "high": 0}
    assert list(fields["confidence"]) == ["0%", "5%", "25%", "50%", "75%", "95%", "100%"]
    values = list(fields["confidence"].values())
    assert values == sorted(values)
    assert 0.99 < values[0] <= values[-1] <= 1
    assert run("info", pile.parent / "out") == 0
    assert "errors                       1\n" in capsys.readouterr().out


def test_info_on_predictions_that_are_all_errors(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bulk(write_pile(tmp_path / "pile", 2, broken=[0, 1]), tiny_bundle) == 3
    capsys.readouterr()
    assert run("info", tmp_path / "out", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["confidence"].values()) == {None}


def test_info_on_a_bundle(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", tiny_bundle, "--json") == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["kind"] == "model bundle"
    assert fields["classes"] == ["low", "middle", "high"]
    assert fields["parity"]["real_images"] == 1000
    assert run("info", tiny_bundle) == 0
    text = capsys.readouterr().out
    assert f"model_id                     {fields['model_id']}\n" in text
    assert "parity.real_images           1,000\n" in text


def test_info_on_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(classes=("cat", "dog"), model_id="abc") as server:
        assert run("info", server.address, "--json") == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["kind"], fields["model_id"], fields["classes"]) == ("server", "abc", ["cat", "dog"])


def test_info_says_when_a_server_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(connection: Connection, address: str) -> object:
        raise ServerUnavailableError(f"nobody at {address}")

    monkeypatch.setattr(info, "_model_of_server", away)
    assert run("info", "localhost:50051") == 2
    assert error_line(capsys) == "error: nobody at localhost:50051"


@pytest.mark.parametrize("what", ["nowhere", "nowhere:x", ":50051", "a/b:50051"])
def test_info_on_nothing_is_an_error(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", what) == 2
    assert f"{what} does not exist and is no server address HOST:PORT" in error_line(capsys)


def test_info_on_something_else_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", tmp_path) == 2
    assert "is neither a model bundle (bundle.json) nor predictions (part-*.parquet)" in error_line(capsys)
