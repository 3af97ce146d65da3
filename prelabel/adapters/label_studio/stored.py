"""Predictions that were made before, looked up by the image's id: 24 bytes of memory an image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.adapters.label_studio.ids import IdIndex, check_ids, hash_of
from prelabel.adapters.rows import Predictions

NO_LABEL = -1


@dataclass(frozen=True)
class Stored:
    """The predictions of one model for N images."""

    model_id: str
    """The model."""
    classes: tuple[str, ...]
    """K class names in label order."""
    rows: IdIndex
    """Id of an image -> its row."""
    label: NDArray[np.int32]
    """int32 [N], 0..K-1, or `NO_LABEL` in error rows."""
    confidence: NDArray[np.float32]
    """float32 [N], 0..1, NaN in error rows."""


def load_stored(predictions: Predictions) -> Stored:
    """Reads the ids, labels and confidences of predictions, a thousand rows at a time.

    Raises:
        InputError: As `Predictions.rows`; or an id occurs twice.
    """
    check_ids(predictions.directory)
    classes, count = predictions.info.classes, predictions.rows_in_all
    index_of = {name: k for k, name in enumerate(classes)}
    hashes, label = np.empty(count, np.uint64), np.full(count, NO_LABEL, np.int32)
    confidence = np.full(count, np.nan, np.float32)
    for row in predictions.rows(probabilities=False):
        hashes[row.position] = hash_of(row.id)
        if row.label is not None:
            label[row.position], confidence[row.position] = index_of[row.label], row.confidence
    rows = IdIndex(hashes, np.arange(count, dtype=np.int64))
    return Stored(predictions.info.model_id, classes, rows, label, confidence)
