"""Several devices, and several hosts, train as one device does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.datasets import write_idx_dataset
from training.recorder import read_metrics

ROOT = Path(__file__).parents[2]


def start(  # type: ignore[no-untyped-def]
    data: Path,
    output: Path,
    devices: int,
    strategy: str,
    preset: str,
    *changes: str,
    augment: str = "digits",
    **environment: str,
):
    arguments = [str(devices), strategy, preset, augment, str(data), str(output)]
    command = [sys.executable, "-m", "support.distributed", *arguments]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [*command, *changes],
        env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]


def check_same_losses(one: Path, several: Path) -> None:
    expected, found = (read_metrics(run / "metrics.csv") for run in (one, several))
    assert len(expected) == len(found) == 5
    for left, right in zip(expected, found, strict=True):
        for name in left:
            if name != "hidden_accuracy":
                np.testing.assert_allclose(right[name], left[name], rtol=2e-3, atol=2e-4, err_msg=f"{name} {left}")


# Small steps: rounding differs, and a few large steps on batches of this size would make it visible.
SMALL = ("learning_rate=1e-4", "generator_learning_rate=1e-4")


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("default", (*SMALL, "generator_loss=feature_matching")), ("book", (*SMALL, "dropout=0"))],
)
def test_two_devices_have_the_losses_of_one(preset: str, changes: tuple[str, ...], tmp_path: Path) -> None:
    data = write_idx_dataset(tmp_path / "data")
    finish(start(data, tmp_path / "one", 1, "none", preset, *changes))
    finish(start(data, tmp_path / "two", 2, "mirrored", preset, *changes))
    check_same_losses(tmp_path / "one", tmp_path / "two")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set, and one device's run on it with all of the default recipe."""
    root = tmp_path_factory.mktemp("photographs")
    data = write_idx_dataset(root / "data")
    finish(start(data, root / "one", 1, "none", "default", *SMALL, augment="natural"))
    return data, root / "one"


def test_two_devices_trust_the_pile_of_photographs_as_one_does(photographs: tuple[Path, Path], tmp_path: Path) -> None:
    data, one = photographs
    finish(start(data, tmp_path / "two", 2, "mirrored", "default", *SMALL, augment="natural"))
    check_same_losses(one, tmp_path / "two")


def start_two_hosts(data: Path, output: Path, **environment: str):  # type: ignore[no-untyped-def]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return [
        start(
            data, output, 1, "multi-worker", "default", *SMALL, augment="natural",
            TF_CONFIG=json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}),
            TMPDIR=str(output.parent), **environment,
        )
        for index in range(2)
    ]  # fmt: skip


def test_two_hosts_have_the_losses_of_one_and_one_of_them_writes(
    photographs: tuple[Path, Path], tmp_path: Path
) -> None:
    data, one = photographs
    for environment in ({}, {"OVERWRITE": "1"}):  # the second host must not take the first run for the second one
        for process in start_two_hosts(data, tmp_path / "two", **environment):
            finish(process)
        check_same_losses(one, tmp_path / "two")
        assert json.loads((tmp_path / "two" / "training.json").read_text())["pile_weight"] == pytest.approx(0.5)
