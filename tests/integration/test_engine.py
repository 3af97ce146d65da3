"""Both engines on a real ONNX bundle whose answers can be computed by hand."""

import dataclasses
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, load_bundle
from prelabel.engine import Device, Engine, RuntimeChoice, load_engine
from prelabel.errors import BundleError, DeviceError, InputError
from prelabel.files import sha256_file

CENTRES = np.array([32.0, 128.0, 224.0])
"""The tiny model's classes: an image belongs to the one whose centre is nearest to its first pixel."""


def images(first_pixels: NDArray[Any], second_pixel: int = 128) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(0).integers(0, 256, (len(first_pixels), 8, 8, 1)).astype(np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = first_pixels, second_pixel
    return pixels


PROVIDERS: dict[RuntimeChoice, str] = {"onnxruntime": "CPUExecutionProvider", "openvino": "OpenVINO float32"}


@pytest.fixture(scope="module", params=PROVIDERS)
def engine(tiny_bundle: Path, request: pytest.FixtureRequest) -> Engine:
    engine = load_engine(
        tiny_bundle, "cpu", threads=1, runtime=request.param, precision="float32", callers=2, max_batch_size=16
    )
    assert engine.execution_provider == PROVIDERS[request.param]
    return engine


def test_answers_are_those_computed_by_hand(engine: Engine, tiny_bundle: Path) -> None:
    """256 images are 16 runs of the largest batch size."""
    pixels = np.arange(256)
    answer = engine.predict(images(pixels, second_pixel=160))
    logits = -((pixels[:, None] - CENTRES) ** 2) / 256
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer.probabilities, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answer.realness, np.full(256, 1 / (1 + np.exp(-1))), rtol=1e-5)
    np.testing.assert_array_equal(answer.label_index[:80], 0)
    np.testing.assert_array_equal(answer.label_index[[81, 128, 175]], 1)
    np.testing.assert_array_equal(answer.label_index[177:], 2)
    assert answer.probabilities.dtype == answer.realness.dtype == np.float32
    assert answer.model_id == load_bundle(tiny_bundle).model_id
    assert answer.errors == {}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 15, 16, 17, 37])
def test_a_batch_says_what_its_images_say_alone(engine: Engine, count: int) -> None:
    batch = images(np.arange(0, 256, 7)[:count])
    whole = engine.predict(batch)
    assert len(whole) == len(batch)
    for i in range(len(batch)):
        alone = engine.predict(batch[i : i + 1])
        np.testing.assert_allclose(alone.probabilities[0], whole.probabilities[i], rtol=1e-5)
        np.testing.assert_allclose(alone.realness[0], whole.realness[i], rtol=1e-5)


def test_threads_share_an_engine(engine: Engine) -> None:
    """More threads than the engine was set up for: the others wait."""
    batches = [images(np.full(1 + value % 23, value)) for value in range(256)]
    wanted = [engine.predict(batch).probabilities for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        for found, right in zip(pool.map(engine.predict, batches), wanted, strict=True):
            np.testing.assert_array_equal(found.probabilities, right)


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 8, 8), (1, 8, 8, 3), (1, 9, 8, 1), (0, 8, 8, 1)])
def test_another_shape_is_named_with_the_wanted_one(engine: Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"the model takes \[B >= 1, 8, 8, 1\]") as caught:
        engine.predict(np.zeros(shape, np.uint8))
    assert str(list(shape)) in str(caught.value)


def test_another_dtype_is_named(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"images are float32, but the model takes uint8"):
        engine.predict(np.zeros((1, 8, 8, 1), np.float32))  # type: ignore[arg-type]


def test_images_of_a_buffer_that_cannot_be_written_are_read(engine: Engine) -> None:
    """As they come from a message; the answers do not change with the buffer, nor with the next call."""
    batch = images(np.array([32, 128, 224]))
    shared = np.frombuffer(batch.tobytes(), np.uint8).reshape(batch.shape)
    answer = engine.predict(shared)
    engine.predict(images(np.array([0, 0, 0])))
    assert answer.label_index.tolist() == [0, 1, 2]


def test_a_changed_model_is_not_loaded(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    with (bundle / MODEL_FILE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="was changed after export"):
        load_engine(bundle, "cpu")


@pytest.mark.parametrize("runtime", PROVIDERS)
def test_answers_that_are_not_numbers_are_errors_of_their_images(
    tiny_bundle: Path, tmp_path: Path, runtime: RuntimeChoice
) -> None:
    """A weight of infinity on the third pixel: where that is 0 the product is NaN, elsewhere infinite."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    model = onnx.load(bundle / MODEL_FILE)
    for initializer in model.graph.initializer:
        if initializer.name == "realness_weights":
            weights = numpy_helper.to_array(initializer).copy()
            weights[2] = np.inf
            initializer.CopyFrom(numpy_helper.from_array(weights, initializer.name))
    onnx.save(model, bundle / MODEL_FILE)
    described = dataclasses.replace(load_bundle(tiny_bundle), files={MODEL_FILE: sha256_file(bundle / MODEL_FILE)})
    (bundle / BUNDLE_FILE).write_text(described.to_json())
    batch = images(np.array([32, 128, 224]))
    batch[:, 0, 2, 0] = [7, 0, 9]
    answer = load_engine(bundle, "cpu", runtime=runtime).predict(batch)
    assert list(answer.errors) == [1]
    assert "not a number" in answer.errors[1]
    assert answer.label_index.tolist() == [0, -1, 2]


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


def falling_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ONNX Runtime does where CUDA is compiled in and does not work: it says nothing and takes the CPU."""
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: session(model, options, providers=["CPUExecutionProvider"]),
    )


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 35: driver too old\nand a page more")

    falling_back(monkeypatch)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (without_cuda, "device cuda is not available: this ONNX Runtime has CPUExecutionProvider"),
        (falling_back, "ONNX Runtime fell back to CPUExecutionProvider"),
        (failing, "device cuda does not work here: CUDA failure 35: driver too old and a page more"),
    ],
)
def test_cuda_that_does_not_work_is_refused(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, machine: Any, message: str
) -> None:
    machine(monkeypatch)
    with pytest.raises(DeviceError, match=message):
        load_engine(tiny_bundle, "cuda")


@pytest.mark.parametrize("machine", [without_cuda, falling_back])
def test_auto_takes_the_cpu_and_says_why(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, machine: Any
) -> None:
    machine(monkeypatch)
    device: Device = "auto"
    with caplog.at_level(logging.INFO, "prelabel.engine"):
        engine = load_engine(tiny_bundle, device, runtime="onnxruntime")
    assert engine.execution_provider == "CPUExecutionProvider"
    assert "using the CPU, because device cuda" in caplog.text
