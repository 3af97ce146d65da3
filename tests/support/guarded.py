"""Clients and health checks of a server that wants certificates or tokens."""

import subprocess
import sys

import numpy as np

from prelabel.client import PrelabelClient
from prelabel.tls import Tls
from support.servers import RunningServer

IMAGES = np.zeros((3, 8, 8, 1), np.uint8)
USER, OPS = "the-token-of-a-user", "the-token-of-operators"


def never(seconds: float) -> None:
    raise AssertionError("nothing that a later try could mend")


def connect(server: RunningServer, tls: Tls | None = None, token: str | None = None) -> PrelabelClient:
    return PrelabelClient(server.address, tls=tls, token=token, retry_for_s=60, timeout_s=30, sleep=never)


def health(server: RunningServer, *options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "serving.health", "--address", server.address, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
