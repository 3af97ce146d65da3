"""The test double of a server, a clock that only sleeping moves, and the client of both."""

from collections.abc import Iterator

import pytest

from prelabel.client import PrelabelClient
from prelabel.testing import FakeServer
from support.clients import CLASSES, SPEC, Time


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
