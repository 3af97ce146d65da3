"""Which engine and precision is taken, and which is refused."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import openvino
import pytest

from prelabel.bundle import load_bundle
from prelabel.engine import Device, Engine, PrecisionChoice, RuntimeChoice, load_engine
from prelabel.engine_choice import Way, images_per_s, pick, way_named
from prelabel.errors import DeviceError, InputError
from prelabel.precisions import PrecisionFigures
from support.bundles import with_precisions
from support.cpu import HAS_BFLOAT16

ORT_F32, OV_F32 = Way("cpu", "onnxruntime", "float32"), Way("cpu", "openvino", "float32")
OV_BF16, OV_INT8 = Way("cpu", "openvino", "bfloat16"), Way("cpu", "openvino", "int8")

ALLOWED = (
    PrecisionFigures("bfloat16", "openvino", "hint", True, "ok", 5000, "test split", 0.9995, 0.004),
    PrecisionFigures("int8", "openvino", "static", True, "ok", 5000, "test split", 0.9995, 0.004),
    PrecisionFigures(
        "int8", "onnxruntime", "static", False, "agreement 99.2 % of 5,000 images", 5000, "test", 0.992, 0.1
    ),
)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_precisions(tiny_bundle, tmp_path_factory.mktemp("precisions") / "bundle", *ALLOWED)


def rates(**by_name: float):  # type: ignore[no-untyped-def]
    """A measurement that is the same on every machine."""
    names = {name.replace("_", " "): rate for name, rate in by_name.items()}
    return lambda engine: names.get(engine.execution_provider, 1.0)


@pytest.mark.parametrize(
    ("measured", "wanted"),
    [
        ({ORT_F32: 3.0, OV_F32: 2.0}, ORT_F32),
        ({ORT_F32: 2.0, OV_F32: 3.0}, OV_F32),
        ({ORT_F32: 2.0, OV_F32: 3.0, OV_BF16: 3.2, OV_INT8: 3.1}, OV_F32),
        ({ORT_F32: 2.0, OV_F32: 3.0, OV_BF16: 3.4, OV_INT8: 3.3}, OV_BF16),
        ({OV_BF16: 1.0}, OV_BF16),
    ],
)
def test_a_reduced_precision_is_taken_only_where_it_is_worth_it(measured: dict[Way, float], wanted: Way) -> None:
    assert pick(measured) == wanted


def test_auto_takes_the_fastest_that_the_bundle_allows_and_says_why(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measure = rates(
        CPUExecutionProvider=1000, CPUExecutionProvider_int8=90_000, OpenVINO_float32=2000, OpenVINO_int8=5000
    )
    with caplog.at_level(logging.INFO, "prelabel"):
        engine = load_engine(bundle, "cpu", 1, measure=measure)
    assert engine.execution_provider == "OpenVINO int8"
    assert "engine: OpenVINO int8, by images/s of one core: CPUExecutionProvider 1,000" in caplog.text
    assert "OpenVINO int8 5,000" in caplog.text
    assert "90,000" not in caplog.text
    measure = rates(CPUExecutionProvider=3000, OpenVINO_float32=2000, OpenVINO_int8=3100)
    assert load_engine(bundle, "cpu", 1, measure=measure).execution_provider == "CPUExecutionProvider"


def never_measured(engine: Engine) -> float:
    raise AssertionError("there was no choice")


def test_what_is_asked_for_is_not_measured(bundle: Path) -> None:
    engine = load_engine(bundle, "cpu", 1, runtime="openvino", precision="int8", measure=never_measured)
    assert engine.execution_provider == "OpenVINO int8"


@pytest.mark.parametrize(("runtime", "precision"), [("auto", "auto"), ("openvino", "auto"), ("auto", "int8")])
def test_work_that_was_begun_goes_on_as_before(
    bundle: Path, runtime: RuntimeChoice, precision: PrecisionChoice, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"runtime": runtime, "precision": precision, "before": OV_INT8, "measure": never_measured}
    with caplog.at_level(logging.INFO, "prelabel"):
        engine = load_engine(bundle, "cpu", 1, **options)  # type: ignore[arg-type]
    assert engine.execution_provider == "OpenVINO int8"
    assert caplog.messages == ["engine: OpenVINO int8, as before"]


def test_what_is_asked_for_counts_more_than_how_work_was_begun(bundle: Path) -> None:
    options = {"runtime": "onnxruntime", "precision": "float32", "before": OV_INT8}
    assert load_engine(bundle, "cpu", 1, **options).execution_provider == "CPUExecutionProvider"  # type: ignore[arg-type]


def test_a_way_that_the_bundle_does_not_allow_is_not_gone_on_in(tiny_bundle: Path) -> None:
    engine = load_engine(tiny_bundle, "cpu", 1, before=OV_INT8, measure=rates(OpenVINO_float32=2.0))
    assert engine.execution_provider == "OpenVINO float32"


def test_a_way_that_does_not_work_here_is_not_gone_on_in(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prelabel import engine_openvino

    def refuse(*_: object) -> None:
        raise DeviceError("it is gone")

    monkeypatch.setattr(engine_openvino, "load", refuse)
    with caplog.at_level(logging.INFO, "prelabel"):
        engine = load_engine(bundle, "cpu", 1, before=OV_BF16)
    assert engine.execution_provider == "CPUExecutionProvider"
    assert caplog.messages == ["not going on in bfloat16 by openvino on cpu, because it is gone"]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("CPUExecutionProvider", ORT_F32),
        ("CUDAExecutionProvider float16", Way("cuda", "onnxruntime", "float16")),
        ("OpenVINO bfloat16", OV_BF16),
        ("OpenVINO float16", None),
        ("TensorrtExecutionProvider", None),
        ("FakeServer", None),
        ("", None),
    ],
)
def test_the_name_of_what_runs_a_model_says_the_way(name: str, way: Way | None) -> None:
    assert way_named(name) == way


def test_a_bundle_without_figures_runs_in_float32(tiny_bundle: Path) -> None:
    seen: list[str] = []

    def measure(engine: Engine) -> float:
        seen.append(engine.execution_provider)
        return images_per_s(engine)

    load_engine(tiny_bundle, "cpu", 1, measure=measure)
    assert seen == ["CPUExecutionProvider", "OpenVINO float32"]


@pytest.mark.parametrize(
    ("device", "runtime", "precision", "message"),
    [
        ("cpu", "onnxruntime", "int8", "does not allow --precision int8 .*onnxruntime: agreement 99.2 % of 5,000"),
        ("auto", "auto", "float16", r"does not allow --precision float16 \(it was not tried at export\)"),
        ("cuda", "openvino", "auto", "nothing runs a model with --device cuda --runtime openvino --precision auto"),
        ("cpu", "onnxruntime", "bfloat16", "nothing runs a model with .*there is float32 by onnxruntime on cuda, "),
        ("cpu", "auto", "float16", "nothing runs a model with"),
    ],
)
def test_a_precision_that_the_bundle_or_the_runtime_does_not_have_is_refused(
    bundle: Path, device: Device, runtime: RuntimeChoice, precision: PrecisionChoice, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_engine(bundle, device, runtime=runtime, precision=precision)


@pytest.mark.parametrize("arguments", [{"threads": -1}, {"callers": -1}])
def test_negative_numbers_are_refused(tiny_bundle: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"is -1: 0 \(automatic\) or more wanted"):
        load_engine(tiny_bundle, "cpu", **arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16")
def test_bfloat16_and_float32_are_what_really_runs(bundle: Path) -> None:
    """1.75 * 177 has 11 binary digits and bfloat16 holds 8, so near the border of two classes the answers differ."""
    images = np.zeros((21, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = pixels = np.arange(166, 187)
    logits = np.stack([-((pixels - centre) ** 2) / 256 for centre in (32.0, 128.0, 224.0)], axis=1)
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    exact = load_engine(bundle, "cpu", 1, runtime="openvino", precision="float32")
    np.testing.assert_allclose(exact.predict(images).probabilities, right, atol=1e-5)
    reduced = load_engine(bundle, "cpu", 1, runtime="openvino", precision="bfloat16")
    assert reduced.execution_provider == "OpenVINO bfloat16"
    difference = np.abs(reduced.predict(images).probabilities - right).max()
    assert 0.01 < difference < 0.5


def test_a_precision_that_the_cpu_does_not_have_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prelabel import engine_openvino

    class OldCpu:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(engine_openvino, "_core", OldCpu)
    with pytest.raises(DeviceError, match="precision bfloat16: this CPU has none"):
        load_engine(bundle, "cpu", runtime="openvino", precision="bfloat16")


def test_one_runtime_is_enough(bundle: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from pathlib import Path; from prelabel.engine import load_engine\n"
        f"print(load_engine(Path({str(bundle)!r}), 'auto', precision='float32').execution_provider)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "OpenVINO float32"


def test_a_bundle_knows_what_it_allows(bundle: Path) -> None:
    described = load_bundle(bundle)
    assert described.allows("float32", "onnxruntime")
    assert described.allows("int8", "openvino")
    assert not described.allows("int8", "onnxruntime")
    assert not described.allows("float16", "onnxruntime")


def test_one_thread_alone_is_the_first_to_use_openvino(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that come first at the same time may wait for each other for ever, in the preparation of its bindings."""
    calls: list[tuple[int, bool]] = []
    infer = openvino.InferRequest.infer

    def recorded(request: openvino.InferRequest, inputs: dict[str, np.ndarray], **options: bool) -> object:
        (images,) = inputs.values()
        calls.append((threading.get_ident(), images.flags.writeable))
        return infer(request, inputs, **options)

    monkeypatch.setattr(openvino.InferRequest, "infer", recorded)
    load_engine(bundle, "cpu", 1, runtime="openvino", precision="float32", callers=4)
    here = threading.get_ident()
    assert calls[:2] == [(here, True), (here, False)]
    assert here not in {thread for thread, _ in calls[2:]}
