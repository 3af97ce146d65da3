"""The load generators of `make bench-serving` against a real server."""

import json
import subprocess
import sys

import pytest

from scripts.bench_load import Options, load
from support.servers import RunningServer


def assert_counted(result: dict[str, object]) -> None:
    latencies = result["latency_ms"]
    assert isinstance(latencies, dict)
    assert isinstance(result["images_per_s"], float)
    assert isinstance(result["answers"], int)
    assert result["answers"] >= 20
    assert result["images_per_s"] > 0
    assert 0 < latencies["p50"] <= latencies["p99.9"]


@pytest.mark.parametrize(("kind", "model_name"), [("unary", ""), ("stream", ""), ("unary", "tiny")])
async def test_the_load_generator_counts_what_a_real_server_answers(
    server: RunningServer, kind: str, model_name: str
) -> None:
    options = Options(
        server.address,
        kind,  # type: ignore[arg-type]
        model_name=model_name,
        connections=2,
        images=3,
        shape=(8, 8, 1),
        in_flight=4,
        streams=2,
        total_images=60,
    )
    assert_counted(await load(options))


def test_so_does_the_one_that_is_tritons_client(server: RunningServer) -> None:
    what = ["--model-name", "tiny", "--images", "3", "--shape", "8", "8", "1", "--in-flight", "4"]
    command = [sys.executable, "-m", "scripts.bench_triton", "--address", server.address, *what, "--total-images", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert_counted(json.loads(done.stdout))
