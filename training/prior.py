"""How often each class is expected in the pile."""

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError


def class_prior(text: str, classes: tuple[str, ...], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns shares of the classes, float32 [K], over 0, summing to 1.

    Args:
        text: `balanced`; `estimated`, which starts there; `labelled`, as the labelled images have them; or K numbers
            separated by commas, in the order of the class names, of any sum.
        classes: The K names.
        labels: int32 [n], 0..K-1, of the labelled images.

    Raises:
        InputError: Another text, or numbers that are no shares.
    """
    count = len(classes)
    if text in ("balanced", "estimated"):
        shares = np.ones(count)
    elif text == "labelled":
        shares = np.bincount(labels, minlength=count).astype(np.float64)
    else:
        try:
            shares = np.array([float(part) for part in text.split(",")])
        except ValueError as error:
            raise InputError(
                f"--class-prior {text}: balanced, estimated, labelled, or numbers such as 0.7,0.3 wanted"
            ) from error
        if len(shares) != count or not np.isfinite(shares).all() or (shares <= 0).any():
            raise InputError(
                f"--class-prior {text}: {count} numbers over 0 wanted, one for each of {', '.join(classes[:12])}"
                + (", ..." if count > 12 else "")
            )
    return (shares / shares.sum()).astype(np.float32)
