"""A model whose answer tells which image was asked about, and which fails on purpose."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, Bundle, Parity
from prelabel.files import sha256_file
from prelabel.images import ImageSpec, Pixels

SPEC = ImageSpec(28, 28, 1)
NAME = "soak"
MAX_MARK = 1 << 24
"""Marks below this are exact in float32."""

_RAISES, _NOT_A_NUMBER = 3, 4
"""Pixels that make the inference fail, and the answer of this image infinite."""


@dataclass(frozen=True)
class Marked:
    """Images that carry one number each, and what a server must answer."""

    marks: tuple[int, ...]
    """Numbers below `MAX_MARK`, a different one for every image that is ever sent."""
    not_a_number: frozenset[int] = frozenset()
    """Positions that the model answers with infinity."""
    raises: bool = False
    """Whether the inference fails."""

    def pixels(self) -> Pixels:
        """uint8 [B, 28, 28, 1]."""
        images = np.zeros((len(self.marks), 28 * 28), np.uint8)
        images[:, :3] = np.array(self.marks, "<u4").view(np.uint8).reshape(-1, 4)[:, :3]
        images[:, _RAISES] = self.raises
        images[list(self.not_a_number), _NOT_A_NUMBER] = 1
        return images.reshape(-1, *SPEC.shape)

    def difference(self, realness: NDArray[np.float32], probabilities: NDArray[np.float32], failed: set[int]) -> str:
        """Returns what is wrong with an answer: float32 [B], float32 [B, 2], positions with an error; "" if nothing."""
        wanted = np.array(self.marks, np.float32) / np.float32(MAX_MARK)
        wanted[list(self.not_a_number)] = np.nan
        both = np.stack([wanted, 1 - wanted], axis=1)
        if failed != self.not_a_number:
            return f"errors at {sorted(failed)[:9]}, not at {sorted(self.not_a_number)[:9]}"
        if not np.array_equal(realness, wanted, equal_nan=True):
            return f"realness of other images: {realness[:9].tolist()}, not {wanted[:9].tolist()}"
        if not np.array_equal(probabilities, both, equal_nan=True):
            return f"probabilities of other images: {probabilities[:9].tolist()}"
        return ""


def write_bundle(directory: Path, generation: int) -> str:
    """Writes a bundle and returns its model_id; every generation is another model with the same answers.

    The realness of an image is its mark / 2^24: three pixels in base 256. Its probabilities are that and the rest to 1.
    """
    from onnx import TensorProto, helper, numpy_helper, save_model

    def weight(values: dict[int, float]) -> NDArray[np.float32]:
        column = np.zeros((28 * 28, 1), np.float32)
        for pixel, value in values.items():
            column[pixel] = value
        return column

    constants = {
        "flat": np.array([0, 28 * 28], np.int64),
        "column": np.array([-1], np.int64),
        "one": np.ones(1, np.float32),
        "nothing": np.zeros(1, np.float32),
        "mark_weight": weight({0: 2.0**-24, 1: 2.0**-16, 2: 2.0**-8}),
        "raise_weight": weight({_RAISES: 1}),
        "infinite_weight": weight({_NOT_A_NUMBER: 1}),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("Reshape", ["pixels", "flat"], ["vectors"]),
        node("MatMul", ["vectors", "mark_weight"], ["mark"]),
        node("MatMul", ["vectors", "infinite_weight"], ["infinite"]),
        node("Sub", ["one", "infinite"], ["divisor"]),
        node("Div", ["mark", "divisor"], ["finite"]),
        node("MatMul", ["vectors", "raise_weight"], ["raise"]),
        # There is one row to gather: index 1 is an error of the whole inference.
        node("Cast", ["raise"], ["index"], to=TensorProto.INT64),
        node("Gather", ["nothing", "index"], ["zero"]),
        node("Add", ["finite", "zero"], ["answer"]),
        node("Reshape", ["answer", "column"], ["realness"]),
        node("Sub", ["one", "answer"], ["rest"]),
        node("Concat", ["answer", "rest"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SPEC.shape])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("realness", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    directory.mkdir(parents=True)
    model = directory / MODEL_FILE
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    bundle = Bundle(
        name=NAME,
        classes=("mark", "rest"),
        input=SPEC,
        opset=17,
        parity=Parity(0, 0, 0.0, 0, 1e-4),
        training={"generation": generation},
        files={MODEL_FILE: sha256_file(model)},
    )
    (directory / BUNDLE_FILE).write_text(bundle.to_json())
    return bundle.model_id
