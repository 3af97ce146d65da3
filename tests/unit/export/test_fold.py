"""Rewritten graphs give the answers that they gave before; what is no pattern of ours stays as it is."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.fold import fold


def make_model(
    scaling: list[tuple[str, float]],
    pads: list[int],
    *,
    channels: int = 2,
    bias: bool = True,
    after: tuple[str, ...] = (),
    **conv: Any,
) -> onnx.ModelProto:
    """uint8 [N, 6, 7, C] -> cast, scaling, NCHW, convolution, `after`, NHWC -> flattened, dense float32 [N, 3]."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {"kernel": rng.normal(size=(4, channels, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT)]
    for number, (operator, value) in enumerate(scaling):
        weights[f"scale{number}"] = np.array(value, np.float32)
        nodes.append(helper.make_node(operator, [nodes[-1].output[0], f"scale{number}"], [f"scaled{number}"]))
    nodes.append(helper.make_node("Transpose", [nodes[-1].output[0]], ["nchw"], perm=[0, 3, 1, 2]))
    if bias:
        weights["bias"] = rng.normal(size=4).astype(np.float32)
    padding = {} if "auto_pad" in conv else {"pads": pads}
    nodes.append(helper.make_node("Conv", ["nchw", "kernel", *(["bias"] if bias else [])], ["conv"], **padding, **conv))
    for number, operator in enumerate(after):
        inputs = [nodes[-1].output[0]]
        if operator in ("Mul", "Add"):
            weights[f"norm{number}"] = rng.normal(size=(1, 4, 1, 1)).astype(np.float32)
            inputs.append(f"norm{number}")
        nodes.append(helper.make_node(operator, inputs, [f"after{number}"]))
    nodes.append(helper.make_node("Transpose", [nodes[-1].output[0]], ["nhwc"], perm=[0, 2, 3, 1]))
    height, width = (6, 7) if "auto_pad" in conv else (4 + pads[0] + pads[2], 5 + pads[1] + pads[3])
    weights["shape"] = np.array([-1, height * width * 4], np.int64)
    weights["dense"] = rng.normal(size=(height * width * 4, 3)).astype(np.float32)
    nodes.append(helper.make_node("Reshape", ["nhwc", "shape"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "dense"], ["answers"]))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 6, 7, channels])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = np.random.default_rng(1).integers(0, 256, (5, *shape), np.uint8)
    result: np.ndarray = session.run(None, {"images": images})[0]
    return result


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fold(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


numbers = st.floats(0.01, 2.0)
scalings = st.lists(st.tuples(st.sampled_from(["Mul", "Div", "Add", "Sub"]), numbers), max_size=4)


@settings(deadline=None, max_examples=40)
@given(
    scalings, st.lists(st.integers(0, 2), min_size=4, max_size=4), st.booleans(), st.sampled_from([1, 2, 3]),
    st.lists(st.sampled_from(["Mul", "Add"]), max_size=3),
)  # fmt: skip
def test_answers_stay_and_scaling_normalisation_and_transposes_go(
    scaling: list[tuple[str, float]], pads: list[int], bias: bool, channels: int, after: list[str]
) -> None:
    model = make_model(scaling, pads, channels=channels, bias=bias, after=(*after, "LeakyRelu"))
    fast = folded(model)
    pad = ["Pad"] if any(pads) else []
    assert operators(fast) == ["Transpose", "Cast", *pad, "Conv", "LeakyRelu", "Flatten", "MatMul"]
    before, now = answers(model), answers(fast)
    np.testing.assert_allclose(now, before, rtol=1e-3, atol=2e-4 * np.abs(before).max())
    used = {name for node in fast.graph.node for name in node.input}
    assert {tensor.name for tensor in fast.graph.initializer} <= used


@pytest.mark.parametrize(
    "model",
    [
        make_model([("Mul", 0.5), ("Pow", 2.0)], [1, 1, 1, 1]),  # no scale and shift
        make_model([("Mul", 0.5), ("Sub", 1.0)], [1, 1, 1, 1], auto_pad="SAME_UPPER"),  # pads are not known
        make_model([("Mul", 0.0)], [1, 1, 1, 1]),  # no pixel stands for a padded zero
    ],
    ids=["another function", "automatic padding", "zero"],
)
def test_an_input_that_is_no_scaling_stays(model: onnx.ModelProto) -> None:
    fast = folded(model)
    assert operators(fast)[:4] == operators(model)[:4]
    np.testing.assert_allclose(answers(fast), answers(model), rtol=1e-4, atol=1e-3)


def test_a_convolution_whose_output_is_used_twice_keeps_its_own() -> None:
    model = make_model([], [0, 0, 0, 0], after=("Mul",))
    model.graph.output.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, ["N", 4, 4, 5]))
    fast = folded(model)
    assert "Mul" in operators(fast)
    np.testing.assert_allclose(answers(fast), answers(model), rtol=1e-4, atol=1e-3)
