"""Virtual adversarial training (Miyato et al. 2018): the small change of an image that changes D's answer most."""

from collections.abc import Callable

import tensorflow as tf

SEARCH_RADIUS = 0.036
"""Root mean square of the random change from which the direction is searched: .18 of the default radius."""


def adversarial_views(
    classify: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, logits: tf.Tensor, radius: float, noise: tf.Tensor
) -> tf.Tensor:
    """Returns images float32 [B, H, W, C], moved by `radius` in the direction that changes their classes most.

    One power iteration (section 3.3): the gradient of the cross-entropy between the classes of an image, from `logits`
    float32 [B, K], and those of a copy changed a little along `noise`, normal float32 [B, H, W, C]. `radius` is a root
    mean square over an image's values, so that it means the same for each image size.
    """
    targets = tf.stop_gradient(tf.nn.softmax(logits))
    change = SEARCH_RADIUS * _normalised(noise)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(change)
        answers = classify(images + change)
        # A sum, not a mean: each image's gradient must not depend on how many others there are.
        difference = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(targets, answers))
    return tf.stop_gradient(images + radius * _normalised(tape.gradient(difference, change)))


def _normalised(values: tf.Tensor) -> tf.Tensor:
    """Scales each of B arrays to a root mean square of 1."""
    return values * tf.math.rsqrt(tf.reduce_mean(tf.square(values), axis=[1, 2, 3], keepdims=True) + 1e-20)
