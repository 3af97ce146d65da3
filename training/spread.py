"""Some of many, evenly spread: which images are looked at where all would take too long."""

import numpy as np
from numpy.typing import NDArray

LOOKED_AT = 500
"""Images that show what the images of a data set are like."""


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """Returns `most` of `count` positions, or all where there are fewer: int64, ascending, both ends among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
