"""Starting, refusing to start, and stopping the server's process."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prelabel.bundle import MODEL_FILE
from prelabel.client import PrelabelClient
from prelabel.errors import ServerUnavailableError
from support.servers import run_server, run_serving

IMAGES = np.zeros((3, 8, 8, 1), np.uint8)


def test_sigterm_ends_the_server_with_status_0_and_removes_the_port_file(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        run_server(tiny_bundle, tmp_path / "port") as server,
        PrelabelClient(server.address, retry_for_s=0) as client,
    ):
        assert len(client.predict(IMAGES)) == 3
        status, log = server.terminate()
        with pytest.raises(ServerUnavailableError, match="make serve"):
            client.predict(IMAGES)
    assert status == 0
    assert [line["message"] for line in log] == ["stopping", "stopped"]
    assert not (tmp_path / "port").exists()


def test_sigterm_answers_what_is_in_flight(tiny_bundle: Path, tmp_path: Path) -> None:
    """Requests wait for company for an hour: only the stop lets them go, so they are in flight when it comes."""
    options = ("--max-queue-delay-ms", "3600000", "--max-batch-size", "1000")
    with (
        run_server(tiny_bundle, tmp_path / "port", *options) as server,
        PrelabelClient(server.address, retry_for_s=0) as client,
    ):
        # The first batch of a thousand rows has 200 of the third request: once it is answered, the rest is in flight.
        stream = client.predict_stream([np.zeros((400, 8, 8, 1), np.uint8)] * 3, window=3)
        assert len(next(stream)) == len(next(stream)) == 400
        status, _ = server.terminate()
        assert len(next(stream)) == 400
        assert list(stream) == []
    assert status == 0


LOADS_FOR_EVER = """
import sys, threading
from serving import __main__, process

def load(*_):
    print("loading", flush=True)
    threading.Event().wait()

process.load = load
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_sigterm_while_the_model_is_loaded_ends_the_server(tiny_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADS_FOR_EVER, "--model", str(tiny_bundle), "--port-file", str(tmp_path / "port")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.terminate()
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert [json.loads(line)["message"] for line in log.splitlines()] == ["stopped before the models were loaded"]
    assert not (tmp_path / "port").exists()


def test_a_server_with_few_descriptors_takes_fewer_connections(tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 200 && exec "$0" -m serving --model "$1"', sys.executable, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    warning, error = done.stderr.splitlines()
    assert json.loads(warning)["max_connections"] == 100
    assert "holds no model bundle" in error


def test_a_changed_byte_in_the_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    model = bytearray((bundle / MODEL_FILE).read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / MODEL_FILE).write_bytes(model)
    done = run_serving("--model", bundle, "--port", 0)
    assert_refused(done, "was changed after export")


def test_a_directory_without_a_bundle_is_refused(tmp_path: Path) -> None:
    assert_refused(run_serving("--model", tmp_path), f"{tmp_path} holds no model bundle")
    assert_refused(run_serving("--model", tmp_path / "nowhere"), "make export")


def test_cuda_where_it_does_not_work_is_refused_and_says_why(tiny_bundle: Path) -> None:
    done = run_serving("--model", tiny_bundle, "--port", 0, "--device", "cuda", CUDA_VISIBLE_DEVICES="-1")
    assert_refused(done, "device cuda")


def test_a_precision_that_the_bundle_does_not_allow_is_refused(tiny_bundle: Path) -> None:
    done = run_serving("--model", tiny_bundle, "--port", 0, "--device", "cpu", "--precision", "int8")
    assert_refused(done, "the bundle does not allow --precision int8")


def test_the_runtime_that_was_asked_for_answers(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        run_server(tiny_bundle, tmp_path / "port", "--runtime", "openvino") as server,
        PrelabelClient(server.address, retry_for_s=0) as client,
    ):
        assert client.model().execution_provider == "OpenVINO float32"
        assert len(client.predict(IMAGES)) == 3


def test_a_port_in_use_is_refused(tiny_bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_serving("--model", tiny_bundle, "--device", "cpu", "--port", port)
    assert_refused(done, f"cannot listen on 127.0.0.1:{port}: the port is in use")


def test_two_servers_cannot_share_a_port(tiny_bundle: Path, tmp_path: Path) -> None:
    with run_server(tiny_bundle, tmp_path / "port") as server:
        port = server.address.rpartition(":")[2]
        assert_refused(run_serving("--model", tiny_bundle, "--device", "cpu", "--port", port), "the port is in use")


def test_serving_never_imports_the_training_stack() -> None:
    code = (
        "import sys, serving.__main__, serving.health; "
        "print([m for m in ('tensorflow', 'keras', 'tf2onnx', 'onnx', 'training', 'export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def assert_refused(done: "subprocess.CompletedProcess[str]", text: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert text in line
