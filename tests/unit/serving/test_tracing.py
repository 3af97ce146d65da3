"""When calls are traced, and that nothing of OpenTelemetry is loaded when they are not."""

import subprocess
import sys

import pytest

from prelabel.errors import InputError
from serving.tracing import tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}

_START = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, "tests")
{before}
from prelabel.errors import InputError
from serving.config import Config
from serving.models import Models
from serving.server import Server
from support.engines import EchoEngine

async def main():
    config = Config(Path("unused"), port=0)
    server = Server(Models.of(EchoEngine(), config), config)
    await server.start()
    await server.stop()

try:
    asyncio.run(main())
except InputError as error:
    print(error)
print(sorted(name for name in sys.modules if name.startswith("opentelemetry") and sys.modules[name]))
"""


def start(before: str = "", **environment: str) -> list[str]:
    """Starts and stops a server in a process of its own; returns what it printed."""
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ".", **environment}
    command = [sys.executable, "-c", _START.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=clean)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "only-a-name"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
    ids=str,
)
def test_nothing_is_traced_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    assert tracing(environment) is None


def test_a_server_without_tracing_imports_nothing_of_opentelemetry() -> None:
    assert start() == ["[]"]


def test_a_server_that_shall_trace_and_cannot_refuses_to_start() -> None:
    message, _ = start("sys.modules['opentelemetry'] = None", **ENDPOINT)
    assert message.startswith("OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, but opentelemetry")
    assert "is not installed: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc, or" in message


def test_a_collector_that_is_not_there_does_not_keep_a_server_from_starting_and_stopping() -> None:
    (modules,) = start(**ENDPOINT)
    assert "opentelemetry.sdk.trace" in modules


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "PROTOCOL is 'http/protobuf'"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin': otlp or none wanted"),
    ],
)
def test_ways_of_tracing_that_the_server_does_not_know_are_refused(environment: dict[str, str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        tracing(environment)


def test_variables_that_opentelemetry_cannot_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")
    with pytest.raises(InputError, match=r"OTEL_\* variables cannot be used: .*soon"):
        tracing(ENDPOINT)
