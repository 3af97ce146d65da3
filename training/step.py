"""One training step: D on labelled (x, y); D on unlabelled x and generated G(z); then G.

Nothing here touches `trainable`: each update applies gradients to the variables of one network, and every call says
`training=`. Whose batch statistics move is as explicit: `call_frozen_statistics` uses those of the batch, as training
does, and leaves the moving ones alone. D's move with real images in D's updates, because D will classify real images;
G's move in G's update. ARCHITECTURE.md tells why that matters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from training import losses
from training.augment import VIEWS, Kind, random_view
from training.config import Recipe
from training.dataset import TrainingSet
from training.models import build_discriminator, build_generator

Metrics = dict[str, tf.Tensor]
ALIGNMENT_DECAY = 0.99
"""The mean of the pseudo-labels is averaged over about 100 steps."""


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
        }


def build_state(data: TrainingSet, recipe: Recipe, seed: int) -> State:
    """Builds networks and optimizers with seeded initial weights."""
    class_count = len(data.classes)
    discriminator = build_discriminator(data.spec, class_count, recipe, seed)
    teacher = build_discriminator(data.spec, class_count, recipe, seed)
    generator = build_generator(data.spec, recipe, seed + 1) if recipe.generated_batch else None

    def optimizer(learning_rate: float, model: keras.Model | None) -> keras.optimizers.Optimizer:
        schedule: Any = learning_rate
        if recipe.schedule == "cosine":
            schedule = keras.optimizers.schedules.CosineDecay(learning_rate, recipe.steps)
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
        pseudo_label_mean=tf.Variable(tf.fill([class_count], 1.0 / class_count), name="pseudo_label_mean"),
    )


def call_frozen_statistics(model: keras.Model, inputs: tf.Tensor) -> Any:
    """Calls a network in training mode, with the batch's own statistics, and throws its state updates away."""
    trainable = [variable.value for variable in model.trainable_variables]
    other = [variable.value for variable in model.non_trainable_variables]
    outputs, _ = model.stateless_call(trainable, other, inputs, training=True)
    return outputs


def make_step(state: State, data: TrainingSet, recipe: Recipe, kind: Kind, seed: int) -> Callable[..., Metrics]:
    """Returns the compiled step.

    It takes (labelled, unlabelled, step): positions int64 [B] in the data's arrays and the step's number, int32 scalar.
    It returns float32 scalars by name, those of `metric_names`.
    """
    labelled_images, unlabelled_images = tf.constant(data.labelled), tf.constant(data.unlabelled)
    labels = tf.constant(data.labels)
    counts = tf.math.bincount(labels, minlength=len(data.classes), dtype=tf.float32)
    prior = (counts + 1.0) / tf.reduce_sum(counts + 1.0)  # as labelled, without zeros
    weak, strong = VIEWS[kind]

    @tf.function(reduce_retracing=True)
    def step(labelled: tf.Tensor, unlabelled: tf.Tensor, number: tf.Tensor) -> Metrics:
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int32), number]), 5)
        x, y = to_network_range(tf.gather(labelled_images, labelled)), tf.gather(labels, labelled)
        if recipe.augment:
            x = random_view(x, strong, kind, seeds[0])
        if not recipe.unlabelled_batch:
            metrics = update_supervised(state, x, y)
        else:
            u = to_network_range(tf.gather(unlabelled_images, unlabelled))
            pseudo_labels = None
            if recipe.consistency_weight:
                pseudo_labels = make_pseudo_labels(state, random_view(u, weak, kind, seeds[1]), prior, recipe)
            if recipe.augment:
                u = random_view(u, strong, kind, seeds[2])
            z = tf.random.stateless_normal([recipe.generated_batch, recipe.latent_size], seeds[3])
            if recipe.fused:
                metrics, real_features = update_fused(state, x, y, u, pseudo_labels, z, number, recipe)
            else:
                metrics = update_supervised(state, x, y)
                unsupervised, real_features = update_unsupervised(state, u, z, recipe)
                metrics |= unsupervised
            if state.generator is not None:
                z = tf.random.stateless_normal([recipe.generated_batch, recipe.latent_size], seeds[4])
                metrics |= update_generator(state, z, real_features, recipe)
        move_teacher(state, number, recipe)
        return metrics

    return step


