"""A bundle that another one replaces while it is loaded: answers are of the model whose name they carry."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import tiny_images
from onnx import numpy_helper

from prelabel import engine_cuda, engine_onnxruntime, engine_openvino
from prelabel.bundle import MODEL_FILE, load_bundle, read_bundle
from prelabel.engine import load_engine
from prelabel.errors import BundleError, InputError
from support.gpus import Gpu


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def mirrored(model: bytes) -> bytes:
    """The tiny model with its classes in the other order."""
    graph = onnx.load_from_string(model)
    for initializer in graph.graph.initializer:
        if initializer.name in ("weights", "bias"):
            turned = np.ascontiguousarray(numpy_helper.to_array(initializer)[..., ::-1])
            initializer.CopyFrom(numpy_helper.from_array(turned, initializer.name))
    return graph.SerializeToString()


@pytest.mark.parametrize(
    ("runtime", "options"),
    [
        (engine_onnxruntime, {"device": "cpu", "runtime": "onnxruntime"}),
        (engine_openvino, {"device": "cpu", "runtime": "openvino"}),
        (engine_cuda, {"device": "cuda"}),
        (engine_cuda, {"device": "cuda", "tensorrt": True}),
    ],
    ids=["onnxruntime", "openvino", "cuda", "tensorrt"],
)
def test_the_graph_that_was_verified_is_the_one_that_runs(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, runtime: ModuleType, options: dict[str, Any]
) -> None:
    if runtime is engine_cuda:
        Gpu().install(monkeypatch)
    model_id, load = load_bundle(bundle).model_id, runtime.load

    def load_after_the_swap(*arguments: Any) -> Any:
        (bundle / MODEL_FILE).write_bytes(mirrored((bundle / MODEL_FILE).read_bytes()))
        return load(*arguments)

    monkeypatch.setattr(runtime, "load", load_after_the_swap)
    engine = load_engine(bundle, precision="float32", **options)
    answer = engine.predict(tiny_images([32, 224]))
    assert (answer.model_id, answer.label_index.tolist()) == (model_id, [0, 2])
    with pytest.raises(BundleError, match="was changed after export"):
        load_engine(bundle, precision="float32", **options)


def test_wanted_files_are_handed_over_and_all_are_verified(bundle: Path) -> None:
    described, contents = read_bundle(bundle, lambda _: ())
    assert (described, contents) == (load_bundle(bundle), {})
    _, contents = read_bundle(bundle, lambda described: described.files)
    assert contents == {MODEL_FILE: (bundle / MODEL_FILE).read_bytes()}
    with pytest.raises(InputError, match="the bundle does not allow --precision int8"):
        load_engine(bundle, "cpu", precision="int8")
