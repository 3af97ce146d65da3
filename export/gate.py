"""May a variant of the model in fewer bits answer in the place of the Keras model? Its figures decide."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.parity import Outputs, read_spread
from prelabel.images import ImageSpec, Pixels
from prelabel.precisions import Precision, PrecisionFigures, Runtime
from training.splits import find_splits

IMAGES = 5000
"""Held-out real images: one of them is 0.02 %, a fifth of what may differ."""
CALIBRATION_IMAGES = 512
"""Images that ranges are taken from: more change them by less than a step of int8."""
MIN_IMAGES = 1000
"""With fewer, `MIN_AGREEMENT` could not be told from a variant that errs on a percent of the images."""
MIN_AGREEMENT = 0.999
"""Least share of images with the most probable class of the Keras model."""
MAX_DIFFERENCE = 0.01
"""Largest 99.9th percentile of the differences in probability, and 99th percentile of an image's largest one.

With ten classes the first is the stricter one. With a thousand, 99.9 % of all probabilities say nothing: those of the
classes that an image could be of are fewer than the rest.
"""


@dataclass(frozen=True)
class GateImages:
    """Real images without labels, in two parts that share none."""

    held_out: Pixels
    """uint8 [n, H, W, C]: on these a variant is judged."""
    held_out_from: str
    """Where they come from."""
    calibration: Pixels
    """uint8 [m, H, W, C]: from these int8 has its ranges."""


def read_gate_images(data: Path, spec: ImageSpec, wanted: int = IMAGES) -> GateImages:
    """Takes held-out images from the test split and what that lacks from the training split, ranges from the latter.

    Raises:
        InputError: There is no data set.
    """
    train, test = find_splits(data)
    held_out = np.empty((0, *spec.shape), np.uint8) if test is None else read_spread(test, spec, wanted)[:wanted]
    missing = wanted - len(held_out)
    images = read_spread(train, spec, CALIBRATION_IMAGES + missing)
    order = np.random.default_rng(0).permutation(len(images))
    # A small data set has not enough for both: half of it is for each.
    more = order[: min(missing, max(len(images) - CALIBRATION_IMAGES, len(images) // 2))]
    parts = [f"{len(held_out)} of the test split"] if len(held_out) else []
    if len(more):
        parts.append(f"{len(more)} of the training split that gave no ranges")
    return GateImages(
        np.concatenate([held_out, images[more]]), " and ".join(parts), images[order[len(more) :]][:CALIBRATION_IMAGES]
    )


def too_few(images: int) -> str:
    """Returns why nothing can be judged on so many images, "" where it can."""
    if images >= MIN_IMAGES:
        return ""
    return f"{images:,} held-out images are too few to judge it: {MIN_IMAGES:,} wanted"


def judge(
    precision: Precision, runtime: Runtime, recipe: str, expected: Outputs, got: Outputs, images_from: str
) -> PrecisionFigures:
    """Compares a variant's answers with those of the Keras model on the same images; returns figures and verdict."""
    images = len(expected.realness)
    if not (np.isfinite(got.probabilities).all() and np.isfinite(got.realness).all()):
        return PrecisionFigures(precision, runtime, recipe, False, "an output is not finite", images, images_from)
    differences = np.abs(expected.probabilities - got.probabilities)
    agreement = float((expected.probabilities.argmax(axis=1) == got.probabilities.argmax(axis=1)).mean())
    difference, image_difference = _quantile(differences, 0.999), _quantile(differences.max(axis=1), 0.99)
    complaints = []
    if few := too_few(images):
        complaints.append(few)
    if agreement < MIN_AGREEMENT:
        complaints.append(f"agreement {agreement:.3%} is below {MIN_AGREEMENT:.1%}")
    if difference > MAX_DIFFERENCE:
        complaints.append(f"probabilities differ by {difference:.4f} at the 99.9th percentile, over {MAX_DIFFERENCE}")
    if image_difference > MAX_DIFFERENCE:
        complaints.append(
            f"an image's largest difference is {image_difference:.4f} at the 99th percentile, over {MAX_DIFFERENCE}"
        )
    return PrecisionFigures(
        precision,
        runtime,
        recipe,
        passed=not complaints,
        reason=" and ".join(complaints) or f"agreement {agreement:.3%}, difference {difference:.4f}",
        images=images,
        images_from=images_from,
        agreement=agreement,
        p999_difference=difference,
        p99_image_difference=image_difference,
        p999_image_difference=_quantile(differences.max(axis=1), 0.999),
        p999_realness_difference=_quantile(np.abs(expected.realness - got.realness), 0.999),
    )


def _quantile(values: NDArray[np.float32], share: float) -> float:
    """Returns a quantile that is one of the values, rounded up to 1e-6."""
    return math.ceil(float(np.quantile(values, share, method="higher")) * 1e6) / 1e6
