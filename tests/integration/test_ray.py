"""Bulk work on a real Ray cluster of two nodes: the rows of a local run, whatever dies on the way."""

import dataclasses
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tiny_bundle

from prelabel.__main__ import main
from prelabel.bulk import BulkConfig, run_bulk
from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, load_bundle
from prelabel.embedded import load_predictor
from prelabel.files import sha256_file
from prelabel.sources import open_source
from prelabel.table import read_predictions
from support.samples import write_pile

pytestmark = pytest.mark.cluster

COUNT, BROKEN, SHARD_SIZE = 90, (0, 31, 77), 6
GATED_WRITES = """
import contextlib
import os
import signal
from pathlib import Path

gates, node, replace = Path(os.environ["GATES"]), os.environ["NODE"], os.replace

def gated(source, target):
    if str(target).endswith(".parquet") and (gates / "deadly").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if str(target).endswith(".parquet"):
        with contextlib.suppress(FileNotFoundError):
            os.write(os.open(gates / f"{node} waits", os.O_WRONLY), b"!")
            os.open(gates / node, os.O_RDONLY)  # a named pipe: waits until its other end is opened
    replace(source, target)

os.replace = gated
"""


class TwoNodes:
    """A cluster of a head and a second node, with one CPU each, whose workers the test can hold before they write."""

    def __init__(self, directory: Path) -> None:
        from ray.cluster_utils import Cluster

        (directory / "code").mkdir()
        (directory / "code" / "sitecustomize.py").write_text(GATED_WRITES)
        self.gates = directory / "gates"
        self.gates.mkdir()
        self.waits: dict[str, int] = {}
        self._open: list[int] = []
        self._inherited = {"PYTHONPATH": str(directory / "code"), "GATES": str(self.gates)}
        self._settings = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={**self._settings, "env_vars": {**self._inherited, "NODE": "head"}}
        )
        self.second = self.cluster.add_node(**self._settings, env_vars={**self._inherited, "NODE": "second"})
        self.cluster.wait_for_nodes()

    def hold(self, *nodes: str) -> None:
        for node in nodes:
            for name in (node, f"{node} waits"):
                os.mkfifo(self.gates / name)
            self.waits[node] = self._opened(self.gates / f"{node} waits", os.O_RDONLY | os.O_NONBLOCK)

    def wait_for(self, node: str, output: Path) -> None:
        """Waits until a worker on a node has a whole file that only lacks its name."""
        assert select.select([self.waits[node]], [], [], 120)[0], "no worker came that far"
        assert list(output.glob(".part-*.tmp"))

    def release(self, *nodes: str) -> None:
        for node in nodes or tuple(self.waits):
            self._opened(self.gates / node, os.O_RDWR)  # lets in who waits, and waits for nobody itself
            for name in (f"{node} waits", node):
                (self.gates / name).unlink()
            del self.waits[node]

    def _opened(self, path: Path, flags: int) -> int:
        self._open.append(os.open(path, flags))
        return self._open[-1]

    def close(self) -> None:
        self.release()
        self.cluster.shutdown()
        for descriptor in self._open:
            os.close(descriptor)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def nodes(place: Path) -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        two = TwoNodes(place)
    yield two
    two.close()


@pytest.fixture(scope="module")
def pile(place: Path) -> Path:
    return write_pile(place / "pile", COUNT, BROKEN)


@pytest.fixture(scope="module")
def whole(pile: Path, tiny_bundle: Path, place: Path) -> Any:
    """The rows of a local run."""
    run_locally(pile, tiny_bundle, place / "local")
    return read_predictions(place / "local")


def run_locally(pile: Path, bundle: Path, output: Path, limit: int | None = None) -> None:
    predictor = load_predictor(bundle, "cpu", 1, "onnxruntime", "float32")
    config = BulkConfig(output, limit=limit, shard_size=SHARD_SIZE)
    run_bulk(config, open_source(pile), str(pile), predictor, progress="none")


def options(pile: Path, bundle: Path, output: Path, address: str) -> list[str]:
    named = ["--input", pile, "--model", bundle, "--output", output, "--shard-size", SHARD_SIZE, "--address", address]
    named += ["--runtime", "onnxruntime", "--precision", "float32", "--progress", "json"]
    return ["run", "--runner", "ray", *map(str, named)]


