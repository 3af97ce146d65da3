"""Work that one model began is finished by it, where the server has it beside a later one."""

from pathlib import Path

import pytest
from conftest import write_tiny_bundle

from prelabel.client import PrelabelClient
from prelabel.cvat_tags import ServerAnswers
from prelabel.errors import InputError
from prelabel.table import read_predictions
from prelabel.testing import FakeServer
from support.command_line import error_line, run
from support.samples import write_pile
from support.servers import run_server


def test_a_run_goes_on_with_the_model_that_began_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pile, models, output = write_pile(tmp_path / "pile", 12), tmp_path / "models", tmp_path / "out"
    write_tiny_bundle(models / "1", "first")
    options = ["--input", pile, "--output", output, "--shard-size", 4, "--progress", "none", "--server"]
    with run_server(models, tmp_path / "port") as server:
        assert run("run", *options, server.address, "--limit", 4) == 0
    write_tiny_bundle(models / "2", "second")
    with run_server(models, tmp_path / "port", "--versions", "all") as server:
        assert run("run", *options, server.address) == 0
        assert set(read_predictions(output)["model_id"].to_pylist()) == {client_model(server.address, "1")}
    capsys.readouterr()
    with run_server(models, tmp_path / "port", "--versions", "2") as server:
        assert run("run", *options, server.address) == 2
    assert "choose another directory, or start over with --overwrite" in error_line(capsys)


def client_model(address: str, version: str) -> str:
    with PrelabelClient(address, model_version=version) as asking:
        return asking.model().model_id


def test_cvat_asks_another_model_only_if_its_classes_are_the_same(tmp_path: Path) -> None:
    image = (write_pile(tmp_path / "pile", 1) / "0000.png").read_bytes()
    with FakeServer(classes=("cat", "dog")) as server:
        ask = ServerAnswers(server.address, ("cat", "dog"))
        assert ask(image).model_id == server.model_id
        server.model_id = "later00000000000"
        assert ask(image).model_id == server.model_id
        server.model_id, server.classes = "turned0000000000", ("dog", "cat")
        with pytest.raises(InputError, match="has the classes dog, cat, but the predictions have cat, dog"):
            ask(image)
