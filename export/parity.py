"""Do the Keras model and the exported graph give the same answers? Over tolerance means no bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from numpy.typing import NDArray

from export.convert import INPUT_NAME, OUTPUT_NAMES, serving_function
from prelabel.bundle import Parity
from prelabel.errors import ImageError, InputError, ParityError
from prelabel.images import ImageSpec, Pixels
from prelabel.sources import Source
from training.splits import find_splits

IMAGES = 1000
"""Images of each kind, real and random, that are compared."""
TOLERANCE = 1e-4
"""Largest difference in a probability or realness; float32 sums in another order differ by about 1e-6."""
BLOCKS = 20
BATCH = 250


@dataclass(frozen=True)
class Outputs:
    """Both heads on the same images."""

    probabilities: NDArray[np.float32]
    """float32 [N, K], 0..1."""
    realness: NDArray[np.float32]
    """float32 [N], 0..1."""


def check_parity(discriminator: keras.Model, model: onnx.ModelProto, data: Path, spec: ImageSpec) -> Parity:
    """Compares Keras and ONNX Runtime on real images of the data set and on uniform noise.

    Raises:
        InputError: The data set cannot be read any more.
        ParityError: A difference over `TOLERANCE`, another class, or an output that is not finite.
    """
    real = read_real_images(data, spec)
    random = np.random.default_rng(0).integers(0, 256, (IMAGES, *spec.shape), np.uint8)
    images = np.concatenate([real, random])
    return compare(run_keras(discriminator, images), run_onnx(model, images), len(real), len(random))


def compare(keras_outputs: Outputs, onnx_outputs: Outputs, real_images: int, random_images: int) -> Parity:
    """Returns the figures of a comparison that passed.

    Raises:
        ParityError: See `check_parity`.
    """
    pairs = (
        (keras_outputs.probabilities, onnx_outputs.probabilities),
        (keras_outputs.realness, onnx_outputs.realness),
    )
    for expected, got in pairs:
        if not (np.isfinite(expected).all() and np.isfinite(got).all()):
            raise ParityError("the model's output is not finite on some images: the training has diverged")
    difference = max(float(np.abs(expected - got).max()) for expected, got in pairs)
    expected, got = pairs[0]
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > TOLERANCE
    argmax_differences = int(((expected.argmax(axis=1) != got.argmax(axis=1)) & clear).sum())
    if difference > TOLERANCE or argmax_differences:
        raise ParityError(
            f"the exported model differs from the Keras model by {difference:.2e} (allowed {TOLERANCE:.0e}) and in the "
            f"class of {argmax_differences} of {len(expected)} images"
        )
    return Parity(real_images, random_images, difference, argmax_differences, TOLERANCE)


def run_keras(discriminator: keras.Model, images: Pixels) -> Outputs:
    """Runs the function that was exported, in TensorFlow."""
    # On GPUs since Ampere TensorFlow rounds what it multiplies to 10 bits, which alone is over the tolerance.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    serve = serving_function(discriminator)
    return _in_batches(images, lambda batch: [serve(tf.constant(batch))[name].numpy() for name in OUTPUT_NAMES])


def run_onnx(model: onnx.ModelProto, images: Pixels) -> Outputs:
    """Runs the exported graph in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return _in_batches(images, lambda batch: session.run(list(OUTPUT_NAMES), {INPUT_NAME: batch}))


def read_real_images(data: Path, spec: ImageSpec) -> Pixels:
    """Reads up to `IMAGES` images, uint8 [n, H, W, C], in blocks spread over the training split of a data path.

    Raises:
        InputError: There is no data set, or none of the images can be decoded.
    """
    images = read_spread(find_splits(data)[0], spec, IMAGES)
    if not len(images):
        raise InputError(f"data {data} has no image that can be decoded")
    return images


def read_spread(source: Source, spec: ImageSpec, count: int) -> Pixels:
    """Reads up to `count` images, uint8 [n, H, W, C], in blocks spread over a source; broken ones are left out."""
    block = -(-count // BLOCKS)
    starts = np.unique(np.linspace(0, max(0, len(source) - block), BLOCKS).astype(int)).tolist()
    images, stop = [], 0
    for start in starts:
        for sample in source.read(max(start, stop), start + block):
            try:
                images.append(sample.pixels(spec))
            except ImageError:
                continue  # training has named it already
        stop = start + block
    return np.stack(images) if images else np.empty((0, *spec.shape), np.uint8)


def _in_batches(images: Pixels, run: Any) -> Outputs:
    results = [run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    return Outputs(*(np.concatenate(column) for column in zip(*results, strict=True)))
