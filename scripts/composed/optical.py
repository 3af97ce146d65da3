"""The handwritten digits that scikit-learn carries: 8 x 8 pixels, as somebody else scanned and shrank them.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998. 1,797 images;
as their order goes by writers, the last ones are mostly of people of whom the first ones have nothing.
"""

import numpy as np
from sklearn.datasets import load_digits

from scripts.composed.mnist import SplitName
from scripts.composed.split import Split, names_of

TRAIN_IMAGES = 1_297
"""The first so many are for training, the others for the test."""
LEVELS = 16
"""Pixels are whole numbers from 0 to this."""


def optical_digits(generator: np.random.Generator, split: SplitName, count: int) -> Split:
    """Returns up to `count` images of a split, in random order, light on dark."""
    digits = load_digits()
    images = np.round(digits.images * (255.0 / LEVELS)).astype(np.uint8)[..., None]
    part = slice(TRAIN_IMAGES) if split == "train" else slice(TRAIN_IMAGES, None)
    images, labels = images[part], digits.target[part].astype(np.int64)
    order = generator.permutation(len(images))[:count]
    return Split(images[order], names_of(labels[order], [str(digit) for digit in range(10)]))
