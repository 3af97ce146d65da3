"""From a run to a bundle: the graph, the parity gate, and the directory."""

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

from export import publish as publishing
from export.config import Options
from export.convert import check_graph, to_onnx
from export.parity import Outputs, check_parity, compare, read_real_images, run_keras
from export.publish import export_run
from prelabel.bundle import load_bundle
from prelabel.engine import load_engine
from prelabel.errors import InputError, ParityError
from prelabel.images import ImageSpec
from support.datasets import write_idx_dataset
from training.checkpoint import list_checkpoints, load_classifier, read_meta
from training.config import Options as TrainOptions
from training.models import WeightNormConv2D, build_discriminator, fold_weight_norm
from training.recipe import PRESETS, Recipe, changed
from training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    data = write_idx_dataset(root / "data")
    train(TrainOptions(data, root / "run", labels=6, preset="supervised", steps=3, progress="none"))
    return root / "run"


@pytest.mark.parametrize("preset", ["book", "default"])
@pytest.mark.parametrize("spec", [ImageSpec(28, 28, 1), ImageSpec(20, 30, 3)])
def test_the_graph_is_clean_and_takes_raw_pixels_in_any_number(preset: str, spec: ImageSpec) -> None:
    discriminator = build_discriminator(spec, 4, PRESETS[preset], 0)
    for number, variable in enumerate(discriminator.variables):  # as after training: nothing is zero or one
        if variable.dtype == "float32":
            variable.assign(variable + tf.random.stateless_uniform(variable.shape, [number, 0], 0.1, 0.3))
    model = to_onnx(discriminator)
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["N", *spec.shape]
    operators = [node.op_type for node in model.graph.node]
    # Scaling, normalisation and flattening are in the weights; a colour image is transposed once, as bytes.
    layout = "Reshape" if spec.channels == 1 else "Transpose"
    assert operators[:5] == [layout, "Cast", "Pad", "Conv", "LeakyRelu"]
    assert {"Mul", "Div", "BatchNormalization", "Identity"}.isdisjoint(operators)
    assert operators.count("Transpose") + operators.count("Reshape") == 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        probabilities, realness = session.run(None, {"images": np.zeros((count, *spec.shape), np.uint8)})
        assert (probabilities.dtype, probabilities.shape) == (np.float32, (count, 4))
        assert (realness.dtype, realness.shape) == (np.float32, (count,))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_weight_normalisation_is_folded_into_the_kernels() -> None:
    spec, recipe = ImageSpec(12, 12, 1), changed(PRESETS["default"], ("norm=weight",))
    discriminator = build_discriminator(spec, 3, recipe, 0)
    for layer in discriminator.layers:  # gains that are no norms, as after training
        if isinstance(layer, WeightNormConv2D):
            layer.gain.assign(layer.gain * 1.7)
    folded = fold_weight_norm(discriminator, spec, 3, recipe)
    assert not any(isinstance(layer, WeightNormConv2D) for layer in folded.layers)
    images = np.random.default_rng(0).normal(size=(4, 12, 12, 1)).astype(np.float32)
    np.testing.assert_allclose(folded(images)[0], discriminator(images)[0], atol=1e-5)
    assert fold_weight_norm(folded, spec, 3, PRESETS["default"]) is folded


def test_a_graph_with_overflow_guards_is_refused() -> None:
    tensors = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("images", "realness")}
    flags = helper.make_tensor_value_info("probabilities", TensorProto.BOOL, ["N"])
    nodes = [
        helper.make_node("IsNaN", ["images"], ["probabilities"]),
        helper.make_node("Sigmoid", ["images"], ["realness"]),
    ]
    graph = helper.make_graph(nodes, "guards", [tensors["images"]], [flags, tensors["realness"]])
    with pytest.raises(ParityError, match="holds IsNaN"):
        check_graph(helper.make_model(graph))


def test_a_run_becomes_a_bundle_that_says_where_it_comes_from(run: Path) -> None:
    directory, _ = export_run(Options(run))
    bundle = load_bundle(directory)
    assert directory == run / "bundle"
    assert bundle.classes == ("0", "1", "2")
    assert bundle.input == ImageSpec(16, 16, 1)
    assert bundle.parity.argmax_differences == 0
    assert bundle.parity.max_abs_difference <= 1e-4
    assert (bundle.training["step"], bundle.training["options"]["labels"]) == (3, 6)
    assert bundle.training["commit"]


def test_the_bundle_answers_as_the_keras_model(run: Path, tmp_path: Path) -> None:
    directory, bundle = export_run(Options(run, output=tmp_path / "bundle"))
    images = read_real_images(run.parent / "data", ImageSpec(16, 16, 1))[:20]
    answers = load_engine(directory, "cpu", precision="float32").predict(images)
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    recipe = Recipe(**read_meta(checkpoint)["options"]["recipe"])
    discriminator = build_discriminator(bundle.input, len(bundle.classes), recipe, seed=0)
    load_classifier(checkpoint, discriminator)
    expected = run_keras(discriminator, images)
    np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=1e-4)
    np.testing.assert_allclose(answers.realness, expected.realness, atol=1e-4)
    assert np.ptp(expected.probabilities, axis=0).max() > 0.01


