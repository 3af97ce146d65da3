"""What a process does to its own limits."""

import resource
from pathlib import Path

import pytest

from serving.config import Config
from serving.process import allow_connections


class Limits:
    """Stands for the system's limit of open files, which a test must not change for all others."""

    def __init__(self, soft: int, hard: int, *, forbidden: bool = False) -> None:
        self.now, self.forbidden = (soft, hard), forbidden

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if self.forbidden:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


@pytest.mark.parametrize(
    ("limits", "allowed", "connections"),
    [
        (Limits(1024, 524288), 4352, 4096),
        (Limits(1024, resource.RLIM_INFINITY), 4352, 4096),
        (Limits(65536, 65536), 65536, 4096),
        (Limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY, 4096),
        (Limits(1024, 2048), 2048, 2048 - 256),
        (Limits(1024, 524288, forbidden=True), 1024, 1024 - 256),
        (Limits(64, 128), 128, 64),
    ],
    ids=["raised", "without an end", "enough", "unlimited", "up to the hard one", "forbidden", "hardly any"],
)
def test_descriptors_are_for_connections_and_for_the_rest(
    limits: Limits, allowed: int, connections: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", limits.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limits.setrlimit)
    config = allow_connections(Config(Path("bundle")))
    assert (limits.now[0], config.max_connections) == (allowed, connections)
    assert ("fewer connections" in caplog.text) == (connections < 4096)
    caplog.clear()
    assert allow_connections(Config(Path("bundle"), max_connections=1)).max_connections == 1
    assert not caplog.text
