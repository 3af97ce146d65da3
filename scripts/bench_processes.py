"""The processes of `make bench-serving`: our server, those it is compared with, the engine alone, load generators."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prelabel.bundle import MODEL_FILE
from prelabel.errors import InputError

Row = dict[str, Any]

BULK = 256
"""Images of a bulk request."""


@dataclass(frozen=True)
class Running:
    """A server process."""

    process: "subprocess.Popen[str]"
    address: str
    started: dict[str, Any] = field(default_factory=dict)
    """What our server said when it served."""

    @property
    def pids(self) -> list[int]:
        """Numbers of its processes."""
        return [self.process.pid, *self.started.get("workers", {}).values()]

    def resident_bytes(self) -> int:
        """Resident memory now."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")

    def answered_images(self) -> int:
        """How many images our server has answered, by its metrics."""
        with urllib.request.urlopen(f"http://{self.started['metrics_address']}/metrics", timeout=30) as response:
            found = re.search(
                r'^prelabel_images_total{outcome="answered"} (\S+)$', response.read().decode(), re.MULTILINE
            )
        assert found is not None
        return int(float(found[1]))


def load(where: Running, seconds: float, client: str = "load", **what: Any) -> Row:
    """Runs a load generator against a server."""
    cpu_s = where.cpu_s()
    command = load_command(where, seconds, client, **what)
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(process.stdout)
    return row | {"server_cpu_s": where.cpu_s() - cpu_s}


def load_command(where: Running, seconds: float, client: str = "load", **what: Any) -> list[str]:
    """Returns a load generator's command."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in what.items()]
    module = [sys.executable, "-m", f"scripts.bench_{client}"]
    return [*module, "--address", where.address, "--seconds", str(seconds), *flags]


@contextlib.contextmanager
def server(model: Path, *flags: str) -> Iterator[Running]:
    """Runs our server on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        module = [sys.executable, "-m", "serving", "--model", str(model), "--device", "cpu"]
        command = [*module, "--port", "0", "--port-file", str(port_file), *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        line = ""
        while '"message": "serving"' not in line:
            line = process.stderr.readline()
            if not line:
                raise InputError(f"{' '.join(command)} did not start")
        try:
            yield Running(process, f"127.0.0.1:{int(port_file.read_text())}", json.loads(line))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


@contextlib.contextmanager
def reference(kind: str, model: Path) -> Iterator[Running]:
    """Runs another server."""
    command = [sys.executable, "-m", "scripts.bench_servers", "--kind", kind, "--model", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Running(process, f"127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


@contextlib.contextmanager
def peer(python: Path, model: Path, name: str) -> Iterator[tuple[Running, dict[str, str]]]:
    """Runs MLServer in its own environment; yields it and the versions of what it is made of."""
    command = [str(python), str(Path(__file__).parent / "bench_peer.py"), str(model / MODEL_FILE), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = ""
        while not line.startswith("{"):  # its log goes the same way
            line = process.stdout.readline()
            if not line:
                raise InputError(f"--peer-python {python}: {' '.join(command)} did not start")
        said = json.loads(line)
        try:
            yield Running(process, f"127.0.0.1:{said['port']}"), said["versions"]
        finally:
            process.kill()


@contextlib.contextmanager
def engine(model: Path, seconds: float, *flags: str) -> Iterator[Callable[[], Row]]:
    """Keeps the engine loaded in a process without a server; calling it measures."""
    module = [sys.executable, "-m", "scripts.bench_servers", "--kind", "engine", "--model", str(model)]
    command = [*module, "--batch", str(BULK), "--seconds", str(seconds), *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it is ready

        def measure() -> Row:
            assert process.stdin is not None
            assert process.stdout is not None
            print("again", file=process.stdin, flush=True)
            row: Row = json.loads(process.stdout.readline())
            return row

        try:
            yield measure
        finally:
            process.kill()
