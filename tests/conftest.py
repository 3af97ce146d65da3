"""Fixtures that several test folders share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, Bundle, Parity
from prelabel.files import sha256_file
from prelabel.images import ImageSpec

LONGEST = ("integration/test_distributed_training", "unit/training/", "e2e/", "unit/export/")
"""What takes minutes begins first: at the end one worker would do it while the other has nothing left."""

TINY_CLASSES = ("low", "middle", "high")
TINY_CENTRES = np.array([32.0, 128.0, 224.0], np.float32)
"""The tiny model classifies an image by its first pixel: the nearest centre wins."""


def write_tiny_bundle(directory: Path, name: str = "tiny") -> Path:
    """Writes a real bundle whose answers can be checked by hand, without TensorFlow.

    The first pixel decides the class, the second the realness: sigmoid((pixel - 128) / 32).
    """
    from onnx import TensorProto, helper, numpy_helper, save_model

    spec = ImageSpec(8, 8, 1)
    weights = np.zeros((64, 3), np.float32)
    weights[0] = 2 * TINY_CENTRES / 256
    realness = np.zeros((64, 1), np.float32)
    realness[1] = 1 / 32
    constants = {
        "flat": np.array([0, 64], np.int64),
        "weights": weights,
        "bias": -(TINY_CENTRES**2) / 256,
        "realness_weights": realness,
        "realness_bias": np.array([-4.0], np.float32),
        "column": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["vectors"]),
        helper.make_node("MatMul", ["vectors", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["vectors", "realness_weights"], ["real_products"]),
        helper.make_node("Add", ["real_products", "realness_bias"], ["real_logits"]),
        helper.make_node("Sigmoid", ["real_logits"], ["real_column"]),
        helper.make_node("Reshape", ["real_column", "column"], ["realness"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *spec.shape])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("realness", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    directory.mkdir(parents=True)
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / MODEL_FILE
    )
    bundle = Bundle(
        name=name,
        classes=TINY_CLASSES,
        input=spec,
        opset=17,
        parity=Parity(1000, 1000, 0.0, 0, 1e-4),
        training={},
        files={MODEL_FILE: sha256_file(directory / MODEL_FILE)},
    )
    (directory / BUNDLE_FILE).write_text(bundle.to_json())
    return directory


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed in the test is freed by its last reference."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def tiny_images(first_pixels: list[int], second_pixel: int = 128) -> NDArray[np.uint8]:
    """uint8 [B, 8, 8, 1] for the tiny model; each image carries its own answer in its first pixel."""
    images = np.zeros((len(first_pixels), 8, 8, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = first_pixels, second_pixel
    return images


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest modules first."""
    ranks = {path: rank for rank, path in enumerate(LONGEST)}
    items.sort(key=lambda item: min((rank for path, rank in ranks.items() if path in item.nodeid), default=len(ranks)))
