"""Likely errors in labels that came with images: confident learning, by `cleanlab` (Northcutt et al. 2021)."""

import warnings

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError


def likely_label_errors(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> list[int]:
    """Returns the positions of labels that are likely wrong, the most likely first.

    The probabilities should be of images that the model was not trained on with these labels: on those it agrees with
    any error.

    Args:
        labels: int32 [n], 0..K-1.
        probabilities: float32 [n, K], 0..1, rows sum to 1.

    Raises:
        InputError: `cleanlab` is not installed, or the labels are of a single class.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise InputError("looking for label errors needs cleanlab: pip install 'prelabel[audit]'") from None
    if len(np.unique(labels)) < 2:
        raise InputError("the given labels are all of one class: nothing can be said about errors in them")
    # cleanlab wants classes that occur, without gaps; probabilities of the others are shared out.
    present, index = np.unique(labels, return_inverse=True)
    shares = probabilities[:, present].astype(np.float64) + np.finfo(np.float32).tiny
    shares /= shares.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        # A class with a single label: nothing can be said about it, and that is no fault of the user's.
        warnings.filterwarnings("ignore", "May not flag all label issues")
        issues = find_label_issues(index, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(i) for i in issues]
