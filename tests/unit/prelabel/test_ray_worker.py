"""A worker of a cluster refuses what is not the driver's; without Ray, since nothing in it needs that."""

import dataclasses
import socket
from pathlib import Path

import pytest
from conftest import write_tiny_bundle

from prelabel.bundle import load_bundle
from prelabel.engine import load_engine
from prelabel.engine_choice import Way, way_of
from prelabel.errors import InputError, WorkerError
from prelabel.output import claim
from prelabel.ray_runner import ClusterOptions
from prelabel.ray_worker import ClusterModel, Job, ShardWorker, settle
from prelabel.shards import Run
from prelabel.sources import open_source
from prelabel.storage import open_storage
from prelabel.table import read_predictions
from support.samples import write_pile

MODEL = ClusterModel(Path("bundle"), "cpu", "onnxruntime", "float32")


@pytest.fixture
def job(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Nine images in relative paths; the test runs somewhere else."""
    monkeypatch.chdir(tmp_path)
    write_pile(tmp_path / "pile", 9)
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    source, about = open_source("pile"), load_bundle(tiny_bundle)
    run = Run("pile", source.manifest_hash, len(source), about.model_id, about.classes, 4)
    output = open_storage("out")
    with output.lock():
        claim(output, run, source, overwrite=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return Job(run, "out", MODEL, batch_size=4, decode_threads=1, directory=str(tmp_path))


def test_a_worker_labels_shards_in_any_order(job: Job, tmp_path: Path) -> None:
    worker = ShardWorker()
    assert worker.start(job) == socket.gethostname()
    assert [worker.label(rows).shard for rows in (range(8, 9), range(4), range(4, 8), range(4))] == [2, 0, 1, 0]
    rows = read_predictions(tmp_path / "out")
    assert rows["path"].to_pylist() == [f"pile/{i:04d}.png" for i in range(9)]


@pytest.mark.parametrize("error", ["version", "directory", "output", "no output", "input", "model"])
def test_what_is_not_the_drivers_is_named_with_the_node(job: Job, tmp_path: Path, error: str) -> None:
    if error == "version":
        job = dataclasses.replace(job, run=dataclasses.replace(job.run, version="0.0.1"))
    elif error == "directory":
        job = dataclasses.replace(job, directory=str(tmp_path / "not shared"))
    elif error == "output":
        job = dataclasses.replace(job, run=dataclasses.replace(job.run, shard_size=5))
    elif error == "no output":
        job = dataclasses.replace(job, output="local")
    elif error == "input":
        (tmp_path / "pile" / "0003.png").write_bytes(b"another")
    else:
        other = write_tiny_bundle(tmp_path / "other", name="other")
        job = dataclasses.replace(job, model=dataclasses.replace(MODEL, bundle=other))
    message = {
        "version": r"prelabel is .* there and 0\.0\.1 at the driver",
        "directory": r"relative paths start from .*/not shared, which is not there \(No such file",
        "output": "out is not the output of this run there",
        "no output": "local is not the output of this run there",
        "input": r"pile is other input there \(9 images, manifest \w{12}\) than at the driver \(9 images",
        "model": r"other is model \w+ there and \w+ at the driver",
    }[error]
    with pytest.raises(WorkerError, match=f"a worker on node {socket.gethostname()}: .*{message}"):
        ShardWorker().start(job)


def test_a_shard_that_fails_is_named(job: Job, tmp_path: Path) -> None:
    worker = ShardWorker()
    worker.start(job)
    (tmp_path / "out").rename(tmp_path / "away")
    with pytest.raises(WorkerError, match=r"shard 1 \(images 4 to 7\) on node .*: FileNotFoundError: .*No such file"):
        worker.label(range(4, 8))


def test_auto_is_decided_once_for_all_workers(job: Job, tiny_bundle: Path) -> None:
    model = ClusterModel(Path("bundle"), "cpu", "auto", "auto")
    assert not model.settled
    settled = settle(dataclasses.replace(job, model=model)).model
    assert settled.settled
    assert settled.precision == "float32"  # the tiny bundle allows no other
    with pytest.raises(WorkerError, match=r"choosing how to run the model on node .*: nowhere holds no model bundle"):
        settle(dataclasses.replace(job, model=dataclasses.replace(model, bundle=Path("nowhere"))))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_engine_says_how_it_runs(tiny_bundle: Path, runtime: str) -> None:
    engine = load_engine(tiny_bundle, "cpu", 1, runtime=runtime, precision="float32")  # type: ignore[arg-type]
    assert way_of(engine) == Way("cpu", runtime, "float32")  # type: ignore[arg-type]


def test_workers_compute_on_what_ray_gives_them() -> None:
    assert ClusterOptions().device("auto") == ClusterOptions().device("cpu") == "cpu"
    assert ClusterOptions(num_gpus_per_actor=0.25).device("auto") == "cuda"
    with pytest.raises(InputError, match="--device cuda does not fit --num-gpus-per-actor 0"):
        ClusterOptions().device("cuda")