def error_in(stream: str) -> str:
    """Returns the error that ended a command, from its lines of JSON."""
    last = json.loads(stream.splitlines()[-1])
    assert last["event"] == "error"
    return str(last["text"])


def shards(output: Path) -> list[Path]:
    return sorted(output.glob("part-*.parquet"))


def test_a_killed_driver_is_taken_up_and_a_killed_node_costs_no_row(
    nodes: TwoNodes,
    pile: Path,
    tiny_bundle: Path,
    place: Path,
    whole: Any,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = place / "out"
    arguments = options(pile, tiny_bundle, output, nodes.cluster.address)
    run_locally(pile, tiny_bundle, output, limit=2 * SHARD_SIZE)
    kept = {path: path.stat().st_mtime_ns for path in shards(output)}
    # Both: a worker whose node is ready first would do all the work before the other one begins.
    nodes.hold("head", "second")
    with subprocess.Popen([sys.executable, "-m", "prelabel", *arguments], stderr=subprocess.PIPE, text=True) as process:
        nodes.wait_for("head", output)
        nodes.wait_for("second", output)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    nodes.release()
    assert not (output / "_summary.json").exists()

    nodes.hold("head", "second")

    def kill_the_second_node() -> None:
        nodes.wait_for("head", output)
        nodes.wait_for("second", output)
        nodes.cluster.remove_node(nodes.second, allow_graceful=False)
        nodes.release("head")  # a worker on the other node would finish its shard if it were let in before it is dead

    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(1) as other:
        killed = other.submit(kill_the_second_node)
        assert main(arguments) == 3
        killed.result()
    captured = capsys.readouterr()
    assert caplog.text.count("lost a worker") == 1
    assert read_predictions(output).equals(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    last = json.loads(captured.err.splitlines()[-2])
    assert (last["event"], last["done"], last["total"]) == ("finished", COUNT, COUNT)
    assert captured.out.startswith(f"{COUNT} images in {output}, {len(BROKEN)} of them with errors\n")
    summary = json.loads((output / "_summary.json").read_text())
    assert (summary["images"], summary["errors"]) == (COUNT, len(BROKEN))
    # The dead driver's workers may have finished their shards: two writers of one shard are harmless.
    assert summary["shards_skipped"] - len(kept) in (0, 1, 2)


def test_where_nothing_is_left_to_do_no_cluster_is_asked(
    pile: Path, tiny_bundle: Path, place: Path, whole: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    output = place / "local"
    away = "127.0.0.1:1"
    assert main(options(pile, tiny_bundle, output, away)) == 3
    assert "0 files written, 15 were there" in capsys.readouterr().out
    shards(output)[0].unlink()
    assert main(options(pile, tiny_bundle, output, away)) == 2
    error = error_in(capsys.readouterr().err)
    assert error.startswith("no Ray cluster at 127.0.0.1:1: [Errno 111] Connection refused; ")


def test_a_model_that_does_not_load_on_a_node_is_named(
    nodes: TwoNodes, pile: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(place / "broken" / "bundle")
    described = load_bundle(bundle)
    (bundle / MODEL_FILE).write_bytes(b"no graph")
    files = {MODEL_FILE: sha256_file(bundle / MODEL_FILE)}
    (bundle / BUNDLE_FILE).write_text(dataclasses.replace(described, files=files).to_json())
    assert main(options(pile, bundle, place / "broken" / "out", nodes.cluster.address)) == 2
    error = error_in(capsys.readouterr().err)
    assert re.match(r"a worker on node \S+: device cpu does not work here: .*; 0 of 90 images are done", error)


def test_a_shard_that_kills_its_workers_ends_the_run_and_is_named(
    nodes: TwoNodes,
    pile: Path,
    tiny_bundle: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("prelabel.ray_runner.MAX_LOST", 2)
    (nodes.gates / "deadly").touch()
    assert main([*options(pile, tiny_bundle, place / "deadly", nodes.cluster.address), "--actors", "1"]) == 2
    captured = capsys.readouterr()
    error = error_in(captured.err)
    assert re.match(r"2 workers died during shard 0, the last one on \S+ \(.*\): .*; 0 of 90 images", error)
    assert captured.out == ""
