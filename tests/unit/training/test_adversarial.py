import numpy as np
import pytest
import tensorflow as tf

from training.adversarial import adversarial_views


def linear(weights: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda images: tf.reshape(images, [tf.shape(images)[0], -1]) @ tf.constant(weights, tf.float32)


def normal(images, seed: int) -> tf.Tensor:  # type: ignore[no-untyped-def]
    return tf.random.stateless_normal(tf.shape(images), [0, seed])


@pytest.mark.parametrize("radius", [0.05, 0.3])
def test_each_image_moves_by_the_radius_whatever_its_size(radius: float) -> None:
    generator = np.random.default_rng(0)
    for shape in ((8, 8, 1), (12, 10, 3)):
        images = tf.constant(generator.uniform(-1, 1, (5, *shape)), tf.float32)
        classify = linear(generator.normal(size=(int(np.prod(shape)), 3)))
        moved = adversarial_views(classify, images, classify(images), radius, normal(images, 1))
        change = (moved - images).numpy()
        np.testing.assert_allclose(np.sqrt((change**2).mean(axis=(1, 2, 3))), radius, rtol=1e-3)


def test_the_direction_changes_the_answer_more_than_chance_does() -> None:
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(64, 2))
    images = tf.constant(generator.uniform(-1, 1, (16, 8, 8, 1)), tf.float32)
    classify = linear(weights)
    moved = adversarial_views(classify, images, classify(images), 0.1, normal(images, 2))
    change = np.reshape((moved - images).numpy(), (16, -1))
    boundary = weights[:, 0] - weights[:, 1]  # the only direction in which two classes change
    cosine = np.abs(change @ boundary) / (np.linalg.norm(change, axis=1) * np.linalg.norm(boundary))
    np.testing.assert_allclose(cosine, 1, atol=1e-3)


def test_no_gradient_flows_through_the_search() -> None:
    images = tf.Variable(np.random.default_rng(2).uniform(-1, 1, (2, 8, 8, 1)), dtype=tf.float32)
    classify = linear(np.random.default_rng(3).normal(size=(64, 3)))
    with tf.GradientTape() as tape:
        moved = adversarial_views(classify, images, classify(images), 0.1, normal(images, 3))
    assert tape.gradient(moved, images) is None
