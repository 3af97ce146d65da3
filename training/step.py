"""One training step: D on labelled (x, y); D on unlabelled x and generated G(z); then G.

Nothing here touches `trainable`: each update applies gradients to the variables of one network, and every call says
`training=`. Whose batch statistics move is as explicit: `call_frozen_statistics` uses those of the batch, as training
does, and leaves the moving ones alone. D's move with real images in D's updates, because D will classify real images;
G's move in G's update. ARCHITECTURE.md tells why that matters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from training import losses
from training.adversarial import adversarial_views
from training.augment import VIEWS, Kind, random_view, view_strength
from training.dataset import TrainingSet
from training.distribute import mean_over_replicas, part_of_loss, share
from training.prior import class_prior as make_class_prior
from training.recipe import Recipe
from training.state import State, call_frozen_statistics, move_teacher, to_network_range
from training.trust import note_accuracy, pile_ramp, pile_trust

Metrics = dict[str, tf.Tensor]
ALIGNMENT_DECAY = 0.99
"""The mean of the pseudo-labels is averaged over about 100 steps."""
INFORMATION_DECAY = 0.9
"""The joint distribution of two views' classes is averaged over about 10 steps."""
CLASS_DECAY = 0.995
"""The classes of the pile are averaged over about 200 steps."""
ESTIMATE_FROM, ESTIMATE_TO = 0.2, 0.4
"""Shares of the run between which an estimated class prior takes over."""


def make_step(
    state: State,
    data: TrainingSet,
    recipe: Recipe,
    kind: Kind,
    seed: int,
    class_prior: str = "balanced",
    pile_worth: float | None = None,
) -> Callable[..., Metrics]:
    """Returns the compiled step; `class_prior` as in `Options`, `pile_worth` as `training.trust.pile_trust`'s `most`.

    Without a `pile_worth` the pile's losses grow to their whole weight over `Recipe.pile_ramp`.

    It takes (labelled, unlabelled, step): positions int64 [B] in the data's arrays and the step's number, int32 scalar.
    It returns float32 scalars by name: columns of metrics.csv (training.recorder.COLUMNS).
    """
    labelled_images, unlabelled_images = tf.constant(data.labelled), tf.constant(data.unlabelled)
    labels = tf.constant(data.labels)
    given_prior = tf.constant(make_class_prior(class_prior, data.classes, data.labels))
    weak, strong = VIEWS[kind]

    strategy = tf.distribute.get_strategy()

    @tf.function(reduce_retracing=True)
    def step(labelled: tf.Tensor, unlabelled: tf.Tensor, number: tf.Tensor) -> Metrics:
        metrics = strategy.run(replica_step, (labelled, unlabelled, number))
        return {name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None) for name, value in metrics.items()}

    def replica_step(labelled: tf.Tensor, unlabelled: tf.Tensor, number: tf.Tensor) -> Metrics:
        # The whole batch's views, then this replica's share: random numbers do not depend on the number of devices.
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int32), number]), 6)
        x, y = to_network_range(tf.gather(labelled_images, labelled)), tf.gather(labels, labelled)
        done = tf.cast(number, tf.float32) / tf.cast(state.total_steps, tf.float32)
        strength = view_strength(done, recipe.view_decay)
        if recipe.augment and recipe.labelled_view == "strong":
            x = random_view(x, strong, kind, seeds[0], strength)
        elif recipe.augment:
            x = random_view(x, weak, kind, seeds[0])
        x, y = share(x), share(y)
        if not recipe.unlabelled_batch:
            metrics = update_supervised(state, x, y)
        else:
            u = to_network_range(tf.gather(unlabelled_images, unlabelled))
            z = share(tf.random.stateless_normal([recipe.generated_batch, recipe.latent_size], seeds[3]))
            weak_views = share(random_view(u, weak, kind, seeds[1]) if recipe.augment else u)
            strong_views = share(random_view(u, strong, kind, seeds[2], strength) if recipe.augment else u)
            noise = share(tf.random.stateless_normal([recipe.adversarial_batch, *u.shape[1:]], seeds[5]))
            prior = estimated_prior(given_prior, state.class_mean, done) if class_prior == "estimated" else given_prior
            pseudo_labels = None
            if recipe.consistency_weight:
                pseudo_labels = make_pseudo_labels(state, weak_views, prior, recipe)
            trust = pile_ramp(state, done, recipe.pile_ramp) if pile_worth is None else pile_trust(state, pile_worth)
            batch = RealImages(x, y, weak_views, strong_views, noise, pseudo_labels, trust)
            update = update_fused if recipe.fused else update_apart
            metrics, real_features = update(state, batch, z, prior, recipe)
            if state.generator is not None:
                z = share(tf.random.stateless_normal([recipe.generated_batch, recipe.latent_size], seeds[4]))
                metrics |= update_generator(state, z, real_features, recipe)
        move_teacher(state, number, recipe)
        return metrics

    return step


