"""The check of the CUDA path, against recorded provider calls, and its refusal where there is no GPU."""

import subprocess
from pathlib import Path

import pytest

from prelabel.errors import DeviceError, ParityError
from prelabel.precisions import PrecisionFigures
from scripts import gpu_check
from scripts.gpu_check import Options, check
from support.bundles import with_precisions
from support.gpus import Gpu

ALLOWED = PrecisionFigures("float16", "onnxruntime", "converted", True, "ok", 5000, "test split", 1.0, 0.001)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    gpu.install(monkeypatch)
    answers = {"memory.used": "512", "name,driver_version": "Some GPU, 999"}
    monkeypatch.setattr(gpu_check, "_nvidia_smi", lambda fields: [answers[fields]] * gpu.count)
    return gpu


def test_every_way_is_compared_and_timed(gpu: Gpu, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = with_precisions(tiny_bundle, tmp_path / "bundle", ALLOWED)
    result = check(Options(bundle, images=50, batches=(1, 4), seconds=0.01))
    assert result["gpus"] == ["Some GPU, 999"]
    assert [(way["precision"], way["tensorrt"], way["cuda_graphs"]) for way in result["ways"]] == [
        (precision, *way)
        for precision in ("float32", "float16")
        for way in ((False, False), (False, True), (True, False))
    ]
    for way in result["ways"]:
        assert (way["agreement"], way["callers"], way["gpu_memory_bytes"]) == (1.0, 2, 0)
        assert way["max_difference"] < 1e-5
        assert all(rate > 0 for rate in way["images_per_s"].values())


def test_several_gpus_are_checked_together_after_the_first(gpu: Gpu, tiny_bundle: Path) -> None:
    gpu.count = 2
    result = check(Options(tiny_bundle, images=50, batches=(1, 4), seconds=0.01))
    assert [(way["gpus"], way["callers"]) for way in result["ways"]] == [((0,), 2)] * 3 + [((0, 1), 4)] * 3
    # The first two sessions are those of the first GPU alone; the other four must all have compared 50 images.
    compared = [[size for size, _ in session.runs].count(4) for session in gpu.sessions]
    assert all(count >= 12 for count in compared)


def test_other_answers_than_the_cpu_s_are_an_error(gpu: Gpu, tiny_bundle: Path) -> None:
    gpu.shift = 0.01
    with pytest.raises(ParityError, match=r"CUDAExecutionProvider differs from the CPU by 1\.00e-02"):
        check(Options(tiny_bundle, images=50, batches=(1, 4), seconds=0.01))


def test_without_a_gpu_it_refuses_and_writes_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory: 'nvidia-smi'")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(DeviceError, match="there is no NVIDIA GPU here"):
        check(Options(tiny_bundle))
    results = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu_check", "--model", str(tiny_bundle), "--results", str(results)])
    assert gpu_check.main() == 2
    assert capsys.readouterr().err.startswith("error: there is no NVIDIA GPU here")
    assert not results.exists()
