"""The fused batch normalisation against Keras' own."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.models import FusedBatchNorm


def made(kind: type[keras.layers.BatchNormalization]) -> Any:
    layer = kind(momentum=0.9, epsilon=1e-3)
    layer.build((None, 3, 5, 4))
    for number, variable in enumerate(layer.weights):
        variable.assign(tf.random.stateless_uniform(variable.shape, [number, 1], 0.5, 2.0))
    return layer


def images(seed: int) -> tf.Tensor:
    return tf.random.stateless_normal([7, 3, 5, 4], [seed, 2], mean=3.0, stddev=2.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_outputs_gradients_and_statistics_are_those_of_keras(training: bool, trainable: bool) -> None:
    results = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNorm):
        layer, inputs = made(kind), images(0)
        layer.trainable = trainable
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
            loss = tf.reduce_sum(outputs * images(1))
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        results.append([outputs, *gradients, *layer.non_trainable_variables])
    assert len(results[0]) == len(results[1]) >= 4
    for keras_value, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours.numpy(), keras_value.numpy(), rtol=2e-4, atol=2e-4)


def test_bfloat16_networks_normalise_in_float32_as_keras_does() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        ours, theirs = (
            kind_layer(tf.cast(images(0), tf.bfloat16), training=True)
            for kind_layer in (made(FusedBatchNorm), made(keras.layers.BatchNormalization))
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert ours.dtype == theirs.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(ours, tf.float32), tf.cast(theirs, tf.float32), atol=0.02)
