"""What bulk work survives: kills at random moments, full and read-only disks, servers that die, a second run."""

import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.client import PrelabelClient
from prelabel.embedded import load_predictor
from prelabel.sources import FolderSource, Sample
from prelabel.storage import LOCK_FILE
from prelabel.table import read_predictions
from support.samples import write_pile
from support.servers import run_server

COUNT, BROKEN = 120, (3, 50, 51, 119)
KILLING = Path(__file__).parents[1] / "support" / "killing.py"


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pile(tmp_path_factory.mktemp("robust") / "pile", COUNT, BROKEN)


def run(pile: Path, bundle: Path, output: Path, **options: Any) -> Any:
    predictor = load_predictor(bundle, "cpu", 1, "onnxruntime", "float32")
    config = BulkConfig(output, **{"shard_size": 2, "batch_size": 2, **options})
    run_bulk(config, FolderSource(pile), str(pile), predictor, progress="none")
    return read_predictions(output)


@pytest.fixture(scope="module")
def whole(pile: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows of a run that nothing happened to."""
    table = run(pile, tiny_bundle, tmp_path_factory.mktemp("whole") / "out")
    assert table["id"].to_pylist() == [f"{i:04d}.png" for i in range(COUNT)]
    assert table["error"].null_count == COUNT - len(BROKEN)
    return table


def command(pile: Path, output: Path, *more: object) -> list[str]:
    options = ["--input", pile, "--output", output, "--shard-size", 2, "--batch-size", 2, "--progress", "none", *more]
    return [sys.executable, "-m", "prelabel", "run", *map(str, options)]


def embedded(pile: Path, bundle: Path, output: Path) -> list[str]:
    precision = ("--runtime", "onnxruntime", "--precision", "float32")
    return command(pile, output, "--model", bundle, "--device", "cpu", "--threads", 1, *precision)


def test_kills_at_random_moments_cost_and_double_no_row(
    pile: Path, tiny_bundle: Path, whole: Any, tmp_path: Path
) -> None:
    output, seed = tmp_path / "out", random.randrange(1000)
    arguments = [sys.executable, KILLING, pile, tiny_bundle, output, seed]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert int(done.stdout) >= 3, f"seed {seed}: it was hardly killed in the middle of its work"
    assert read_predictions(output).equals(whole), f"seed {seed}"
    assert {path.name for path in output.iterdir() if path.name.startswith(".")} == {LOCK_FILE}
    statistics, shards = list(output.glob("_part-*.json")), list(output.glob("part-*.parquet"))
    assert len(statistics) == len(shards) == COUNT // 2


def test_decoding_processes_end_with_a_killed_run(pile: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from prelabel.decoders import decoded_by_processes
from prelabel.feed import Cut
from prelabel.images import ImageSpec
from prelabel.sources import FolderSource
missing = [range(start, start + 2) for start in range(0, {COUNT}, 2)]
batches = decoded_by_processes(FolderSource(Path(sys.argv[1])), missing, Cut(ImageSpec(8, 8, 1), 2, 2), 2)
next(batches)
print(Path("/proc/self/task", str(__import__("os").getpid()), "children").read_text(), flush=True)
sys.stdin.read()
"""
    arguments = [sys.executable, "-c", code, str(pile)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [os.pidfd_open(int(one)) for one in process.stdout.readline().split()]
        assert len(children) == 2
        process.kill()
        for child in children:
            assert select.select([child], [], [], 30)[0], "it lives on"
            os.close(child)


FILES_UP_TO = """
import resource, sys
from prelabel.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resize(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def check_failed_cleanly(done: "subprocess.CompletedProcess[str]", output: Path, message: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(output.glob("*.tmp")) + list(output.glob(".*.tmp"))


def test_a_full_disk_is_an_error_and_the_next_run_goes_on(
    pile: Path, tiny_bundle: Path, whole: Any, small_disk: Path
) -> None:
    output = small_disk / "out"
    done = subprocess.run(embedded(pile, tiny_bundle, output), capture_output=True, text=True, timeout=60)
    check_failed_cleanly(done, output, "No space left on device")
    assert 0 < len(list(output.glob("part-*.parquet"))) < COUNT // 2
    resize(small_disk, "size=10m")
    assert run(pile, tiny_bundle, output).equals(whole)


def test_files_that_may_not_grow_are_an_error_and_the_next_run_goes_on(
    pile: Path, tiny_bundle: Path, whole: Any, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = [sys.executable, "-c", FILES_UP_TO, "2500", *embedded(pile, tiny_bundle, output)[3:]]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    check_failed_cleanly(done, output, "File too large")
    assert not list(output.glob("part-*.parquet"))
    assert run(pile, tiny_bundle, output).equals(whole)


def test_a_read_only_output_is_an_error(pile: Path, tiny_bundle: Path, small_disk: Path) -> None:
    resize(small_disk, "ro")
    done = subprocess.run(embedded(pile, tiny_bundle, small_disk / "out"), capture_output=True, text=True, timeout=60)
    check_failed_cleanly(done, small_disk, "cannot be written: Read-only file system; choose another directory")


def test_a_second_run_on_the_same_output_is_refused_and_changes_nothing(
    pile: Path, tiny_bundle: Path, whole: Any, tmp_path: Path
) -> None:
    output, predictor = tmp_path / "out", load_predictor(tiny_bundle, "cpu", 1, "onnxruntime", "float32")

    class Meeting(FolderSource):
        """Starts the second run when the first one is in the middle."""

        done: "subprocess.CompletedProcess[str] | None" = None

        def read(self, start: int, stop: int) -> Iterator[Sample]:
            for i, sample in enumerate(super().read(start, stop)):
                if i == COUNT // 2:
                    second = [*embedded(pile, tiny_bundle, output), "--overwrite"]
                    self.done = subprocess.run(second, capture_output=True, text=True, timeout=60)
                yield sample

    source = Meeting(pile)
    config = BulkConfig(output, shard_size=2, batch_size=2)
    run_bulk(config, source, str(pile), predictor, progress="none")
    assert source.done is not None
    assert source.done.returncode == 2
    assert f"is being written by another prelabel run (process {os.getpid()})" in source.done.stderr
    assert read_predictions(output).equals(whole)


def test_a_server_that_is_killed_and_comes_back_in_the_middle_costs_no_row(
    pile: Path, tiny_bundle: Path, whole: Any, tmp_path: Path
) -> None:
    size = ("--max-batch-size", "2")
    with run_server(tiny_bundle, tmp_path / "port", *size) as first:

        class Restarting(FolderSource):
            """Kills the server and starts another one in its place when half is read."""

            second: Any = None

            def read(self, start: int, stop: int) -> Iterator[Sample]:
                for i, sample in enumerate(super().read(start, stop)):
                    if i == COUNT // 2:
                        first.process.send_signal(signal.SIGKILL)
                        first.process.wait(60)
                        self.second = run_server(
                            tiny_bundle, tmp_path / "port2", *size, "--port", first.address.rpartition(":")[2]
                        )
                        self.second.__enter__()
                    yield sample

        source = Restarting(pile)
        config = BulkConfig(tmp_path / "out", shard_size=2, batch_size=2)
        with PrelabelClient(first.address, retry_for_s=60) as client:
            summary = run_bulk(config, source, str(pile), client, progress="none")
        source.second.__exit__(None, None, None)
    assert (summary.predicted, summary.errors) == (COUNT, len(BROKEN))
    assert read_predictions(tmp_path / "out").equals(whole)


def test_rows_are_on_the_disk_before_their_name_and_before_their_statistics(
    pile: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(("synced", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))

    def noting_replace(source: Any, target: Any) -> None:
        steps.append(("named", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    run(pile, tiny_bundle, tmp_path / "new" / "out", shard_size=COUNT)
    # The folder that is written into is in a new one: files in folders without a name would be lost.
    assert {("synced", tmp_path.name), ("synced", "new")} <= set(steps)
    rows, statistics = (next((tmp_path / "new" / "out").glob(pattern)).name for pattern in ("part-*", "_part-*"))
    of_the_shard = [(step, re.sub(r"\.\w+\.tmp$", "", name.strip("."))) for step, name in steps]
    start = of_the_shard.index(("synced", rows))
    assert of_the_shard[start : start + 6] == [
        ("synced", rows), ("named", rows), ("synced", "out"),
        ("synced", statistics), ("named", statistics), ("synced", "out"),
    ]  # fmt: skip
