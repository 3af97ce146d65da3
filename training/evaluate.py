"""Accuracy of D's classifier head on images that training never sees."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from prelabel.images import Pixels
from training.dataset import Evaluation
from training.spread import evenly_spread
from training.state import to_network_range

BATCH = 500


class Classifier:
    """D's classifier head, compiled once for one batch size."""

    def __init__(self, discriminator: keras.Model) -> None:
        @tf.function
        def classify(batch: tf.Tensor) -> tf.Tensor:
            return tf.argmax(discriminator(to_network_range(batch), training=False)[0], axis=-1)

        self._classify = classify

    def labels(self, images: Pixels, chosen: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Returns the most probable class, int64 [n], of images uint8 [N, H, W, C]: of all, or of those at `chosen`."""
        places = np.arange(len(images)) if chosen is None else chosen
        # The last batch is filled up and cut, so that there is one shape only. One batch is copied at a time: beside
        # what training holds, a pile may not fit into the memory once more.
        padded = np.concatenate([places, np.repeat(places[:1], -len(places) % BATCH)])
        batches = (images[padded[i : i + BATCH]] for i in range(0, len(padded), BATCH))
        return np.concatenate([self._classify(tf.constant(batch)).numpy() for batch in batches])[: len(places)]

    def accuracy(self, evaluation: Evaluation, limit: int | None = None) -> float:
        """Returns the share of right labels, 0..1, over all images or over `limit` of them, evenly spread."""
        count = len(evaluation.labels)
        chosen = evenly_spread(count, limit or count)
        predicted = self.labels(evaluation.images, chosen)
        return float((predicted == evaluation.labels[chosen]).mean())
