"""The embedded MNIST as arrays."""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.images import Pixels
from prelabel.sources import IdxSource

MNIST = Path("data/mnist")
SplitName = Literal["train", "test"]
FILES: dict[SplitName, str] = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


@functools.cache
def load_digits(mnist: Path, split: SplitName) -> tuple[Pixels, NDArray[np.int64]]:
    """Returns images uint8 [n, 28, 28], 0..255, and labels int64 [n], 0..9.

    Raises:
        InputError: The files are missing or damaged.
    """
    source = IdxSource(mnist / FILES[split])
    if source.labels is None:
        raise InputError(f"{mnist} has no labels beside {FILES[split]}: give the folder of the embedded MNIST")
    return source.images, source.labels.astype(np.int64)
