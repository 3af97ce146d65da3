"""Keras -> ONNX: the classifier head and the real-or-fake head of D, with the pixel scaling inside the graph."""

from typing import Any

import keras
import onnx
import tensorflow as tf

from export.fold import fold
from prelabel.errors import ParityError
from training import losses
from training.state import to_network_range

OPSET = 17
INPUT_NAME = "images"
OUTPUT_NAMES = ("probabilities", "realness")

UNWANTED_OPS = frozenset({"Loop", "If", "Scan", "IsNaN", "IsInf", "Shape", "NonZero", "Where"})
"""Operators of a graph that computes its own shapes or guards against overflow: slower, and nothing of ours needs them.
"""


def input_signature(discriminator: keras.Model) -> list[tf.TensorSpec]:
    """Returns the one input: uint8 [N, H, W, C]."""
    return [tf.TensorSpec((None, *discriminator.input_shape[1:]), tf.uint8, name=INPUT_NAME)]


def serving_function(discriminator: keras.Model) -> Any:
    """Returns the function that is exported.

    It takes images uint8 [N, H, W, C], 0..255, and returns `probabilities` float32 [N, K], 0..1, and `realness` float32
    [N], 0..1.
    """

    @tf.function(input_signature=input_signature(discriminator))
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, _ = discriminator(to_network_range(images), training=False)
        return {"probabilities": tf.nn.softmax(logits), "realness": losses.realness(logits)}

    return serve


def to_onnx(discriminator: keras.Model, *, folded: bool = True) -> onnx.ModelProto:
    """Converts D to a checked ONNX model with input `images` and outputs `probabilities`, `realness`; N is dynamic.

    Args:
        discriminator: D.
        folded: Rewrite the graph by `export.fold`; without, it is what tf2onnx makes, for comparisons.

    Raises:
        ParityError: The graph holds an operator that it should not need.
    """
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        serving_function(discriminator), input_signature=input_signature(discriminator), opset=OPSET
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    if folded:
        fold(model)
    rename_by_position(model.graph)
    onnx.checker.check_model(model, full_check=True)
    check_graph(model)
    return model


def rename_by_position(graph: onnx.GraphProto) -> None:
    """Names nodes and inner tensors by their position.

    tf2onnx numbers them anew at each conversion, and the same run should become the same bytes, so the same model_id.
    """
    graph.name, graph.doc_string = "classifier", ""
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for position, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{position}"
        for name in (*node.input, *node.output):
            names.setdefault(name, f"tensor_{len(names)}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for weights in graph.initializer:
        weights.name = names[weights.name]
    ordered = sorted(graph.initializer, key=lambda weights: int(weights.name.removeprefix("tensor_")))
    del graph.initializer[:]
    graph.initializer.extend(ordered)
    del graph.value_info[:]


def check_graph(model: onnx.ModelProto) -> None:
    """Raises `ParityError` for other inputs and outputs than promised or for operators of `UNWANTED_OPS`."""
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if inputs != [INPUT_NAME] or outputs != list(OUTPUT_NAMES):
        raise ParityError(f"the exported graph has inputs {inputs} and outputs {outputs}")
    found = sorted({node.op_type for node in model.graph.node} & UNWANTED_OPS)
    if found:
        raise ParityError(f"the exported graph holds {', '.join(found)}: the network has a layer that exports badly")
