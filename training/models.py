"""Discriminator and generator of both architectures. B images, H W C pixels, K classes, Z latent entries, F features.

Images inside the networks are float32, -1..1. D has one trunk and returns (logits float32 [B, K], features float32
[B, F]); both heads are functions of the logits (training.losses).
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from prelabel.images import ImageSpec
from training.recipe import Recipe


@keras.saving.register_keras_serializable("prelabel")
class FixedFlatten(layers.Layer):
    """Flattens [B, h, w, c] by sizes known when the network is built.

    Keras' own Flatten exports to eight ONNX nodes that compute the shape anew for each batch.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Notes the number of entries per image."""
        self.entries = 1
        for size in input_shape[1:]:
            assert size is not None
            self.entries *= size

    def call(self, inputs: Any) -> Any:
        """Returns [B, h * w * c]."""
        return keras.ops.reshape(inputs, (-1, self.entries))


@keras.saving.register_keras_serializable("prelabel")
class WeightNormConv2D(layers.Layer):
    """A convolution whose kernel is gain * direction / ||direction|| for each filter (Salimans and Kingma 2016, eq. 2).

    The gains start as the norms, so that the first kernel is the initial direction.
    """

    def __init__(self, filters: int, kernel: int, stride: int, initial: keras.initializers.Initializer) -> None:
        super().__init__()
        self.filters, self.size, self.stride, self.initial = filters, kernel, stride, initial

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights."""
        shape = (self.size, self.size, input_shape[-1], self.filters)
        self.direction = self.add_weight(shape=shape, initializer=self.initial, name="direction")
        self.gain = self.add_weight(shape=(self.filters,), initializer="ones", name="gain")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        self.gain.assign(self._norms())

    def kernel(self) -> Any:
        """Returns the kernel that the convolution takes, float32 [h, w, in, out]."""
        return self.direction * (self.gain / self._norms())

    def call(self, inputs: Any) -> Any:
        """Returns [B, h, w, filters]."""
        kernel = keras.ops.cast(self.kernel(), inputs.dtype)
        moved = keras.ops.conv(inputs, kernel, self.stride, "same", data_format="channels_last")
        return moved + keras.ops.cast(self.bias, inputs.dtype)

    def _norms(self) -> Any:
        return keras.ops.sqrt(keras.ops.sum(keras.ops.square(self.direction), axis=(0, 1, 2)))


@keras.saving.register_keras_serializable("prelabel")
class FusedBatchNorm(layers.BatchNormalization):
    """Keras' batch normalisation of [B, h, w, c], as one operation instead of a dozen where it is in training mode.

    The numbers and the variables are Keras' own; on a CPU a training step takes a tenth less processor time with it.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Returns [B, h, w, c]; as in Keras, `trainable = False` is inference mode."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32),
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation gives the variance of a sample; Keras averages that of the batch itself.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1.0) / count
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)


def fold_weight_norm(discriminator: keras.Model, spec: ImageSpec, class_count: int, recipe: Recipe) -> keras.Model:
    """Returns the same D with plain convolutions where they were weight-normalised: one kernel each, as exported."""
    if recipe.norm != "weight":
        return discriminator
    plain = build_discriminator(spec, class_count, dataclasses.replace(recipe, norm="none"), seed=0)
    sources = [layer for layer in discriminator.layers if layer.weights]
    targets = [layer for layer in plain.layers if layer.weights]
    for source, target in zip(sources, targets, strict=True):
        if isinstance(source, WeightNormConv2D):
            target.set_weights([source.kernel(), source.bias])
        else:
            target.set_weights(source.get_weights())
    return plain


