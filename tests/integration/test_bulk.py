"""Bulk work with real processes: embedded and served models agree, and no death of a process costs or doubles a row."""

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prelabel.bulk import BulkConfig, BulkSummary, run_bulk
from prelabel.client import PrelabelClient
from prelabel.embedded import load_predictor
from prelabel.errors import ServerUnavailableError
from prelabel.images import ImageSpec
from prelabel.sources import open_source
from prelabel.table import read_predictions
from prelabel.testing import FakeServer
from prelabel.v1 import prelabel_pb2 as pb
from support.datasets import write_idx
from support.samples import write_pile
from support.servers import RunningServer, run_server

COUNT, BROKEN = 130, (0, 31, 32, 33, 34, 35, 36, 37, 38, 39, 77, 129)
OPTIONS = {"shard_size": 30, "batch_size": 10, "decode_threads": 2}


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pile(tmp_path_factory.mktemp("bulk") / "pile", COUNT, BROKEN)


def embedded(pile: Path, bundle: Path, output: Path, **options: int) -> BulkSummary:
    predictor = load_predictor(bundle, "cpu", 1, "onnxruntime", "float32")
    return run_bulk(
        BulkConfig(output, **{**OPTIONS, **options}), open_source(pile), str(pile), predictor, progress="none"
    )  # type: ignore[arg-type]


def served(pile: Path, address: str, output: Path, retry_for_s: float = 0, **options: int) -> BulkSummary:
    with PrelabelClient(address, retry_for_s=retry_for_s) as client:
        return run_bulk(
            BulkConfig(output, **{**OPTIONS, **options}), open_source(pile), str(pile), client, progress="none"
        )  # type: ignore[arg-type]


