"""Variants of the exported graph in fewer bits: int8 and float16. Both heads stay in float32 from the logits on."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.convert import INPUT_NAME
from export.fold import drop_unused_weights
from prelabel.images import Pixels

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """One way to choose what becomes int8 and over which range."""

    name: str
    """What it says in the bundle."""
    first_float: bool
    """Leave the first convolution, whose pixels have 8 bits already, in float32."""
    method: str
    """Name of ONNX Runtime's calibration method."""
    options: dict[str, float]
    """Of the calibration method."""


INT8_RECIPES = (
    Recipe("int8 but the dense layer; ranges from the extremes", False, "MinMax", {}),
    Recipe(
        "int8 but the first convolution and the dense layer; ranges hold 99.99 %",
        True,
        "Percentile",
        {"CalibPercentile": 99.99},
    ),
)
"""In the order in which they are tried: the one that leaves the most in int8 first."""


def to_int8(model: onnx.ModelProto, recipe: Recipe, images: Pixels) -> onnx.ModelProto:
    """Quantises a copy of the graph: weights by output channel, activations by tensor, ranges from unlabelled images.

    Args:
        model: The exported graph.
        recipe: How.
        images: uint8 [n, H, W, C], 0..255.

    Raises:
        ValueError: ONNX Runtime finds no ranges, where activations hardly vary.
    """
    # Imported here: it takes a second, and float32 alone does not need it.
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Without the mark a warning asks for the clean-up that `export.fold` has done.
    add_pre_process_metadata(copy)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "int8.onnx"
        quantize_static(
            copy,
            path,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            nodes_to_quantize=convolutions[1 if recipe.first_float else 0 :],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # CPUs without VNNI add pairs of products in 16 bits, which eight bits of weight overflow: the gate would
            # judge other answers here than such a CPU gives. Weights of seven bits fit.
            reduce_range=True,
            calibrate_method=CalibrationMethod[recipe.method],
            # What a convolution puts out goes through LeakyReLU first and is quantised after it, once.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"], **recipe.options},
        )
        return onnx.load(path)


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Converts a copy of the graph to float16 up to the logits; inputs and outputs keep their types."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    dense = max(i for i, node in enumerate(graph.node) if node.op_type == "MatMul")
    for node in graph.node[: dense + 1]:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        for i, name in enumerate(node.input):
            if name in weights:
                node.input[i] = f"{name}_half"
                # What is too large for float16 becomes infinite, and the gate refuses the graph.
                with np.errstate(over="ignore"):
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, node.input[i]))
    logits = graph.node[dense].output[0]
    graph.node[dense].output[0] = f"{logits}_half"
    graph.node.insert(dense + 1, helper.make_node("Cast", [f"{logits}_half"], [logits], to=TensorProto.FLOAT))
    drop_unused_weights(graph)
    onnx.checker.check_model(half, full_check=True)
    return half


class _Images:
    """What `quantize_static` reads its calibration images from."""

    def __init__(self, images: Pixels) -> None:
        # Histograms are taken of batches of one size only; a few images at the end are left out.
        size = min(BATCH, len(images))
        self._batches: Iterator[Pixels] = (images[i : i + size] for i in range(0, len(images) - size + 1, size))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}
