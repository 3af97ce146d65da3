"""The gate of the reduced precisions: its figures, its images, and what gets through."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto

from export import gate, variants
from export.config import Options
from export.convert import to_onnx
from export.gate import MAX_DIFFERENCE, MIN_AGREEMENT, judge, read_gate_images
from export.parity import Outputs
from export.publish import export_run
from export.quantize import INT8_RECIPES, to_float16, to_int8
from prelabel.bundle import MODEL_FILE, load_bundle
from prelabel.engine import load_engine
from prelabel.errors import InputError
from prelabel.images import ImageSpec
from prelabel.precisions import PrecisionFigures
from support.cpu import HAS_BFLOAT16
from support.datasets import write_idx_dataset
from training.config import Options as TrainOptions
from training.models import build_discriminator
from training.recipe import PRESETS
from training.train import train

SPEC = ImageSpec(16, 16, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate")
    data = write_idx_dataset(root / "data")
    train(TrainOptions(data, root / "run", labels=6, preset="supervised", steps=3, progress="none"))
    return root / "run"


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    discriminator = build_discriminator(SPEC, 3, PRESETS["default"], 0)
    for number, variable in enumerate(discriminator.variables):  # as after training: nothing is zero or one
        if variable.dtype == "float32":
            variable.assign(variable + tf.random.stateless_uniform(variable.shape, [number, 0], -0.1, 0.1))
    return to_onnx(discriminator)


def answers(images: int, wrong: int = 0, off: int = 0, by: float = 0.0) -> Outputs:
    """Two classes, the first at 0.9; `wrong` images with the other one, `off` images with a difference."""
    first = np.full(images, 0.9)
    first[:wrong] = 0.1
    first[images - off :] -= by
    return Outputs(np.stack([first, 1 - first], axis=1).astype(np.float32), np.full(images, 0.5, np.float32))


def verdict(got: Outputs) -> PrecisionFigures:
    return judge("int8", "openvino", "test", answers(len(got.realness)), got, "the test")


def test_agreement_has_to_be_99_9_percent() -> None:
    # The images with another class differ in their probabilities, too: of 10,000, 9 are within the 99.9th percentile.
    assert verdict(answers(10_000, wrong=9)).passed
    figures = verdict(answers(10_000, wrong=11))
    assert not figures.passed
    assert figures.agreement == pytest.approx(0.9989)
    assert "agreement 99.890% is below 99.9%" in figures.reason


def test_probabilities_may_differ_by_a_hundredth_at_the_percentile() -> None:
    assert verdict(answers(10_000, off=5000, by=0.0099)).passed
    refused = verdict(answers(10_000, off=20, by=0.011))
    assert not refused.passed
    assert refused.agreement == 1.0
    assert refused.p999_difference == pytest.approx(0.011, abs=1e-6)
    assert "probabilities differ by 0.0110 at the 99.9th percentile, over 0.01" in refused.reason
    few = verdict(answers(10_000, off=9, by=0.011))
    assert few.passed
    assert few.p999_difference == pytest.approx(0.0, abs=1e-6)


def test_with_many_classes_an_image_counts_for_no_less() -> None:
    """Confidences that are wrong in 5 % of the images are few of a million probabilities."""
    count, classes = 2000, 500
    expected = np.full((count, classes), 0.05 / (classes - 1), np.float32)
    expected[:, 0] = 0.95
    got = expected.copy()
    got[:100, 0], got[:100, 1] = 0.55, 0.40
    realness = np.zeros(count, np.float32)
    figures = judge("int8", "openvino", "test", Outputs(expected, realness), Outputs(got, realness), "the test")
    assert (figures.agreement, figures.passed) == (1.0, False)
    assert figures.p999_difference is not None
    assert figures.p999_difference <= MAX_DIFFERENCE
    assert "an image's largest difference is 0.4000 at the 99th percentile" in figures.reason


def test_too_few_images_tell_nothing() -> None:
    few = verdict(answers(999))
    assert (few.agreement, few.passed) == (1.0, False)
    assert few.reason == "999 held-out images are too few to judge it: 1,000 wanted"
    assert verdict(answers(1000)).passed


def test_what_is_not_finite_is_refused() -> None:
    got = answers(10)
    got.realness[3] = np.nan
    figures = verdict(got)
    assert (figures.passed, figures.reason) == (False, "an output is not finite")


def test_held_out_images_are_of_the_test_split_and_the_rest_gave_no_ranges(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = read_gate_images(run.parent / "data", SPEC, wanted=50)
    assert few.held_out_from == "50 of the test split"
    assert few.held_out.shape == (50, 16, 16, 1)
    many = read_gate_images(run.parent / "data", SPEC)
    assert " of the test split and 120 of the training split that gave no ranges" in many.held_out_from
    assert len(many.calibration) == 120
    monkeypatch.setattr(gate, "CALIBRATION_IMAGES", 20)
    tests = len(many.held_out) - 120
    topped_up = read_gate_images(run.parent / "data", SPEC, wanted=tests + 150)
    assert topped_up.held_out_from == f"{tests} of the test split and 150 of the training split that gave no ranges"
    assert (len(topped_up.held_out), len(topped_up.calibration)) == (tests + 150, 20)
    held_out = {image.tobytes() for image in many.held_out[-120:]}
    assert not held_out & {image.tobytes() for image in many.calibration}


@pytest.mark.parametrize("recipe", INT8_RECIPES)
def test_int8_convolutions_and_float_heads(graph: onnx.ModelProto, recipe) -> None:  # type: ignore[no-untyped-def]
    images = np.random.default_rng(0).integers(0, 256, (200, *SPEC.shape), np.uint8)
    reduced = to_int8(graph, recipe, images)
    assert to_int8(graph, recipe, images) == reduced
    weights = {tensor.name: tensor for tensor in reduced.graph.initializer}
    producers = {node.output[0]: node for node in reduced.graph.node}
    convolutions = [node for node in reduced.graph.node if node.op_type == "Conv"]
    quantised = [producers.get(node.input[1]) is not None for node in convolutions]
    assert quantised == [not recipe.first_float, *[True] * (len(convolutions) - 1)]
    kernel = producers[convolutions[-1].input[1]]
    assert kernel.op_type == "DequantizeLinear"
    assert weights[kernel.input[0]].data_type == TensorProto.INT8
    # Seven bits: CPUs without VNNI add pairs of products with bytes in 16 bits.
    largest = np.abs(onnx.numpy_helper.to_array(weights[kernel.input[0]]).astype(int)).max()
    assert 2 * 255 * largest < 2**15
    assert len(onnx.numpy_helper.to_array(weights[kernel.input[1]])) == weights[kernel.input[0]].dims[0]
    (dense,) = [node for node in reduced.graph.node if node.op_type == "MatMul"]
    assert weights[dense.input[1]].data_type == TensorProto.FLOAT
    assert differences(graph, reduced) < 0.006  # 0.003; ranges of darker images: 0.009 and 0.04


def test_float16_up_to_the_logits(graph: onnx.ModelProto) -> None:
    half = to_float16(graph)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    for node in half.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            assert {types[name] for name in node.input[1:]} == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in half.graph.output] == [TensorProto.FLOAT] * 2
    assert graph.graph.node[0].input[0] == half.graph.input[0].name == "images"
    assert 0 < differences(graph, half) < 0.01


def differences(graph: onnx.ModelProto, other: onnx.ModelProto) -> float:
    images = np.random.default_rng(1).integers(0, 256, (100, *SPEC.shape), np.uint8)
    both = []
    for model in (graph, other):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        both.append(session.run(["probabilities"], {"images": images})[0])
    return float(np.abs(both[0] - both[1]).max())


def test_a_bundle_has_the_figures_of_every_variant_and_the_files_of_those_that_passed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MIN_IMAGES", 100)
    directory, bundle = export_run(Options(run, output=tmp_path / "bundle"))
    assert load_bundle(directory) == bundle
    tried = {(figures.precision, figures.runtime) for figures in bundle.precisions}
    assert {
        ("bfloat16", "openvino"),
        ("int8", "openvino"),
        ("int8", "onnxruntime"),
        ("float16", "onnxruntime"),
    } == tried
    wanted = {MODEL_FILE}
    for figures in bundle.precisions:
        if figures.precision == "bfloat16" and not HAS_BFLOAT16:
            assert (figures.passed, figures.images) == (False, 0)
            assert "this CPU has none" in figures.reason
            continue
        assert figures.images == len(read_gate_images(run.parent / "data", SPEC).held_out)
        assert figures.agreement is not None
        assert figures.p999_difference is not None
        assert figures.p99_image_difference is not None
        difference = max(figures.p999_difference, figures.p99_image_difference)
        passed = figures.agreement >= MIN_AGREEMENT and difference <= MAX_DIFFERENCE
        assert figures.passed == passed
        if passed:
            wanted.add(bundle.file_of(figures.precision))
    assert {path.name for path in directory.glob("*.onnx")} == set(bundle.files) == wanted


def test_a_variant_that_answers_otherwise_is_refused_and_its_file_is_not_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
        half = to_float16(model)
        for tensor in half.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 2:
                tensor.CopyFrom(onnx.numpy_helper.from_array(-3 * onnx.numpy_helper.to_array(tensor), tensor.name))
        return half

    monkeypatch.setattr(variants, "to_float16", spoiled)
    monkeypatch.setattr(gate, "MIN_IMAGES", 100)
    directory, bundle = export_run(Options(run, output=tmp_path / "bundle"))
    (figures,) = bundle.figures("float16")
    assert not figures.passed
    assert "model.float16.onnx" not in bundle.files
    assert not (directory / "model.float16.onnx").exists()
    with pytest.raises(InputError, match=r"does not allow --precision float16 .*agreement"):
        load_engine(directory, precision="float16")


def test_a_variant_that_cannot_be_made_is_refused_and_the_others_are_judged(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_ranges(*_: object) -> onnx.ModelProto:
        raise ValueError("Too many bins for data range.\nCannot create 2048")

    monkeypatch.setattr(variants, "to_int8", without_ranges)
    monkeypatch.setattr(gate, "MIN_IMAGES", 100)
    _, bundle = export_run(Options(run, output=tmp_path / "bundle"))
    reasons = {figures.reason for figures in bundle.figures("int8")}
    assert reasons == {"not made: Too many bins for data range. Cannot create 2048"}
    (half,) = bundle.figures("float16")
    assert half.images >= 100


def test_variants_that_nothing_can_be_judged_on_are_not_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "to_float16", None)
    _, bundle = export_run(Options(run, output=tmp_path / "bundle"))
    assert {figures.precision for figures in bundle.precisions} == {"bfloat16", "int8", "float16"}
    for figures in bundle.precisions:
        assert not figures.passed
        assert "held-out images are too few to judge it: 1,000 wanted" in figures.reason


def test_a_machine_that_cannot_run_a_variant_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prelabel import engine_openvino

    real = engine_openvino._core()

    class OldCpu:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(engine_openvino, "_core", OldCpu)
    monkeypatch.setattr(gate, "MIN_IMAGES", 100)
    _, bundle = export_run(Options(run, output=tmp_path / "bundle"))
    (figures,) = bundle.figures("bfloat16")
    assert figures == dataclasses.replace(figures, passed=False, images=0, agreement=None, p999_difference=None)
    assert figures.reason == "not run: precision bfloat16: this CPU has none; choose --precision float32"


def test_without_precisions_the_bundle_is_float32_alone(run: Path, tmp_path: Path) -> None:
    directory, bundle = export_run(Options(run, output=tmp_path / "bundle", precisions=False))
    assert bundle.precisions == ()
    assert "precisions" not in (directory / "bundle.json").read_text()
