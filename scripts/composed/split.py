"""What every composer returns, and the little that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.images import Pixels

Masks = NDArray[np.uint8]
"""uint8 [n, S, S]: how far the object covers each pixel, 0 (not) .. 255 (all of it)."""


@dataclass(frozen=True)
class Split:
    """The training or the test images of a set."""

    images: Pixels
    """uint8 [n, H, W, C], 0..255."""
    labels: tuple[str | None, ...]
    """n class names; None where the image belongs to no class."""
    origins: tuple[str, ...] | None = None
    """n names of how the image came to be, where a set has several ways; the trainer does not read them."""


def balanced(generator: np.random.Generator, count: int, class_count: int) -> NDArray[np.int64]:
    """Returns int64 [count], 0..class_count-1, shuffled, each class equally often or once more."""
    return generator.permutation(np.arange(count) % class_count)


def names_of(labels: NDArray[np.int64], classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the class names of labels int64 [n], 0..K-1."""
    return tuple(classes[label] for label in labels.tolist())