@dataclass(frozen=True)
class RealImages:
    """The real images of a step, float32, -1..1, and what is known about them."""

    labelled: tf.Tensor
    """[B, H, W, C]"""
    labels: tf.Tensor
    """int32 [B]"""
    weak_views: tf.Tensor
    """[U, H, W, C] of the unlabelled images"""
    strong_views: tf.Tensor
    """[U, H, W, C] of the same images"""
    noise: tf.Tensor
    """[A, H, W, C], normal: where the search for adversarial views of the first A weak views starts"""
    pseudo_labels: tf.Tensor | None
    """float32 [U, K]"""
    trust: tf.Tensor
    """float32 scalar, 0..1: factor on what the pile's losses weigh."""


def estimated_prior(start: tf.Tensor, found: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
    """Returns the class prior, float32 [K], where a share of the run (`done`, 0..1) is over: `start`, later `found`.

    The start keeps classes apart while D knows little; held to the end, it would pull images at a border over to the
    class that the pile happens to have fewer of. Between `ESTIMATE_FROM` and `ESTIMATE_TO`, as shares of the run, the
    logarithms of both are mixed.
    """
    trust = tf.clip_by_value((done - ESTIMATE_FROM) / (ESTIMATE_TO - ESTIMATE_FROM), 0.0, 1.0)
    return tf.nn.softmax((1.0 - trust) * tf.math.log(start) + trust * tf.math.log(found + 1e-6))


def update_supervised(state: State, x: tf.Tensor, y: tf.Tensor) -> Metrics:
    """D on labelled (x, y)."""
    variables = state.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        logits, _ = state.discriminator(x, training=True)
        loss, metrics = supervised_loss(state, logits, y)
        part = part_of_loss(loss)
    state.discriminator_optimizer.apply(tape.gradient(part, variables), variables)
    return metrics


def supervised_loss(state: State, logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Metrics]:
    """Returns the cross-entropy of labelled images (logits float32 [B, K], labels int32 [B]) and its metrics."""
    loss = losses.supervised_loss(logits, labels)
    accuracy = tf.reduce_mean(tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32))
    note_accuracy(state, accuracy)
    return loss, {"loss_supervised": loss, "labelled_accuracy": accuracy}


def update_apart(
    state: State, real: RealImages, z: tf.Tensor, prior: tf.Tensor, recipe: Recipe
) -> tuple[Metrics, tf.Tensor]:
    """D on labelled (x, y), then D on unlabelled x and generated G(z); returns D's features of strong views, too."""
    metrics = update_supervised(state, real.labelled, real.labels)
    fakes = None if state.generator is None else call_frozen_statistics(state.generator, z)
    variables = state.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        strong_logits, features = state.discriminator(real.strong_views, training=True)
        total, unlabelled = pile_loss(tape, state, real, strong_logits, fakes, prior, recipe)
        part = part_of_loss(total)
    gradients = tape.gradient(part, variables)
    if any(gradient is not None for gradient in gradients):  # there is a loss on the pile
        state.unsupervised_optimizer.apply(gradients, variables)
    return metrics | unlabelled, features


def update_fused(
    state: State, real: RealImages, z: tf.Tensor, prior: tf.Tensor, recipe: Recipe
) -> tuple[Metrics, tf.Tensor]:
    """Both D updates as one, on the sum of their losses; returns D's features of strong views, too.

    Labelled images and strong views go through D as one batch and move its statistics; weak views, adversarial views
    and generated images go through as batches of their own and move none.
    """
    sizes = [real.labelled.shape[0], real.strong_views.shape[0]]
    fakes = None if state.generator is None else call_frozen_statistics(state.generator, z)
    variables = state.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        logits, features = state.discriminator(tf.concat([real.labelled, real.strong_views], axis=0), training=True)
        labelled_logits, strong_logits = tf.split(logits, sizes)
        supervised, labelled_metrics = supervised_loss(state, labelled_logits, real.labels)
        total, metrics = pile_loss(tape, state, real, strong_logits, fakes, prior, recipe)
        part = part_of_loss(supervised + total)
    state.discriminator_optimizer.apply(tape.gradient(part, variables), variables)
    return metrics | labelled_metrics, tf.split(features, sizes)[1]


