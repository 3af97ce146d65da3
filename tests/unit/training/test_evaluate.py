"""The classes that D names, of all images and of some."""

import keras
import numpy as np
import pytest

from training import evaluate
from training.dataset import Evaluation
from training.evaluate import Classifier

CLASSES = 4


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """Takes an image's value / 50 for its class, in batches of 8."""
    monkeypatch.setattr(evaluate, "BATCH", 8)
    image = keras.Input((16, 16, 1))
    value = (keras.layers.GlobalAveragePooling2D()(image) + 1.0) * 127.5 / 50.0
    return Classifier(keras.Model(image, [-keras.ops.abs(value - np.arange(CLASSES, dtype=np.float32)), value]))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_images_have_the_class_that_they_have_alone(classifier: Classifier, count: int) -> None:
    classes = np.random.default_rng(0).integers(0, CLASSES, count)
    images = np.broadcast_to(50 * classes[:, None, None, None], (count, 16, 16, 1)).astype(np.uint8)
    np.testing.assert_array_equal(classifier.labels(images), classes)
    chosen = np.arange(count)[::-3]
    np.testing.assert_array_equal(classifier.labels(images, chosen), classes[chosen])
    assert classifier.accuracy(Evaluation(images, classes.astype(np.int32))) == 1.0


def test_a_limit_looks_at_so_many_from_first_to_last(classifier: Classifier) -> None:
    images = np.zeros((9, 16, 16, 1), np.uint8)
    labels = np.array([0, 1, 1, 1, 0, 1, 1, 1, 0], np.int32)
    assert classifier.accuracy(Evaluation(images, labels)) == pytest.approx(3 / 9)
    assert classifier.accuracy(Evaluation(images, labels), 3) == 1.0
