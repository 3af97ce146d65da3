"""The real server as users start it: `python -m serving` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NO_CHOICE = ["--runtime", "onnxruntime", "--precision", "float32"]
"""Nothing to measure at the start, thus no log line about it. Options that come later win."""


@dataclass
class RunningServer:
    process: "subprocess.Popen[str]"
    address: str
    started: dict[str, object]
    """The log line that says that it answers."""

    def terminate(self) -> tuple[int, list[dict[str, object]]]:
        """Sends SIGTERM; returns the exit status and the log lines since the start."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]


@contextmanager
def run_server(bundle: Path, port_file: Path, *options: str) -> Iterator[RunningServer]:
    """Starts a server on a free port; stops it at the end where the test has not."""
    command = [sys.executable, "-m", "serving", "--model", str(bundle), "--port", "0", "--device", "cpu"]
    command += NO_CHOICE
    process = subprocess.Popen([*command, "--port-file", str(port_file), *options], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        before = []
        for line in iter(process.stderr.readline, ""):
            before.append(line)
            if '"message": "serving"' in line:  # it answers
                break
        assert process.poll() is None, before
        yield RunningServer(process, f"127.0.0.1:{int(port_file.read_text())}", json.loads(before[-1]))
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def run_serving(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m serving` with arguments that make it end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "serving", *NO_CHOICE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