def to_network_range(images: tf.Tensor) -> tf.Tensor:
    """Brings uint8 [B, H, W, C], 0..255, to float32, -1..1; export puts the same formula into the graph."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def update_supervised(state: State, x: tf.Tensor, y: tf.Tensor) -> Metrics:
    """D on labelled (x, y)."""
    variables = state.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        logits, _ = state.discriminator(x, training=True)
        loss = losses.supervised_loss(logits, y)
    state.discriminator_optimizer.apply(tape.gradient(loss, variables), variables)
    return {"loss_supervised": loss, "labelled_accuracy": _accuracy(logits, y)}


def update_unsupervised(state: State, u: tf.Tensor, z: tf.Tensor, recipe: Recipe) -> tuple[Metrics, tf.Tensor]:
    """D on unlabelled x and on generated G(z); returns D's features of the real images, too."""
    fakes = call_frozen_statistics(state.generator, z)
    variables = state.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        real_logits, real_features = state.discriminator(u, training=True)
        fake_logits, _ = call_frozen_statistics(state.discriminator, fakes)
        loss = losses.unsupervised_loss(real_logits, fake_logits)
        weighted = recipe.unsupervised_weight * loss
    state.unsupervised_optimizer.apply(tape.gradient(weighted, variables), variables)
    return {"loss_unsupervised": loss, **_real_and_fake(real_logits, fake_logits)}, real_features


def update_fused(
    state: State,
    x: tf.Tensor,
    y: tf.Tensor,
    u: tf.Tensor,
    pseudo_labels: tf.Tensor | None,
    z: tf.Tensor,
    number: tf.Tensor,
    recipe: Recipe,
) -> tuple[Metrics, tf.Tensor]:
    """Both D updates as one, on the sum of their losses.

    Labelled and unlabelled images go through D as one batch, so that they share its statistics; generated ones go
    through as a batch of their own and move none.
    """
    sizes = [recipe.labelled_batch, recipe.unlabelled_batch]
    fakes = None if state.generator is None else call_frozen_statistics(state.generator, z)
    variables = state.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        logits, features = state.discriminator(tf.concat([x, u], axis=0), training=True)
        parts = tf.split(logits, sizes)
        supervised = losses.supervised_loss(parts[0], y)
        total = supervised
        metrics = {"loss_supervised": supervised, "labelled_accuracy": _accuracy(parts[0], y)}
        if pseudo_labels is not None:
            consistency = losses.consistency_loss(pseudo_labels, parts[1])
            ramp = tf.minimum(1.0, tf.cast(number, tf.float32) / max(1, recipe.consistency_ramp_steps))
            total += recipe.consistency_weight * ramp * consistency
            metrics["loss_consistency"] = consistency
            metrics["pseudo_confidence"] = tf.reduce_mean(tf.reduce_max(pseudo_labels, axis=-1))
        if fakes is not None:
            fake_logits, _ = call_frozen_statistics(state.discriminator, fakes)
            unsupervised = losses.unsupervised_loss(parts[1], fake_logits)
            total += recipe.unsupervised_weight * unsupervised
            metrics |= {"loss_unsupervised": unsupervised, **_real_and_fake(parts[1], fake_logits)}
    state.discriminator_optimizer.apply(tape.gradient(total, variables), variables)
    return metrics, tf.split(features, sizes)[1]


def update_generator(state: State, z: tf.Tensor, real_features: tf.Tensor, recipe: Recipe) -> Metrics:
    """G against the D that was just updated."""
    assert state.generator is not None
    variables = state.generator.trainable_variables
    with tf.GradientTape() as tape:
        fakes = state.generator(z, training=True)
        fake_logits, fake_features = call_frozen_statistics(state.discriminator, fakes)
        if recipe.generator_loss == "adversarial":
            loss = losses.adversarial_loss(fake_logits)
        else:
            loss = losses.feature_matching_loss(tf.stop_gradient(real_features), fake_features)
    state.generator_optimizer.apply(tape.gradient(loss, variables), variables)
    return {"loss_generator": loss}


def make_pseudo_labels(state: State, weak_views: tf.Tensor, prior: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """Returns the teacher's soft labels, float32 [B, K]: aligned with the class prior, then sharpened."""
    logits, _ = state.teacher(weak_views, training=False)
    probabilities = tf.nn.softmax(logits)
    if recipe.align:
        mean = state.pseudo_label_mean
        mean.assign(ALIGNMENT_DECAY * mean + (1.0 - ALIGNMENT_DECAY) * tf.reduce_mean(probabilities, axis=0))
        probabilities = losses.align(probabilities, prior, mean)
    return losses.sharpen(probabilities, recipe.temperature)


def move_teacher(state: State, number: tf.Tensor, recipe: Recipe) -> None:
    """Moves the teacher's weights towards D's. Batch statistics, averages already, are taken over as they are."""
    t = tf.cast(number, tf.float32)
    # The second term lets the average warm up: a constant .999 would still hold initial weights after 1,000 steps.
    decay = tf.minimum(recipe.ema_decay, (1.0 + t) / (10.0 + t))
    for average, variable in zip(state.teacher.variables, state.discriminator.variables, strict=True):
        if variable.trainable:
            average.assign(decay * average + (1.0 - decay) * variable)
        elif variable.dtype == "float32":  # a random generator's state is no statistic
            average.assign(variable)


def _accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32))


def _real_and_fake(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> Metrics:
    return {
        "realness_real": tf.reduce_mean(losses.realness(real_logits)),
        "realness_fake": tf.reduce_mean(losses.realness(fake_logits)),
    }
