"""Every reduced precision of a model: made, judged by the engine that would run it, kept or refused."""

import logging
from dataclasses import dataclass
from pathlib import Path

import keras
import onnx

from export.convert import OPSET
from export.gate import GateImages, judge, read_gate_images, too_few
from export.parity import Outputs, run_keras
from export.quantize import INT8_RECIPES, to_float16, to_int8
from prelabel.bundle import MODEL_FILE, Bundle, Parity
from prelabel.engine_base import Settings, bucket_sizes
from prelabel.engine_choice import Way, load
from prelabel.errors import DeviceError
from prelabel.images import ImageSpec
from prelabel.precisions import VARIANT_FILES, PrecisionFigures

logger = logging.getLogger(__name__)

HINT = "the float32 graph, computed in bfloat16"
HALF = "float16 up to the logits"
BFLOAT16, FLOAT16 = Way("cpu", "openvino", "bfloat16"), Way("cpu", "onnxruntime", "float16")
INT8 = Way("cpu", "openvino", "int8"), Way("cpu", "onnxruntime", "int8")


@dataclass(frozen=True)
class Variants:
    """What the gate decided."""

    figures: tuple[PrecisionFigures, ...]
    """Of every variant that was tried."""
    files: dict[str, bytes]
    """Bundle file name -> graph of those that passed and have one of their own."""


def make_variants(
    discriminator: keras.Model, model: onnx.ModelProto, data: Path, spec: ImageSpec, classes: tuple[str, ...]
) -> Variants:
    """Makes and judges bfloat16, int8 and float16.

    Args:
        discriminator: D.
        model: Its graph, which has passed the parity check.
        data: Where real images are.
        spec: Shape of an image.
        classes: K class names.

    Raises:
        InputError: The data set cannot be read any more.
    """
    images = read_gate_images(data, spec)
    if few := too_few(len(images.held_out)):
        ways = ((BFLOAT16, HINT), *((way, INT8_RECIPES[0].name) for way in INT8), (FLOAT16, HALF))
        return Variants(tuple(PrecisionFigures(way.precision, way.runtime, how, False, few) for way, how in ways), {})
    expected = run_keras(discriminator, images.held_out)
    bench = _Bench(images, expected, spec, classes)
    figures = [bench.judge(model, BFLOAT16, HINT)]
    files: dict[str, bytes] = {}
    for recipe in INT8_RECIPES:
        try:
            graph = to_int8(model, recipe, images.calibration)
        except ValueError as error:  # where activations hardly vary, ONNX Runtime finds no ranges for them
            why = f"not made: {' '.join(str(error).split())}"
            figures += [PrecisionFigures(way.precision, way.runtime, recipe.name, False, why) for way in INT8]
            continue
        tried = [bench.judge(graph, way, recipe.name) for way in INT8]
        figures += tried
        if any(one.passed for one in tried):
            files[VARIANT_FILES["int8"]] = graph.SerializeToString()
            break
    half = to_float16(model)
    # Its numbers are those of a GPU; its speed is not, so nothing but a GPU runs it.
    figures.append(bench.judge(half, FLOAT16, HALF))
    if figures[-1].passed:
        files[VARIANT_FILES["float16"]] = half.SerializeToString()
    return Variants(tuple(figures), files)


@dataclass(frozen=True)
class _Bench:
    """Where variants are run as a server would."""

    images: GateImages
    expected: Outputs
    spec: ImageSpec
    classes: tuple[str, ...]

    def judge(self, graph: onnx.ModelProto, way: Way, recipe: str) -> PrecisionFigures:
        name = VARIANT_FILES.get(way.precision, MODEL_FILE)
        unverified = Bundle("", self.classes, self.spec, OPSET, Parity(0, 0, 0.0, 0, 0.0), {}, {name: ""})
        settings = Settings(threads=1, callers=1, buckets=bucket_sizes(unverified, 256))
        try:
            engine = load(way, unverified, graph.SerializeToString(), settings)
        except DeviceError as error:
            return PrecisionFigures(way.precision, way.runtime, recipe, False, f"not run: {error}")
        answers = engine.predict(self.images.held_out)
        got = Outputs(answers.probabilities, answers.realness)
        return judge(way.precision, way.runtime, recipe, self.expected, got, self.images.held_out_from)
