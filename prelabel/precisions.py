"""In which precision a model's numbers are computed, and the figures that let a reduced one into a bundle."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "int8", "float16"]
Runtime = Literal["onnxruntime", "openvino"]

VARIANT_FILES: dict[Precision, str] = {"int8": "model.int8.onnx", "float16": "model.float16.onnx"}
"""Precisions with a graph of their own; the others run the bundle's float32 graph."""


@dataclass(frozen=True)
class PrecisionFigures:
    """A variant of the model against the Keras model on held-out real images, as measured when the bundle was made.

    Refused variants have figures, too; their files are not in the bundle.
    """

    precision: Precision
    """What was tried."""
    runtime: Runtime
    """What computed it; it is allowed in that runtime only."""
    recipe: str
    """How the variant was made."""
    passed: bool
    """Whether the bundle allows it."""
    reason: str
    """Why or why not, in a line."""
    images: int = 0
    """Images that were compared; 0 where the variant could not be run."""
    images_from: str = ""
    """Which images they were."""
    agreement: float | None = None
    """Share of the images with the same most probable class, 0..1."""
    p999_difference: float | None = None
    """99.9th percentile of the differences of all probabilities, of every class of every image."""
    p99_image_difference: float | None = None
    """99th percentile of each image's largest difference in a probability."""
    p999_image_difference: float | None = None
    """99.9th percentile of the same: for information."""
    p999_realness_difference: float | None = None
    """99.9th percentile of the differences in realness: for information."""
