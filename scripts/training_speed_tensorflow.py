"""The steps that `scripts.training_speed` times with TensorFlow: ours, a plain eager loop, and the parts of ours.

Runs in a process of its own: `python -m scripts.training_speed_tensorflow KIND WARMUP`. Says {"versions": ...} when it
is warm, or {"failed": reason}; then each line N on standard input is answered with the seconds that N steps took, by
run, after one step that is not timed.
"""

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from scripts.training_speed import DATA, LABELS, PEELS, RECIPE
from training import losses
from training.adversarial import adversarial_views
from training.augment import VIEWS, choose_kind, random_view
from training.batches import BalancedSampler, EpochSampler
from training.dataset import TrainingSet, load_dataset
from training.loop import add_up
from training.recipe import Recipe
from training.state import build_state, move_teacher, to_network_range
from training.step import INFORMATION_DECAY, make_step, update_generator

Run = Callable[[int], object]
"""Takes the step of a number."""
SEED = 0


def main() -> None:
    """Warms up, then times steps as standard input asks for."""
    kind, warmup = sys.argv[1], int(sys.argv[2])
    keras.utils.set_random_seed(SEED)
    data = load_dataset(DATA, label_count=LABELS, seed=SEED).training
    try:
        runs = make_runs(kind, data)
        for number in range(warmup):
            for run in runs.values():
                run(number)
    except (tf.errors.OpError, ValueError) as error:
        shown = re.sub(r"\[.*?\]|{{.*?}}", "", str(error))  # Names and numbers that TensorFlow makes up for a graph.
        print(json.dumps({"failed": " ".join(shown.split())[:200]}), flush=True)
        return
    print(json.dumps({"versions": {name: version(name) for name in ("tensorflow", "keras")}}), flush=True)
    done = warmup
    for line in sys.stdin:
        seconds = {}
        for name, run in runs.items():
            run(done)  # This process has slept.
            started = time.perf_counter()
            for number in range(done + 1, done + 1 + int(line)):
                run(number)
            seconds[name] = time.perf_counter() - started
        print(json.dumps(seconds), flush=True)
        done += 1 + int(line)


def make_runs(kind: str, data: TrainingSet) -> dict[str, Run]:
    """Returns what is to be timed of a kind, by name."""
    if kind == "parts":
        return parts(data)
    return {"step": plain(data) if kind == "eager" else compiled(data, RECIPE, jit=kind == "jit")}


def compiled(data: TrainingSet, recipe: Recipe, *, jit: bool = False) -> Run:
    """Our step, driven as `training.loop` does: samplers, step, metrics read and checked."""
    step: Any = make_step(
        build_state(data, recipe, SEED), data, recipe, choose_kind(data.unlabelled, data.labelled, data.labels), SEED
    )
    if jit:
        step = tf.function(step.python_function, jit_compile=True)
    labelled = BalancedSampler(data.labels, recipe.labelled_batch, SEED)
    unlabelled = EpochSampler(len(data.unlabelled), recipe.unlabelled_batch, SEED)
    sums: dict[str, float] = {}

    def run(number: int) -> None:
        places = tf.constant(labelled.positions(number)), tf.constant(unlabelled.positions(number))
        add_up(sums, step(*places, tf.constant(number)), number)

    return run


