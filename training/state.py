"""Every variable of a run, and the two things that move without a gradient: averaged weights, settled statistics."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from prelabel.images import Pixels
from training.dataset import TrainingSet
from training.models import build_discriminator, build_generator
from training.recipe import Recipe
from training.spread import evenly_spread

SETTLE_IMAGES, SETTLE_BATCH = 4096, 512
"""Images, and images in a batch, from which the averaged D's batch statistics are taken."""


@dataclass(frozen=True)
class State:
    """Every variable of a run."""

    discriminator: keras.Model
    teacher: keras.Model
    """D with the moving average of D's weights: makes pseudo-labels, is evaluated and exported."""
    generator: keras.Model | None
    discriminator_optimizer: keras.optimizers.Optimizer
    unsupervised_optimizer: keras.optimizers.Optimizer
    """Of D's second update, where the updates are not fused: the two losses differ too much to share moments."""
    generator_optimizer: keras.optimizers.Optimizer
    pseudo_label_mean: tf.Variable
    """float32 [K]: moving average of the pseudo-labels before alignment."""
    joint_mean: tf.Variable
    """float32 [K, K]: moving average of the joint distribution of two views' classes."""
    class_mean: tf.Variable
    """float32 [K]: slow moving average of the classes that D gives the pile."""
    seen_accuracy: tf.Variable
    """float32 scalar, 0..1: moving average of D's accuracy on the labelled images (`training.trust`)."""
    total_steps: tf.Variable
    """int32: steps of the whole run; the recipe's, or what `--minutes` leaves time for."""

    def variables(self) -> dict[str, list[Any]]:
        """Returns all variables by owner, in a fixed order, random states and optimizer moments included."""
        return {
            "discriminator": list(self.discriminator.variables),
            "teacher": list(self.teacher.variables),
            "generator": list(self.generator.variables) if self.generator else [],
            "discriminator_optimizer": list(self.discriminator_optimizer.variables),
            "unsupervised_optimizer": list(self.unsupervised_optimizer.variables),
            "generator_optimizer": list(self.generator_optimizer.variables),
            "pseudo_label_mean": [self.pseudo_label_mean],
            "joint_mean": [self.joint_mean],
            "class_mean": [self.class_mean],
            "seen_accuracy": [self.seen_accuracy],
            "total_steps": [self.total_steps],
        }


def build_state(data: TrainingSet, recipe: Recipe, seed: int) -> State:
    """Builds networks and optimizers with seeded initial weights."""
    class_count = len(data.classes)
    discriminator = build_discriminator(data.spec, class_count, recipe, seed)
    teacher = build_discriminator(data.spec, class_count, recipe, seed)
    generator = build_generator(data.spec, recipe, seed + 1) if recipe.generated_batch else None
    total_steps = tf.Variable(recipe.steps, name="total_steps", trainable=False)

    def optimizer(learning_rate: float, model: keras.Model | None) -> keras.optimizers.Optimizer:
        schedule: Any = learning_rate
        if recipe.schedule == "cosine":
            schedule = CosineDecay(learning_rate, total_steps)
        adam = keras.optimizers.Adam(schedule, beta_1=recipe.adam_beta_1)
        if model is not None:
            adam.build(model.trainable_variables)
        return adam

    return State(
        discriminator=discriminator,
        teacher=teacher,
        generator=generator,
        discriminator_optimizer=optimizer(recipe.learning_rate, discriminator),
        unsupervised_optimizer=optimizer(recipe.learning_rate, None if recipe.fused else discriminator),
        generator_optimizer=optimizer(recipe.generator_learning_rate, generator),
        pseudo_label_mean=_statistic(tf.fill([class_count], 1.0 / class_count), "pseudo_label_mean"),
        joint_mean=_statistic(tf.fill([class_count, class_count], 1.0 / class_count**2), "joint_mean"),
        class_mean=_statistic(tf.fill([class_count], 1.0 / class_count), "class_mean"),
        seen_accuracy=_statistic(tf.constant(1.0 / class_count), "seen_accuracy"),
        total_steps=total_steps,
    )


