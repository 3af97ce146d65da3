"""Rewrites of the exported graph that make it faster and leave its answers alone: scaling, normalisation, flattening.

A pattern that is not found is left as it is. The parity check compares the rewritten graph with Keras in any case.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

LAYOUT_OPS = ("Transpose", "Reshape")
"""What may stand between the scaling and the first convolution: NHWC to NCHW."""


def fold(model: onnx.ModelProto) -> None:
    """Rewrites the graph in place."""
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        fold_normalisation(model.graph, conv)
    fold_scaling(model.graph)
    fold_flatten(model)


def fold_normalisation(graph: onnx.GraphProto, conv: NodeProto) -> None:
    """Moves the products and sums by channel that follow a convolution, batch normalisation, into kernel and bias."""
    weights = _weights(graph, conv)
    if weights is None:
        return
    kernel, bias = weights
    gone = [conv]
    while _users(graph, gone[-1].output[0]) == 1:
        node = next(node for node in graph.node if gone[-1].output[0] in node.input)
        if node.op_type not in ("Mul", "Add") or node.input[0] != gone[-1].output[0]:
            break
        values = _constant(graph, node.input[1])
        if values is None or values.shape not in ((1, len(kernel), 1, 1), (len(kernel), 1, 1)):
            break
        by_channel = values.reshape(-1).astype(np.float64)
        if node.op_type == "Mul":
            kernel, bias = kernel * by_channel[:, None, None, None], bias * by_channel
        else:
            bias = bias + by_channel
        gone.append(node)
    if len(gone) > 1:
        names = [f"{gone[-1].output[0]}_{part}" for part in ("kernel", "bias")]
        _add(graph, names[0], kernel.astype(np.float32))
        _add(graph, names[1], bias.astype(np.float32))
        attributes = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
        new = helper.make_node("Conv", [conv.input[0], *names], list(gone[-1].output), **attributes)
        _replace(graph, gone, [new])


def fold_scaling(graph: onnx.GraphProto) -> None:
    """Moves `pixel * scale + shift` into the first convolution: its kernel is scaled, its bias takes the shift.

    The zeros that the convolution pads with mean a pixel of -shift / scale, 127.5 for us. That is no uint8, so the
    bytes are cast, padded with it, and then convolved without padding. Layout changes move before the cast, where a
    pixel is one byte. One pass over float32 pixels is left of three.
    """
    conv = next((node for node in graph.node if node.op_type == "Conv"), None)
    if conv is None or _attribute(conv, "auto_pad", b"NOTSET") != b"NOTSET" or _attribute(conv, "group", 1) != 1:
        return
    chain = _path_to(graph, conv.input[0], graph.input[0].name)
    scale, shift = 1.0, 0.0
    casts, layouts = [], []
    for node in chain:
        if node.op_type == "Cast":
            casts.append(node)
        elif node.op_type in LAYOUT_OPS:
            layouts.append(node)
        else:
            number = _scalar(graph, node)
            if number is None:
                return
            match node.op_type:
                case "Mul":
                    scale, shift = scale * number, shift * number
                case "Div":
                    scale, shift = scale / number, shift / number
                case "Add":
                    shift += number
                case "Sub":
                    shift -= number
                case _:
                    return
    if len(casts) != 1 or scale == 0.0:
        return
    weights = _weights(graph, conv)
    if weights is None:
        return
    kernel, bias = weights
    pads = list(_attribute(conv, "pads", [0, 0, 0, 0]))

    inputs = graph.input[0].name
    new: list[NodeProto] = []
    for node in [*layouts, casts[0]]:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[0] = inputs
        copy.output[0] = inputs = f"folded_{len(new)}"
        new.append(copy)
    if any(pads):
        top, left, bottom, right = pads
        sides = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        names = ["folded_sides", "folded_zero"]
        _add(graph, names[0], sides)
        _add(graph, names[1], np.array(-shift / scale, np.float32))
        new.append(helper.make_node("Pad", [inputs, *names], ["folded_padded"]))
        inputs = "folded_padded"
    _add(graph, "folded_kernel", (kernel * scale).astype(np.float32))
    _add(graph, "folded_bias", (bias + shift * kernel.sum(axis=(1, 2, 3))).astype(np.float32))
    attributes = {a.name: helper.get_attribute_value(a) for a in conv.attribute} | {"pads": [0, 0, 0, 0]}
    new.append(helper.make_node("Conv", [inputs, "folded_kernel", "folded_bias"], list(conv.output), **attributes))
    _replace(graph, [*chain, conv], new)


def fold_flatten(model: onnx.ModelProto) -> None:
    """Permutes the rows of the dense layer's weights, so that the features before it need no transpose."""
    graph = model.graph
    shapes = {
        value.name: value.type.tensor_type.shape for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for dense in [node for node in graph.node if node.op_type == "MatMul"]:
        reshape = _producer(graph, dense.input[0])
        if reshape is None or reshape.op_type != "Reshape":
            continue
        transpose, weights = _producer(graph, reshape.input[0]), _constant(graph, dense.input[1])
        if transpose is None or transpose.op_type != "Transpose" or weights is None or weights.ndim != 2:
            continue
        if list(_attribute(transpose, "perm", [])) != [0, 2, 3, 1] or transpose.input[0] not in shapes:
            continue
        if any(_users(graph, node.output[0]) != 1 for node in (transpose, reshape)):
            continue
        channels = shapes[transpose.input[0]].dim[1].dim_value
        if not channels or len(weights) % channels:
            continue
        # Rows come by (place, channel); flattened [N, C, H, W] has (channel, place).
        by_channel = weights.reshape(-1, channels, weights.shape[1]).transpose(1, 0, 2).reshape(weights.shape)
        name = f"{dense.input[1]}_by_channel"
        _add(graph, name, np.ascontiguousarray(by_channel))
        flat = helper.make_node("Flatten", [transpose.input[0]], [f"{name}_features"], axis=1)
        product = helper.make_node("MatMul", [flat.output[0], name], list(dense.output))
        _replace(graph, [transpose, reshape, dense], [flat, product])


def _path_to(graph: onnx.GraphProto, name: str, source: str) -> list[NodeProto]:
    """Returns the nodes from `source` to the tensor `name` along first inputs, in order of execution."""
    path: list[NodeProto] = []
    while name != source:
        node = _producer(graph, name)
        if node is None:
            return []
        path.insert(0, node)
        name = node.input[0]
    return path


def _producer(graph: onnx.GraphProto, name: str) -> NodeProto | None:
    return next((node for node in graph.node if name in node.output), None)


def _users(graph: onnx.GraphProto, name: str) -> int:
    inner = sum(list(node.input).count(name) for node in graph.node)
    return inner + sum(value.name == name for value in graph.output)


def _constant(graph: onnx.GraphProto, name: str) -> NDArray[np.float32] | None:
    tensor = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    return None if tensor is None or tensor.data_type != TensorProto.FLOAT else numpy_helper.to_array(tensor)


def _weights(graph: onnx.GraphProto, conv: NodeProto) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Returns a convolution's kernel [out, in, h, w] and bias [out], zeros where it has none; None if not constant."""
    kernel, *rest = [_constant(graph, name) for name in conv.input[1:]]
    if kernel is None or any(values is None for values in rest):
        return None
    bias = np.zeros(len(kernel)) if not rest or rest[0] is None else rest[0].astype(np.float64)
    return kernel.astype(np.float64), bias


def _scalar(graph: onnx.GraphProto, node: NodeProto) -> float | None:
    value = _constant(graph, node.input[1]) if len(node.input) == 2 else None
    return None if value is None or value.size != 1 else float(value.reshape(()))


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _add(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> None:
    graph.initializer.append(numpy_helper.from_array(values, name))


def _replace(graph: onnx.GraphProto, gone: Sequence[NodeProto], new: Sequence[NodeProto]) -> None:
    """Puts new nodes at the place of the last old one, and removes old nodes and what only they have used."""
    names = {node.output[0] for node in gone}
    last = next(place for place, node in enumerate(graph.node) if node.output[0] == gone[-1].output[0])
    before, after = (
        [node for node in part if node.output[0] not in names] for part in (graph.node[:last], graph.node[last:])
    )
    del graph.node[:]
    graph.node.extend([*before, *new, *after])
    drop_unused_weights(graph)


def drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Removes the initializers that no node takes any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