def child(*arguments: object, code: str | None = None) -> "subprocess.CompletedProcess[str]":
    start = ["-m", "prelabel"] if code is None else ["-c", code]
    return subprocess.run([sys.executable, *start, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def run_options(pile: Path, output: Path) -> list[object]:
    return ["run", "--input", pile, "--output", output, "--shard-size", 30, "--batch-size", 10, "--progress", "json"]


@pytest.fixture(scope="module")
def whole(pile: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows of a run that nothing happened to."""
    output = tmp_path_factory.mktemp("whole") / "out"
    summary = embedded(pile, tiny_bundle, output)
    assert (summary.images, summary.errors) == (COUNT, len(BROKEN))
    return read_predictions(output)


def test_the_rows_are_right(whole: Any) -> None:
    for i, row in enumerate(whole.to_pylist()):
        assert row["id"] == f"{i:04d}.png"
        assert (row["error"] is not None) == (i in BROKEN)
        if i not in BROKEN:
            assert row["label"] == ("low" if i <= 80 else "middle")
            assert row["realness"] == pytest.approx(1 / (1 + np.exp((i - 127) / 32)), rel=1e-4)


def test_embedded_and_served_models_give_the_same_rows_bit_for_bit(
    pile: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    # As with the defaults, 256 and 256: a request is a batch of the server. In other batches the last bits may differ.
    size = {"shard_size": 32, "batch_size": 8}
    embedded(pile, tiny_bundle, tmp_path / "embedded", **size)
    with run_server(tiny_bundle, tmp_path / "port", "--max-batch-size", "8") as running:
        served(pile, running.address, tmp_path / "served", **size)
    assert read_predictions(tmp_path / "served").equals(read_predictions(tmp_path / "embedded"))


def test_a_server_that_forms_other_batches_gives_the_same_answers(
    pile: Path, whole: Any, server: RunningServer, tmp_path: Path
) -> None:
    summary = served(pile, server.address, tmp_path / "out")
    assert (summary.images, summary.errors, summary.shards_written) == (COUNT, len(BROKEN), 5)
    found = read_predictions(tmp_path / "out")
    for name in set(whole.schema.names) - {"probabilities", "confidence", "realness"}:
        assert found[name].equals(whole[name]), name
    for name in ("confidence", "realness"):
        np.testing.assert_allclose(found[name].to_numpy(), whole[name].to_numpy(), rtol=1e-6)
    left, right = (np.array(table["probabilities"].to_pylist(), float) for table in (found, whole))
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-9)


def test_the_command_reports_errors_by_its_status_and_writes_json_progress(
    pile: Path, server: RunningServer, tmp_path: Path
) -> None:
    done = child(*run_options(pile, tmp_path / "out"), "--server", server.address)
    assert done.returncode == 3, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert (events[-2]["event"], events[-2]["done"], events[-2]["total"]) == ("finished", COUNT, COUNT)
    assert events[-1] == {"event": "summary", **json.loads((tmp_path / "out" / "_summary.json").read_text())}
    assert (events[-1]["images"], sum(events[-1]["causes"].values())) == (COUNT, len(BROKEN))
    assert f"{COUNT} images in {tmp_path / 'out'}, {len(BROKEN)} of them with errors" in done.stdout
    assert json.loads((tmp_path / "out" / "_summary.json").read_text())["errors"] == len(BROKEN)


KILLED_AT = """
import os, signal, sys
import prelabel.files
from prelabel.__main__ import main

step, number = sys.argv[1], int(sys.argv[2])
seen = 0
fsync, replace = os.fsync, os.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def counted(name):
    global seen
    is_shard = os.path.basename(name).startswith("part-")
    seen += is_shard
    return is_shard and seen == number

def killing_replace(source, target):
    wanted = counted(target)
    if wanted and step == "half written":
        os.truncate(source, os.path.getsize(source) // 2)
        die()
    if wanted and step == "before the rename":
        die()
    replace(source, target)
    if wanted and step == "after the rename":
        die()

os.replace = killing_replace
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("step", "shard", "kept"),
    [("half written", 1, 0), ("before the rename", 3, 2), ("after the rename", 4, 4), ("after the rename", 5, 5)],
)
def test_a_killed_run_is_taken_up_without_a_lost_or_doubled_row(
    pile: Path, tiny_bundle: Path, whole: Any, tmp_path: Path, step: str, shard: int, kept: int
) -> None:
    output = tmp_path / "out"
    options = (*run_options(pile, output), "--model", tiny_bundle, "--device", "cpu", "--threads", 1)
    options = (*options, "--runtime", "onnxruntime", "--precision", "float32")  # as `whole`, to the bit
    done = child(step, shard, *options, code=KILLED_AT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(output.glob("part-*.parquet"))) == kept
    assert len(list(output.glob(".part-*.tmp"))) == (step != "after the rename")
    summary = embedded(pile, tiny_bundle, output)
    assert (summary.shards_skipped, summary.shards_written) == (kept, 5 - kept)
    assert not list(output.glob(".part-*.tmp"))
    assert read_predictions(output).equals(whole)


class StoppingServer(FakeServer):
    """Answers `limit` images; then it fails `failures` times, or waits where that is 0."""

    def __init__(self, limit: int, failures: int = 0) -> None:
        super().__init__(image=ImageSpec(8, 8, 1))
        self.limit, self.failures, self.waits = limit, failures, not failures
        self.reached = threading.Event()

    def _answer(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        if self.images >= self.limit and self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopped by the test")
        elif self.images >= self.limit and self.waits and not self.reached.is_set():
            self.hold()
            self.reached.set()
        return super()._answer(request, context)


@pytest.fixture(scope="module")
def whole_served(pile: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("served") / "out"
    with FakeServer(image=ImageSpec(8, 8, 1)) as server:
        served(pile, server.address, output)
    return read_predictions(output)


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (50, 2), (100, 4)])
def test_a_run_that_is_killed_while_it_waits_for_the_server_is_taken_up(
    pile: Path, whole_served: Any, tmp_path: Path, limit: int, kept: int
) -> None:
    output = tmp_path / "out"
    with StoppingServer(limit) as server:
        command = [
            sys.executable,
            "-m",
            "prelabel",
            *run_options(pile, output),
            "--server",
            server.address,
            "--window",
            1,
        ]
        with subprocess.Popen([str(one) for one in command], stderr=subprocess.DEVNULL) as process:
            assert server.reached.wait(60)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        server.release()
        # The last shards may have been on their way to the disk.
        on_disk = len(list(output.glob("part-*.parquet")))
        assert on_disk <= kept
        summary = served(pile, server.address, output)
    assert (summary.shards_skipped, summary.images) == (on_disk, COUNT)
    assert read_predictions(output).equals(whole_served)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, and so do their children; a handler becomes the default in these."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_command_says_so_and_is_taken_up(pile: Path, whole_served: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with StoppingServer(60) as server:
        command = [sys.executable, "-m", "prelabel", *run_options(pile, output), "--server", server.address]
        with subprocess.Popen([str(one) for one in command], stderr=subprocess.PIPE, text=True) as process:
            assert server.reached.wait(60)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        last = json.loads(errors.splitlines()[-1])
        assert last["event"] == "interrupted"
        assert last["text"].startswith("what is finished is kept")
        assert "Traceback" not in errors
        server.release()
        served(pile, server.address, output)
    assert read_predictions(output).equals(whole_served)


def test_a_server_that_comes_back_costs_no_row(pile: Path, whole_served: Any, tmp_path: Path) -> None:
    with StoppingServer(50, failures=2) as server:
        served(pile, server.address, tmp_path / "out", retry_for_s=60)
    assert server.failures == 0
    assert read_predictions(tmp_path / "out").equals(whole_served)


def test_a_server_that_stays_away_keeps_what_is_done(pile: Path, whole_served: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with StoppingServer(70, failures=1) as server:
        with pytest.raises(ServerUnavailableError, match=r"of 130 images are done and kept in .*same command again"):
            served(pile, server.address, output)
        kept = len(list(output.glob("part-*.parquet")))
        assert 0 < kept < 5
        summary = served(pile, server.address, output)
    assert (summary.shards_skipped, summary.shards_written) == (kept, 5 - kept)
    assert read_predictions(output).equals(whole_served)


def test_parquet_and_idx_inputs_give_the_answers_of_the_folder(
    pile: Path, whole: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    good = [i for i in range(COUNT) if i not in BROKEN]
    files = [(pile / f"{i:04d}.png").read_bytes() for i in good]
    table = pa.table({"image": files, "id": [f"{i:04d}.png" for i in good]})
    pq.write_table(table, tmp_path / "pile.parquet", row_group_size=7)
    write_idx(
        tmp_path / "pile-images-idx3-ubyte.gz", np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in files])
    )
    wanted = whole.filter(pc.is_null(whole["error"]))
    for name in ("pile.parquet", "pile-images-idx3-ubyte.gz"):
        output = tmp_path / f"from {name}"
        assert embedded(tmp_path / name, tiny_bundle, output).errors == 0
        found = read_predictions(output)
        assert found["label"].equals(wanted["label"])
        np.testing.assert_allclose(found["realness"].to_numpy(), wanted["realness"].to_numpy(), rtol=1e-6)
        assert name == "pile-images-idx3-ubyte.gz" or found["id"].equals(wanted["id"])