def plain(data: TrainingSet) -> Run:
    """The same networks, losses, views and batches in the book's kind of loop.

    Nothing is compiled: images are picked by NumPy, and D on labelled images, D on unlabelled and generated ones, and G
    are three updates with a tape each. As a plain call does, every call of D moves its batch statistics.
    """
    recipe = dataclasses.replace(RECIPE, fused=False)  # An optimizer for each update.
    state = build_state(data, recipe, SEED)
    discriminator: Any = state.discriminator
    generator: Any = state.generator
    kind = choose_kind(data.unlabelled, data.labelled, data.labels)
    weak, strong = VIEWS[kind]
    labelled = BalancedSampler(data.labels, recipe.labelled_batch, SEED)
    unlabelled = EpochSampler(len(data.unlabelled), recipe.unlabelled_batch, SEED)

    def classify(images: tf.Tensor) -> tf.Tensor:
        return discriminator(images, training=True)[0]

    def update(optimizer: Any, network: Any, loss_under: Callable[[tf.GradientTape], tf.Tensor]) -> float:
        variables = network.trainable_variables
        with tf.GradientTape() as tape:
            loss = loss_under(tape)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return float(loss)

    def step(number: int) -> list[float]:
        places = labelled.positions(number)
        x, y = data.labelled[places] / np.float32(127.5) - 1, data.labels[places]
        u = tf.constant(data.unlabelled[unlabelled.positions(number)] / np.float32(127.5) - 1)
        seeds = tf.random.uniform([3, 2], maxval=2**31 - 1, dtype=tf.int32)
        x = random_view(tf.constant(x), strong, kind, seeds[0])
        weak_views, strong_views = random_view(u, weak, kind, seeds[1]), random_view(u, strong, kind, seeds[2])
        fakes = generator(tf.random.normal([recipe.generated_batch, recipe.latent_size]), training=True)
        z = tf.random.normal([recipe.generated_batch, recipe.latent_size])

        def unlabelled_loss(tape: tf.GradientTape) -> tf.Tensor:
            weak_logits, strong_logits = classify(weak_views), classify(strong_views)
            equal = tf.fill([recipe.unlabelled_batch], 1.0 / recipe.unlabelled_batch)
            joint = losses.joint_counts(weak_logits, strong_logits, equal)
            average = INFORMATION_DECAY * state.joint_mean + (1.0 - INFORMATION_DECAY) * tf.stop_gradient(joint)
            state.joint_mean.assign(tf.maximum(average, 1e-8))
            images, answers = weak_views[: recipe.adversarial_batch], weak_logits[: recipe.adversarial_batch]
            with tape.stop_recording():
                noise = tf.random.normal(images.shape)
                worst = adversarial_views(classify, images, answers, recipe.adversarial_radius, noise)
            return (
                recipe.information_weight
                * losses.information_loss(joint, state.joint_mean, tf.ones([len(data.classes)]))
                + recipe.adversarial_weight * losses.consistency_loss(tf.nn.softmax(answers), classify(worst))
                + recipe.unsupervised_weight * losses.unsupervised_loss(strong_logits, classify(fakes))
            )

        values = [
            update(
                state.discriminator_optimizer,
                discriminator,
                lambda _: losses.supervised_loss(classify(x), y),
            ),
            update(state.unsupervised_optimizer, discriminator, unlabelled_loss),
            update(
                state.generator_optimizer,
                generator,
                lambda _: losses.adversarial_loss(classify(generator(z, training=True))),
            ),
        ]
        move_teacher(state, tf.constant(number), recipe)
        return values

    return step


def parts(data: TrainingSet) -> dict[str, Run]:
    """Our step; the same without one part after the other; and three parts alone."""
    runs = {"whole": compiled(data, RECIPE)}
    changes: dict[str, Any] = {}
    for name, change in PEELS.items():
        changes |= change
        runs[name] = compiled(data, dataclasses.replace(RECIPE, **changes))

    state = build_state(data, RECIPE, SEED)
    pile, labelled_images = tf.constant(data.unlabelled), tf.constant(data.labelled)
    labelled = BalancedSampler(data.labels, RECIPE.labelled_batch, SEED)
    unlabelled = EpochSampler(len(data.unlabelled), RECIPE.unlabelled_batch, SEED)
    features = tf.zeros([RECIPE.unlabelled_batch, state.discriminator.outputs[1].shape[1]])

    def gather(few: tf.Tensor, many: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return to_network_range(tf.gather(labelled_images, few)), to_network_range(tf.gather(pile, many))

    def generate(number: tf.Tensor) -> Any:
        z = tf.random.stateless_normal([RECIPE.generated_batch, RECIPE.latent_size], tf.stack([SEED, number]))
        return update_generator(state, z, features, RECIPE)

    def average(number: tf.Tensor) -> None:
        move_teacher(state, number, RECIPE)

    gather_fast, generate_fast, average_fast = map(tf.function, (gather, generate, average))
    return runs | {
        "batches": lambda n: gather_fast(tf.constant(labelled.positions(n)), tf.constant(unlabelled.positions(n))),
        "generator": lambda n: generate_fast(tf.constant(n)),
        "average": lambda n: average_fast(tf.constant(n)),
    }


if __name__ == "__main__":
    main()
