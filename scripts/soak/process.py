"""The server's process: started, watched through /proc, terminated, killed and started again on the same port."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prelabel.errors import RemoteError

DRAIN_TIMEOUT_S = 3.0
"""Clients that never read would hold a stopping server for the whole of this time."""
_READY_WITHIN_S = 60.0
_REST_WITHIN_S = 60.0
"""How long a server may take to let go of closed connections and idle threads."""
_CALM_S = 2.0


@dataclass(frozen=True)
class Resources:
    """What a process holds."""

    memory_bytes: int
    """Resident."""
    threads: int
    descriptors: int


class ServerProcess:
    """`python -m serving` on a folder of bundles, with a small queue so that it is full at times."""

    def __init__(self, models: Path, folder: Path) -> None:
        self._models, self._folder = models, folder
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def address(self) -> str:
        """HOST:PORT; the same after each start."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Starts a server and waits until it says SERVING.

        Raises:
            RemoteError: It does not within a minute.
        """
        port_file = self._folder / "port"
        command = [sys.executable, "-m", "serving", "--model", str(self._models), "--device", "cpu"]
        command += ["--port", str(self._port), "--port-file", str(port_file), "--max-queue-images", "4096"]
        command += ["--drain-timeout-s", str(DRAIN_TIMEOUT_S), "--reload-every-s", "0.2"]
        # What `auto` does, to time the runtimes with noise, the graph that fails on some images does not survive.
        command += ["--runtime", "onnxruntime", "--precision", "float32"]
        port_file.unlink(missing_ok=True)  # a killed server's
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log)
        self.starts += 1
        gives_up_at_s = time.monotonic() + _READY_WITHIN_S
        while not port_file.exists():
            if self._process.poll() is not None or time.monotonic() > gives_up_at_s:
                raise RemoteError(f"the server did not start: {self.log()[-1:]}")
            await asyncio.sleep(0.05)
        self._port = int(port_file.read_text())
        async with grpc.aio.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_READY_WITHIN_S, wait_for_ready=True)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise RemoteError("the server started and is not SERVING")

    async def terminate(self) -> int:
        """Sends SIGTERM; returns the exit status: that of SIGKILL where the server did not end."""
        return await self._end(signal.SIGTERM, DRAIN_TIMEOUT_S + 20)

    async def kill(self) -> int:
        """Sends SIGKILL; returns the exit status."""
        return await self._end(signal.SIGKILL, 10)

    def close(self) -> None:
        """Ends the server, however it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def _end(self, number: signal.Signals, within_s: float) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return await asyncio.to_thread(self._process.wait, within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def resources(self) -> Resources:
        """Returns what the process holds now."""
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return Resources(
            memory_bytes=int(status["VmRSS"].split()[0]) << 10,
            threads=int(status["Threads"]),
            descriptors=len(list((proc / "fd").iterdir())),
        )

    async def at_rest(self, limits: Resources | None = None) -> Resources:
        """Returns what the process holds once clients are gone.

        Waits, for a minute at most, until threads and descriptors are within `limits`; without limits until their
        numbers have not changed for two seconds.
        """
        began_s = changed_s = time.monotonic()
        last = self.resources()
        while time.monotonic() - began_s < _REST_WITHIN_S:
            if limits is None and time.monotonic() - changed_s > _CALM_S:
                break
            if limits is not None and last.threads <= limits.threads and last.descriptors <= limits.descriptors:
                break
            await asyncio.sleep(0.1)
            now = self.resources()
            if (now.threads, now.descriptors) != (last.threads, last.descriptors):
                changed_s = time.monotonic()
            last = now
        return last

    def log(self) -> list[dict[str, object]]:
        """Returns the log lines of all starts; a line that a kill cut off is left out."""
        lines = (self._folder / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