def test_the_same_run_gives_the_same_model_id(run: Path, tmp_path: Path) -> None:
    _, first = export_run(Options(run, output=tmp_path / "a"))
    _, second = export_run(Options(run, output=tmp_path / "b"))
    assert first.model_id == second.model_id


def test_another_answer_in_the_graph_means_no_bundle(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(discriminator: object) -> onnx.ModelProto:
        model = to_onnx(discriminator)
        for weights in model.graph.initializer:
            if weights.data_type == TensorProto.FLOAT and len(weights.dims) == 4:
                values = onnx.numpy_helper.to_array(weights) * 1.5
                weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
        return model

    monkeypatch.setattr(publishing, "to_onnx", spoiled)
    with pytest.raises(ParityError, match="differs from the Keras model"):
        export_run(Options(run, output=tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_the_old_bundle(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = export_run(Options(run, output=tmp_path / "bundle"))

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "write_text_atomically", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export_run(Options(run, output=tmp_path / "bundle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert load_bundle(tmp_path / "bundle").model_id == old.model_id


def test_an_interruption_between_the_renames_leaves_the_old_bundle(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = export_run(Options(run, output=tmp_path / "bundle", precisions=False))
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_run(Options(run, output=tmp_path / "bundle", precisions=False))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert load_bundle(tmp_path / "bundle").model_id == old.model_id


def test_what_a_link_leads_to_is_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to("v1")
    for _ in range(2):
        directory, bundle = export_run(Options(run, output=tmp_path / "bundle", precisions=False))
        assert directory == tmp_path / "bundle"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "v1"]
        assert directory.is_symlink()
        assert load_bundle(tmp_path / "v1").model_id == bundle.model_id


def test_export_again_replaces_the_bundle_but_no_other_folder(run: Path, tmp_path: Path) -> None:
    export_run(Options(run, output=tmp_path / "bundle"))
    export_run(Options(run, output=tmp_path / "bundle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="exists and is no bundle"):
        export_run(Options(run, output=tmp_path / "mine"))


def test_the_images_of_the_check_may_lie_wherever_training_reads(run: Path, tmp_path: Path) -> None:
    """`s3://`, patterns: no file of that name is on the disk."""
    store = fsspec.filesystem("memory")
    for path in (run.parent / "data").iterdir():
        store.pipe_file(f"/export/{path.name}", path.read_bytes())
    _, bundle = export_run(Options(run, output=tmp_path / "bundle", data=Path("memory://export"), precisions=False))
    assert bundle.parity.real_images == 240
    with pytest.raises(InputError, match=r"nothing.*: say with --data where some are"):
        export_run(Options(run, output=tmp_path / "other", data=tmp_path / "nothing"))


def test_a_folder_without_a_run_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no training run"):
        export_run(Options(tmp_path))


def test_an_unfinished_run_is_exported_only_on_demand(run: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    (unfinished / "checkpoints").mkdir(parents=True)
    (checkpoint,) = (run / "checkpoints").iterdir()
    with np.load(checkpoint) as content:
        arrays = dict(content)
    meta = json.loads(str(arrays.pop("meta")))
    meta["total_steps"] = 9
    file = io.BytesIO()
    np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
    (unfinished / "checkpoints" / checkpoint.name).write_bytes(file.getvalue())
    with pytest.raises(InputError, match="step 3 of 9"):
        export_run(Options(unfinished))
    _, bundle = export_run(Options(unfinished, unfinished=True))
    assert bundle.training["step"] == 3


def outputs(probabilities: list[list[float]], realness: list[float]) -> Outputs:
    return Outputs(np.array(probabilities, np.float32), np.array(realness, np.float32))


def test_parity_allows_a_swap_of_equal_classes_only() -> None:
    tie = outputs([[0.50002, 0.49998]], [0.3])
    swapped = outputs([[0.49998, 0.50002]], [0.3])
    assert compare(tie, swapped, 1, 0).argmax_differences == 0
    with pytest.raises(ParityError, match="class of 1 of 1"):
        compare(outputs([[0.6, 0.4]], [0.3]), outputs([[0.4, 0.6]], [0.3]), 1, 0)


def test_parity_looks_at_realness_too() -> None:
    with pytest.raises(ParityError, match=r"by 1\.0\de-01|by 1\.00e-01"):
        compare(outputs([[0.6, 0.4]], [0.3]), outputs([[0.6, 0.4]], [0.4]), 1, 0)


def test_outputs_that_are_not_finite_are_refused() -> None:
    bad = outputs([[float("nan"), 0.4]], [0.3])
    with pytest.raises(ParityError, match="not finite"):
        compare(bad, bad, 1, 0)


def test_a_diverged_network_gets_no_bundle(run: Path) -> None:
    spec = ImageSpec(16, 16, 1)
    discriminator = build_discriminator(spec, 3, PRESETS["book"], 0)
    discriminator.trainable_variables[0].assign(discriminator.trainable_variables[0] * float("nan"))
    with pytest.raises(ParityError, match="not finite"):
        check_parity(discriminator, to_onnx(discriminator), run.parent / "data", spec)


def test_real_images_are_spread_over_the_data_and_broken_ones_left_out(run: Path) -> None:
    images = read_real_images(run.parent / "data", ImageSpec(16, 16, 1))
    assert images.shape == (240, 16, 16, 1)