def _statistic(initial: tf.Tensor, name: str) -> tf.Variable:
    """A variable that every replica sets to the same value."""
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(initial, name=name, trainable=False, aggregation=first)


class CosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """From `initial` to 0 along half a cosine over a number of steps that may still change (Loshchilov 2017)."""

    def __init__(self, initial: float, total_steps: tf.Variable) -> None:
        self._initial, self._total_steps = initial, total_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the step size of a step, float32 scalar."""
        done = tf.cast(step, tf.float32) / tf.cast(self._total_steps, tf.float32)
        return 0.5 * self._initial * (1.0 + tf.cos(np.pi * tf.minimum(done, 1.0)))

    def get_config(self) -> dict[str, Any]:
        """Returns what the schedule is made of."""
        return {"initial": self._initial, "total_steps": int(self._total_steps)}


def call_frozen_statistics(model: keras.Model, inputs: tf.Tensor) -> Any:
    """Calls a network in training mode, with the batch's own statistics, and throws its state updates away."""
    trainable = [variable.value for variable in model.trainable_variables]
    other = [variable.value for variable in model.non_trainable_variables]
    outputs, _ = model.stateless_call(trainable, other, inputs, training=True)
    return outputs


def move_teacher(state: State, number: tf.Tensor, recipe: Recipe) -> None:
    """Moves the teacher's weights towards D's; without an average it is a copy of D, batch statistics included."""
    t = tf.cast(number, tf.float32)
    # The second term lets the average warm up: a constant .999 would still hold initial weights after 1,000 steps.
    decay = tf.minimum(recipe.ema_decay, (1.0 + t) / (10.0 + t))
    for average, variable in zip(state.teacher.variables, state.discriminator.variables, strict=True):
        if variable.trainable:
            average.assign(decay * average + (1.0 - decay) * variable)
        elif variable.dtype == "float32" and not recipe.ema_decay:  # a random generator's state is no statistic
            average.assign(variable)


class Settler:
    """Gives a network of averaged weights batch statistics of its own (Izmailov et al. 2018, section 3.2).

    Those of the student belong to other weights: with them, an averaged D loses several points in mid-run.
    """

    def __init__(self, model: keras.Model, images: Pixels) -> None:
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        self._statistics = [(v, layer.momentum) for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
        chosen = evenly_spread(len(images), SETTLE_IMAGES)
        self._batches = np.array_split(images[chosen], -(-len(chosen) // SETTLE_BATCH))
        places = {id(v): place for place, v in enumerate(model.non_trainable_variables)}
        wanted = [places[id(v)] for v, _ in self._statistics]

        @tf.function(reduce_retracing=True)
        def moved(batch: tf.Tensor) -> list[tf.Tensor]:
            trainable = [v.value for v in model.trainable_variables]
            from_zero = [tf.zeros_like(v) if v.dtype == "float32" else v.value for v in model.non_trainable_variables]
            _, after = model.stateless_call(trainable, from_zero, to_network_range(batch), training=True)
            return [after[place] for place in wanted]

        self._moved = moved

    def settle(self) -> None:
        """Sets the moving statistics to the means of the batches' statistics under the present weights."""
        if not self._statistics:
            return
        results = [self._moved(tf.constant(batch)) for batch in self._batches]
        for (variable, momentum), values in zip(self._statistics, zip(*results, strict=True), strict=True):
            # From zero, a layer moves by (1 - momentum) times the batch's statistic.
            variable.assign(tf.add_n(values) / (len(values) * (1.0 - momentum)))


def to_network_range(images: tf.Tensor) -> tf.Tensor:
    """Brings uint8 [B, H, W, C], 0..255, to float32, -1..1; export puts the same formula into the graph."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0
