"""The CUDA path against recorded provider calls: there is no GPU where the tests run."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_images

from prelabel.engine import load_engine, on_gpu
from prelabel.errors import DeviceError, InputError
from prelabel.precisions import PrecisionFigures
from support.bundles import with_precisions
from support.gpus import Gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    gpu.install(monkeypatch)
    return gpu


def test_each_caller_has_a_session_and_bound_buffers_for_every_batch_size(gpu: Gpu, tiny_bundle: Path) -> None:
    engine = load_engine(tiny_bundle, "cuda", callers=2, max_batch_size=4)
    assert engine.execution_provider == "CUDAExecutionProvider"
    assert on_gpu(engine)
    assert len(gpu.sessions) == 2
    a_session = [((size, 8, 8, 1), np.uint8, "cuda", 0) for size in (1, 2, 4)]
    assert [value for value in gpu.values if value[1] is np.uint8] == a_session * 2
    assert sorted(gpu.page_locked_bytes) == sorted([64, 128, 256] * 2)
    for session in gpu.sessions:
        assert {size for size, _ in session.runs} == {1, 2, 4}
        assert {graph for _, graph in session.runs} == {None}
        assert session.providers == {
            "CUDAExecutionProvider": {
                "device_id": "0",
                "arena_extend_strategy": "kSameAsRequested",
                "use_tf32": "0",
                "enable_cuda_graph": "0",
            }
        }


def test_answers_belong_to_their_images_whatever_thread_asks(gpu: Gpu, tiny_bundle: Path) -> None:
    engine = load_engine(tiny_bundle, "cuda", callers=2, max_batch_size=4)
    pixels = [[16, 128, 240][: 1 + i % 3] * (1 + i % 4) for i in range(60)]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(engine.predict, map(tiny_images, pixels)))
    for own, answer in zip(pixels, answers, strict=True):
        assert answer.label_index.tolist() == [{16: 0, 128: 1, 240: 2}[pixel] for pixel in own]
    assert {size for session in gpu.sessions for size, _ in session.runs} == {1, 2, 4}


def test_threads_that_ask_at_the_same_time_have_a_session_each(gpu: Gpu, tiny_bundle: Path) -> None:
    engine = load_engine(tiny_bundle, "cuda", callers=2, max_batch_size=1)
    while not gpu.entered.empty():
        gpu.entered.get()
    gpu.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(engine.predict, tiny_images([pixel])) for pixel in (16, 128, 240)]
        first_two = [gpu.entered.get(timeout=30), gpu.entered.get(timeout=30)]
        gpu.gate.set()
        assert [answer.result(30).label_index.tolist() for answer in answers] == [[0], [1], [2]]
    assert sorted(map(id, first_two)) == sorted(map(id, gpu.sessions))


def test_memory_is_unlocked_when_an_engine_goes(gpu: Gpu, tiny_bundle: Path) -> None:
    engine = load_engine(tiny_bundle, "cuda", callers=1, max_batch_size=2)
    assert len(gpu.page_locked_bytes) == 2
    del engine
    gc.collect()
    assert gpu.page_locked_bytes == []


def test_cuda_graphs_are_recorded_by_batch_size(gpu: Gpu, tiny_bundle: Path) -> None:
    load_engine(tiny_bundle, "cuda", callers=1, max_batch_size=4, cuda_graphs=True)
    (session,) = gpu.sessions
    assert session.providers["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"
    assert set(session.runs) == {(1, "1"), (2, "2"), (4, "4")}


def test_tensorrt_goes_before_cuda_and_builds_one_engine_for_all_batch_sizes(
    gpu: Gpu, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    load_engine(tiny_bundle, "cuda", callers=1, max_batch_size=4)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    gpu.sessions.clear()
    engine = load_engine(tiny_bundle, "cuda", callers=1, max_batch_size=4, tensorrt=True, cuda_graphs=True)
    assert engine.execution_provider == "TensorrtExecutionProvider"
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0", "float32 means float32"
    assert on_gpu(engine)
    (session,) = gpu.sessions
    assert list(session.providers) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    tensorrt = session.providers["TensorrtExecutionProvider"]
    assert tensorrt["trt_profile_min_shapes"] == "images:1x8x8x1"
    assert tensorrt["trt_profile_opt_shapes"] == tensorrt["trt_profile_max_shapes"] == "images:4x8x8x1"
    assert tensorrt["trt_cuda_graph_enable"] == "1"
    assert session.providers["CUDAExecutionProvider"]["enable_cuda_graph"] == "0"


def test_float16_runs_its_own_graph_where_the_bundle_allows_it(gpu: Gpu, tiny_bundle: Path, tmp_path: Path) -> None:
    figures = PrecisionFigures("float16", "onnxruntime", "converted", True, "ok", 5000, "test split", 1.0, 0.001)
    bundle = with_precisions(tiny_bundle, tmp_path / "bundle", figures)
    rates = {"CUDAExecutionProvider": 1000.0, "CUDAExecutionProvider float16": 1500.0}
    engine = load_engine(bundle, "auto", callers=1, measure=lambda engine: rates[engine.execution_provider])
    assert engine.execution_provider == "CUDAExecutionProvider float16"
    assert engine.predict(tiny_images([16, 240])).label_index.tolist() == [0, 2]


def test_memory_that_cannot_be_locked_is_an_error(gpu: Gpu, tiny_bundle: Path) -> None:
    gpu.refuses = True
    with pytest.raises(DeviceError, match=r"device cuda does not work here: cudaHostRegister of 64 bytes failed \(2\)"):
        load_engine(tiny_bundle, "cuda", callers=1)


@pytest.mark.parametrize(("wanted", "gpus"), [("all", (0, 1, 2)), ("0,2", (0, 2))])
def test_sessions_and_their_buffers_are_spread_over_the_gpus(
    gpu: Gpu, tiny_bundle: Path, wanted: str, gpus: tuple[int, ...]
) -> None:
    gpu.count = 3
    engine = load_engine(tiny_bundle, "cuda", gpus=wanted, max_batch_size=2, tensorrt=True)
    assert engine.gpus == gpus
    assert len(gpu.sessions) == 2 * len(gpus)
    for session, number in zip(gpu.sessions, gpus * 2, strict=True):
        assert {options["device_id"] for options in session.providers.values()} == {str(number)}
        assert {device for value in session.bound for device in [value.device]} == {number}


def test_gpus_share_the_work(gpu: Gpu, tiny_bundle: Path) -> None:
    """What asks one after the other is answered by one GPU after the other."""
    gpu.count = 2
    engine = load_engine(tiny_bundle, "cuda", gpus="all", callers=2, max_batch_size=1)
    while not gpu.entered.empty():
        gpu.entered.get()
    for pixel in (16, 128, 240, 16):
        engine.predict(tiny_images([pixel]))
    used = [gpu.entered.get().providers["CUDAExecutionProvider"]["device_id"] for _ in range(4)]
    assert used in (["0", "1", "0", "1"], ["1", "0", "1", "0"])


def test_gpus_that_would_idle_and_machines_without_one_are_refused(gpu: Gpu, tiny_bundle: Path) -> None:
    gpu.count = 2
    with pytest.raises(InputError, match="1 inferences at a time leave some of 2 GPUs idle"):
        load_engine(tiny_bundle, "cuda", gpus="all", callers=1)
    gpu.count = 0
    with pytest.raises(DeviceError, match="CUDA finds 0 GPUs"):
        load_engine(tiny_bundle, "cuda", gpus="all")
