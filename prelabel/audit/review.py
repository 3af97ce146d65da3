"""In which order people look at the rows that were not accepted: most informative first, and not all of one kind."""

import numpy as np
from numpy.typing import NDArray


def review_order(
    entropy: NDArray[np.float32], label: NDArray[np.int32], runner_up: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Returns positions in the order of review, int64 [n].

    Entropy says how informative an answer is. Rows with the same two most probable classes are one confusion, and a
    second answer to it is worth less than the first: the i-th most uncertain row of each confusion, i from 0, counts
    with its entropy over i + 1. So confusions take turns, and one whose rows are nearly certain does not come first.
    Ties go by position, so the order is the same every time.

    Args:
        entropy: float32 [n], nats, 0 or more.
        label: int32 [n], 0..K-1, the predicted class.
        runner_up: int32 [n], 0..K-1, the second most probable class.
    """
    pair = label.astype(np.int64) * (int(runner_up.max(initial=0)) + 1) + runner_up
    by_pair = np.lexsort((-entropy, pair))
    starts = np.flatnonzero(np.diff(pair[by_pair], prepend=-1))
    sizes = np.diff(starts, append=len(pair))
    turn = np.empty(len(pair), np.int64)
    turn[by_pair] = np.arange(len(pair)) - np.repeat(starts, sizes)
    return np.argsort(-(entropy / (turn + 1.0)), kind="stable")
