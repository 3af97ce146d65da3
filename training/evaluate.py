"""Accuracy of D's classifier head on images that training never sees."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from prelabel.images import Pixels
from training.dataset import Evaluation
from training.state import to_network_range

BATCH = 500


class Classifier:
    """D's classifier head, compiled once for one batch size."""

    def __init__(self, discriminator: keras.Model) -> None:
        @tf.function
        def classify(batch: tf.Tensor) -> tf.Tensor:
            return tf.argmax(discriminator(to_network_range(batch), training=False)[0], axis=-1)

        self._classify = classify

    def labels(self, images: Pixels) -> NDArray[np.int64]:
        """Returns the most probable class, int64 [n], of images uint8 [n, H, W, C]."""
        # The last batch is filled up and cut, so that there is one shape only.
        padded = np.concatenate([images, np.repeat(images[:1], -len(images) % BATCH, axis=0)])
        chunks = [self._classify(tf.constant(padded[i : i + BATCH])).numpy() for i in range(0, len(padded), BATCH)]
        return np.concatenate(chunks)[: len(images)]

    def accuracy(self, evaluation: Evaluation, limit: int | None = None) -> float:
        """Returns the share of right labels, 0..1, over all images or over `limit` of them, evenly spread."""
        count = len(evaluation.labels)
        chosen = np.linspace(0, count - 1, min(count, limit or count)).round().astype(np.int64)
        predicted = self.labels(evaluation.images[chosen])
        return float((predicted == evaluation.labels[chosen]).mean())