def pile_loss(
    tape: tf.GradientTape,
    state: State,
    real: RealImages,
    strong_logits: tf.Tensor,
    fakes: tf.Tensor | None,
    prior: tf.Tensor,
    recipe: Recipe,
) -> tuple[tf.Tensor, Metrics]:
    """Returns D's loss on unlabelled x and on generated G(z), float32 scalar, from D's logits of the strong views.

    Recorded by `tape`, but for the search of adversarial views.
    """

    def classify(images: tf.Tensor) -> tf.Tensor:
        return call_frozen_statistics(state.discriminator, images)[0]

    total, metrics = tf.zeros([]), {}
    if real.pseudo_labels is not None:
        consistency = losses.consistency_loss(real.pseudo_labels, strong_logits)
        total += recipe.consistency_weight * real.trust * consistency
        metrics["loss_consistency"] = consistency
    if recipe.information_weight or recipe.adversarial_weight:
        weak_logits = classify(real.weak_views)
    if recipe.information_weight:
        weights = tf.stop_gradient(losses.realness(strong_logits))
        weights = weights if recipe.realness_gate else tf.ones_like(weights)
        counts = mean_over_replicas(losses.joint_counts(weak_logits, strong_logits, weights))
        joint = counts / tf.stop_gradient(tf.reduce_sum(counts))  # the sum is that of the weights
        average = INFORMATION_DECAY * state.joint_mean + (1.0 - INFORMATION_DECAY) * tf.stop_gradient(joint)
        state.joint_mean.assign(tf.maximum(average, 1e-8))
        information = losses.information_loss(joint, state.joint_mean, prior)
        total += recipe.information_weight * real.trust * information
        metrics["mutual_information"] = -losses.information_loss(joint, state.joint_mean, tf.ones_like(prior))
    if recipe.adversarial_weight:
        searched = real.noise.shape[0]
        images, answers = real.weak_views[:searched], weak_logits[:searched]
        with tape.stop_recording():
            worst = adversarial_views(classify, images, answers, recipe.adversarial_radius, real.noise)
        adversarial = losses.consistency_loss(tf.nn.softmax(answers), classify(worst))
        total += recipe.adversarial_weight * real.trust * adversarial
        metrics["loss_adversarial"] = adversarial
    if fakes is not None:
        fake_logits = classify(fakes)
        unsupervised = losses.unsupervised_loss(strong_logits, fake_logits)
        total += recipe.unsupervised_weight * unsupervised
        metrics |= {
            "loss_unsupervised": unsupervised,
            "realness_real": tf.reduce_mean(losses.realness(strong_logits)),
            "realness_fake": tf.reduce_mean(losses.realness(fake_logits)),
        }
    probabilities = tf.nn.softmax(strong_logits)
    metrics["pseudo_confidence"] = tf.reduce_mean(tf.reduce_max(probabilities, axis=-1))
    shares = mean_over_replicas(tf.reduce_mean(probabilities, axis=0))
    metrics["class_entropy"] = losses.relative_entropy(shares)
    state.class_mean.assign(CLASS_DECAY * state.class_mean + (1.0 - CLASS_DECAY) * shares)
    return total, metrics


def update_generator(state: State, z: tf.Tensor, real_features: tf.Tensor, recipe: Recipe) -> Metrics:
    """G against the D that was just updated."""
    assert state.generator is not None
    variables = state.generator.trainable_variables
    # Feature matching compares means over the whole batch.
    real_mean = mean_over_replicas(tf.stop_gradient(tf.reduce_mean(real_features, axis=0)))
    with tf.GradientTape() as tape:
        fakes = state.generator(z, training=True)
        fake_logits, fake_features = call_frozen_statistics(state.discriminator, fakes)
        if recipe.generator_loss == "adversarial":
            loss = losses.adversarial_loss(fake_logits)
        else:
            fake_mean = mean_over_replicas(tf.reduce_mean(fake_features, axis=0))
            loss = losses.feature_matching_loss(real_mean, fake_mean)
        part = part_of_loss(loss)
    state.generator_optimizer.apply(tape.gradient(part, variables), variables)
    return {"loss_generator": loss}


def make_pseudo_labels(state: State, weak_views: tf.Tensor, prior: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """Returns the teacher's soft labels, float32 [B, K]: aligned with the class prior, then sharpened."""
    # Batch statistics: the averaged weights have no moving ones of their own during training.
    logits, _ = call_frozen_statistics(state.teacher, weak_views)
    probabilities = tf.nn.softmax(logits)
    if recipe.align:
        mean = state.pseudo_label_mean
        now = mean_over_replicas(tf.reduce_mean(probabilities, axis=0))
        mean.assign(ALIGNMENT_DECAY * mean + (1.0 - ALIGNMENT_DECAY) * now)
        probabilities = losses.align(probabilities, prior, mean)
    return losses.sharpen(probabilities, recipe.temperature)
