"""Several worker processes on one port, as users start them: real processes, real sockets, real signals."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import tiny_images, write_tiny_bundle

from prelabel.bundle import MODEL_FILE, load_bundle
from prelabel.client import PrelabelClient
from prelabel.v1 import admin_pb2 as admin_pb
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.admin_pb2_grpc import AdminServiceStub
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from support.scrape import Samples
from support.servers import NO_CHOICE, run_serving

TOKEN = "the-token-of-operators"
AS_ADMIN = (("authorization", f"Bearer {TOKEN}"),)
ALONE = (("grpc.use_local_subchannel_pool", 1),)
"""A connection of its own for each channel: the kernel spreads connections, not calls."""
IMAGES = np.zeros((1, 8, 8, 1), np.uint8)


class Server:
    """A supervisor with two workers; its log lines arrive as they are written."""

    def __init__(self, process: "subprocess.Popen[str]", port_file: Path) -> None:
        self.process, self._port_file = process, port_file
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self._lines.put(line)
        self._lines.put(None)

    def line(self, message: str, **fields: object) -> dict[str, object]:
        """Waits for a log line of the supervisor or a worker."""
        while (text := self._lines.get(timeout=60)) is not None:
            line: dict[str, object] = json.loads(text)
            if line["message"] == message and all(line.get(name) == value for name, value in fields.items()):
                return line
        raise AssertionError(f"the log ended without {message!r}")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{int(self._port_file.read_text())}"

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(bundle: Path, folder: Path, *options: str) -> Iterator[tuple[Server, dict[str, object]]]:
    """Runs two workers; yields the server and the log line that says that they serve."""
    command = [sys.executable, "-m", "serving", "--model", str(bundle), "--device", "cpu", "--port", "0"]
    command += [*NO_CHOICE, "--processes", "2", "--port-file", str(folder / "port"), *options]
    environment = {**os.environ, "PRELABEL_TOKENS": f"ops:{TOKEN}:admin"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    server = Server(process, folder / "port")
    try:
        yield server, server.line("serving")
    finally:
        if process.poll() is None:
            server.terminate()
        server.reader.join()


@pytest.fixture
def running(tiny_bundle: Path, tmp_path: Path) -> Iterator[tuple[Server, dict[str, object]]]:
    with serving(tiny_bundle, tmp_path, "--metrics-port", "0") as started:
        yield started


def workers_of(started: dict[str, object]) -> dict[str, int]:
    workers = started["workers"]
    assert isinstance(workers, dict)
    return workers


def metrics(started: dict[str, object]) -> Samples:
    with urllib.request.urlopen(f"http://{started['metrics_address']}/metrics", timeout=30) as response:
        return Samples(response.read().decode())


def answered_by(samples: Samples) -> list[float]:
    """Images that each worker has answered; one that is too busy to tell its numbers is not among the samples."""
    return [samples.get(f'prelabel_images_total{{outcome="answered",worker="{number}"}}', 0.0) for number in (0, 1)]


def until(reached: Callable[[], bool]) -> None:
    """Asks again, over the network, until it is so."""
    gives_up_at_s = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < gives_up_at_s, "not reached"


def test_connections_are_spread_and_each_worker_shows_its_numbers(running: tuple[Server, dict[str, object]]) -> None:
    server, started = running
    asked = 0

    def both_have_answered() -> bool:
        nonlocal asked
        with grpc.insecure_channel(server.address, ALONE) as channel:
            tensor = pb.ImageTensor(shape=(1, 8, 8, 1), dtype=pb.DATA_TYPE_UINT8, data=tiny_images([230]).tobytes())
            answer = PrelabelServiceStub(channel).Predict(pb.PredictRequest(tensor=tensor), metadata=AS_ADMIN)
        assert list(answer.label_index) == [2]
        asked += 1
        answered = answered_by(metrics(started))
        assert sum(answered) == asked
        return min(answered) > 0

    until(both_have_answered)
    samples = metrics(started)
    assert samples["prelabel_workers"] == samples["prelabel_workers_serving"] == 2
    assert samples["prelabel_worker_restarts_total"] == 0
    for name in ("prelabel_ready", "prelabel_models_failed", "process_resident_memory_bytes"):
        assert [f'{name}{{worker="{number}"}}' in samples for number in (0, 1)] == [True, True]
    counts = [samples[f'prelabel_batch_images_bucket{{le="+Inf",worker="{number}"}}'] for number in (0, 1)]
    assert sum(counts) == asked
    kinds = {family.name: family.type for family in samples.families}
    assert kinds["prelabel_batch_images"] == "histogram"
    assert kinds["prelabel_images"] == "counter"
    assert server.terminate() == 0
    assert not Path(f"/proc/{workers_of(started)['0']}").exists()


def test_a_worker_killed_under_load_costs_no_request_and_is_started_anew(
    running: tuple[Server, dict[str, object]],
) -> None:
    server, started = running
    stop = threading.Event()

    def ask(seed: int) -> int:
        """Streams and calls, one after the other, until told to stop; every answer must be right."""
        answered = 0
        with PrelabelClient(server.address, token=TOKEN, retry_for_s=60) as client:
            while not stop.is_set():
                pixels = [[16, 128, 240][(seed + i) % 3] for i in range(5)]
                wanted = [{16: 0, 128: 1, 240: 2}[pixel] for pixel in pixels]
                for answer in client.predict_stream([tiny_images([pixel]) for pixel in pixels], window=3):
                    assert answer.label_index.tolist() == [wanted.pop(0)]
                    answered += 1
                assert client.predict(tiny_images([240])).label_index.tolist() == [2]
        return answered

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(ask, seed) for seed in range(6)]
        try:
            until(lambda: max(answered_by(metrics(started))) > 20)
            # The kernel decides who gets which connection; the busiest one is in the middle of something.
            answered = answered_by(metrics(started))
            busiest = answered.index(max(answered))
            os.kill(workers_of(started)[str(busiest)], signal.SIGKILL)
            ended = server.line("a worker ended; the others serve on")
            assert (ended["worker"], ended["how"]) == (busiest, "was ended by SIGKILL")
            server.line("a worker serves again", worker=busiest)
        finally:
            stop.set()
        assert all(client.result(60) > 0 for client in clients)
    samples = metrics(started)
    assert samples["prelabel_worker_restarts_total"] == 1
    assert samples["prelabel_workers_serving"] == 2
    assert server.terminate() == 0


def test_an_admin_reload_reaches_every_worker(tmp_path: Path) -> None:
    old = load_bundle(write_tiny_bundle(tmp_path / "models" / "1", "old")).model_id
    with serving(tmp_path / "models", tmp_path, "--reload-every-s", "0", "--metrics-port", "0") as (server, started):
        new = load_bundle(write_tiny_bundle(tmp_path / "models" / "2", "new")).model_id
        with grpc.insecure_channel(server.address, ALONE) as channel:
            answer = AdminServiceStub(channel).Reload(admin_pb.ReloadRequest(), metadata=AS_ADMIN)
        assert [model.model_id for model in answer.models if model.is_default] == [new]
        # Without a further look at the directory: the answer came when all were done.
        infos = [name for name in metrics(started) if name.startswith("prelabel_model_info") and new in name]
        assert len(infos) == 2
        assert started["models"] == {"1": old}


def test_sigterm_answers_what_is_in_flight_in_every_worker(tiny_bundle: Path, tmp_path: Path) -> None:
    """Requests wait for company for an hour: only the stop lets them go, so they are in flight when it comes."""
    options = ("--max-queue-delay-ms", "3600000", "--max-batch-size", "1000", "--metrics-port", "0")
    with serving(tiny_bundle, tmp_path, *options) as (server, started), ThreadPoolExecutor(8) as pool:

        def ask() -> int:
            with grpc.insecure_channel(server.address, ALONE) as channel:
                tensor = pb.ImageTensor(shape=(2, 8, 8, 1), dtype=pb.DATA_TYPE_UINT8, data=bytes(128))
                request = pb.PredictRequest(tensor=tensor)
                return len(PrelabelServiceStub(channel).Predict(request, metadata=AS_ADMIN, timeout=60).realness)

        answers = [pool.submit(ask) for _ in range(8)]

        def waiting(samples: Samples) -> list[float]:
            name = 'prelabel_queue_waiting_images{{priority="interactive",worker="{}"}}'
            return [samples.get(name.format(number), 0.0) for number in (0, 1)]

        until(lambda: sum(waiting(metrics(started))) == 16)
        assert server.terminate() == 0
        assert [answer.result(60) for answer in answers] == [2] * 8
        server.line("stopped")


def test_workers_end_when_the_supervisor_is_killed(running: tuple[Server, dict[str, object]]) -> None:
    server, _ = running
    server.process.kill()
    assert {server.line("stopped")["worker"], server.line("stopped")["worker"]} == {0, 1}


def test_what_a_worker_cannot_start_with_is_said_once(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    (bundle / MODEL_FILE).write_bytes(b"changed")
    done = run_serving("--model", bundle, "--port", 0, "--device", "cpu", "--processes", 2)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "was changed after export" in line


def test_a_port_of_another_server_is_refused_also_where_that_one_shares_it(
    running: tuple[Server, dict[str, object]], tiny_bundle: Path
) -> None:
    port = running[0].address.rpartition(":")[2]
    for processes in (1, 2):
        options = ("--model", tiny_bundle, "--port", port, "--device", "cpu", "--processes", processes)
        done = run_serving(*options)
        assert done.returncode == 2, done.stderr
        assert "the port is in use" in done.stderr
