"""One real server for all tests that do not stop it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from prelabel.client import PrelabelClient
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from support.guarded import OPS, USER
from support.servers import RunningServer, run_server


@pytest.fixture(scope="session")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_server(tiny_bundle, tmp_path_factory.mktemp("server") / "port") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[PrelabelClient]:
    with PrelabelClient(server.address, retry_for_s=0) as connected:
        yield connected


@pytest.fixture
def stub(server: RunningServer) -> Iterator[PrelabelServiceStub]:
    """For requests that the client would not send."""
    with grpc.insecure_channel(server.address) as channel:
        yield PrelabelServiceStub(channel)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the tokens of a user and of an administrator."""
    file = tmp_path / "tokens"
    file.write_text(f"user:{USER}\nops:{OPS}:admin\n")
    file.chmod(0o600)
    return file