def build_discriminator(spec: ImageSpec, class_count: int, recipe: Recipe, seed: int) -> keras.Model:
    """Returns D: images float32 [B, H, W, C], -1..1 -> (logits [B, K], features [B, F])."""
    images = keras.Input(spec.shape, name="images")
    net = _Seeded(seed, weight_norm=recipe.norm == "weight")
    if recipe.architecture == "book":
        # Chapter 7: three convolutions of stride 2; batch normalisation in all but the first.
        x = images
        for position, filters in enumerate((32, 64, 128)):
            x = net.conv(filters, 3, 2)(x)
            if recipe.norm == "batch" and position > 0:
                x = net.batch_norm(0.99, 1e-3)(x)
            x = layers.LeakyReLU(negative_slope=0.01)(x)
        x = net.dropout(recipe.dropout)(x)
        features = FixedFlatten(name="features", dtype="float32")(x)
    else:
        x = images
        for filters, kernel, stride in ((32, 5, 2), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1)):
            x = net.conv(max(8, round(recipe.width * filters)), kernel, stride)(x)
            if recipe.norm == "batch":
                x = net.batch_norm(0.9, 1e-5)(x)
            x = layers.LeakyReLU(negative_slope=0.1)(x)
        pool = tuple(-(-side // recipe.feature_grid) for side in x.shape[1:3])
        if pool != (1, 1):
            x = layers.AveragePooling2D(pool, padding="same")(x)
        features = FixedFlatten(name="features", dtype="float32")(x)
        x = net.dropout(recipe.dropout)(features) if recipe.dropout else features
        return keras.Model(images, (net.dense(class_count, "logits")(x), features), name="discriminator")
    return keras.Model(images, (net.dense(class_count, "logits")(features), features), name="discriminator")


def build_generator(spec: ImageSpec, recipe: Recipe, seed: int) -> keras.Model:
    """Returns G: latent float32 [B, Z], normal -> images float32 [B, H, W, C], -1..1.

    Grows from a quarter of H x W (7 x 7 for MNIST) and crops what rounding up made too large.
    """
    latent = keras.Input((recipe.latent_size,), name="latent")
    net = _Seeded(seed)
    height, width = -(-spec.height // 4), -(-spec.width // 4)
    start, middle, last = (256, 128, 64) if recipe.architecture == "book" else (64, 32, 16)
    slope = 0.01 if recipe.architecture == "book" else 0.1
    x = net.dense(height * width * start, "project")(latent)
    x = layers.Reshape((height, width, start))(x)
    if recipe.architecture == "deep":
        x = net.batch_norm(0.99, 1e-3)(x)
        x = layers.LeakyReLU(negative_slope=slope)(x)
    # A kernel of twice the stride covers each pixel equally often: one of 3 draws a chequered pattern.
    kernel = 3 if recipe.architecture == "book" else 4
    for filters, stride in ((middle, 2), (last, 1)):
        x = net.transposed(filters, kernel if stride == 2 else 3, stride)(x)
        x = net.batch_norm(0.99, 1e-3)(x)
        x = layers.LeakyReLU(negative_slope=slope)(x)
    x = net.transposed(spec.channels, kernel, 2)(x)
    x = layers.Activation("tanh", dtype="float32")(x)
    top, left = (4 * height - spec.height) // 2, (4 * width - spec.width) // 2
    if (4 * height, 4 * width) != (spec.height, spec.width):
        bottom, right = 4 * height - spec.height - top, 4 * width - spec.width - left
        x = layers.Cropping2D(((top, bottom), (left, right)), dtype="float32")(x)
    return keras.Model(latent, x, name="generator")


class _Seeded:
    """Makes layers whose initial weights depend on the seed and on the order in which they are made."""

    def __init__(self, seed: int, weight_norm: bool = False) -> None:
        self._seed, self._weight_norm = seed * 1000, weight_norm

    def _next(self) -> int:
        self._seed += 1
        return self._seed

    def conv(self, filters: int, kernel: int, stride: int) -> layers.Layer:
        initial = keras.initializers.GlorotUniform(self._next())
        if self._weight_norm:
            return WeightNormConv2D(filters, kernel, stride, initial)
        return layers.Conv2D(filters, kernel, stride, "same", kernel_initializer=initial)

    def transposed(self, filters: int, kernel: int, stride: int) -> layers.Layer:
        initial = keras.initializers.GlorotUniform(self._next())
        return layers.Conv2DTranspose(filters, kernel, stride, "same", kernel_initializer=initial)

    def dense(self, units: int, name: str) -> layers.Layer:
        # Logits are float32 whatever the convolutions compute in: losses take differences and logarithms of them.
        initial = keras.initializers.GlorotUniform(self._next())
        return layers.Dense(units, kernel_initializer=initial, name=name, dtype="float32" if name == "logits" else None)

    def batch_norm(self, momentum: float, epsilon: float) -> layers.Layer:
        # Over all replicas: what a batch's statistics are should not depend on the number of devices.
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return layers.BatchNormalization(momentum=momentum, epsilon=epsilon, synchronized=True)
        return FusedBatchNorm(momentum=momentum, epsilon=epsilon)

    def dropout(self, rate: float) -> layers.Layer:
        return layers.Dropout(rate, seed=self._next())
