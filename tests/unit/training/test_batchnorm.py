"""The BatchNormalization trap of ported DCGAN/SGAN code, and that our step is free of it. See ARCHITECTURE.md."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.dataset import TrainingSet
from training.recipe import PRESETS
from training.state import State, build_state
from training.step import RealImages, make_step, update_apart, update_generator, update_supervised

RECIPE = dataclasses.replace(PRESETS["book"], labelled_batch=4, unlabelled_batch=4, generated_batch=4)


def snapshot(state: State) -> dict[str, np.ndarray]:
    """Copies of D's and G's weights and moving statistics, by network and kind."""
    copies = {}
    for name, model in (("d", state.discriminator), ("g", state.generator)):
        assert model is not None
        for variable in model.variables:
            if "moving" in variable.path or variable.trainable:
                kind = "statistics" if "moving" in variable.path else "weights"
                copies[f"{name}/{kind}/{variable.path}"] = variable.numpy()
    return copies


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {"/".join(name.split("/")[:2]) for name in before if (before[name] != after[name]).any()}


def update_d(state: State, real: RealImages, z: tf.Tensor) -> None:
    update_apart(state, real, z, tf.fill([state.class_mean.shape[0]], 0.1), RECIPE)


@pytest.fixture
def state_and_inputs(make_training_set: Callable[..., TrainingSet]) -> tuple[State, Any, Any, Any, Any]:
    data = make_training_set()
    x = tf.constant(data.labelled[:4], tf.float32) / 127.5 - 1
    u = tf.constant(data.unlabelled[:4], tf.float32) / 127.5 - 1
    return (
        build_state(data, RECIPE, 0),
        x,
        tf.constant(data.labels[:4]),
        u,
        tf.random.stateless_normal([4, 100], [0, 1]),
    )


def test_the_trap_a_frozen_batch_normalization_ignores_training_true() -> None:
    layer = keras.layers.BatchNormalization()
    layer.build((None, 3))
    inputs = tf.constant(np.random.default_rng(0).normal(5, 2, (64, 3)), tf.float32)
    layer.trainable = False
    frozen = layer(inputs, training=True)  # runs in inference mode: initial statistics, nothing is normalised
    np.testing.assert_array_equal(layer.moving_mean.numpy(), np.zeros(3))
    np.testing.assert_allclose(frozen.numpy(), inputs.numpy(), rtol=1e-2)
    layer.trainable = True
    thawed = layer(inputs, training=True)
    assert (layer.moving_mean.numpy() > 0).all()
    np.testing.assert_allclose(thawed.numpy().mean(axis=0), 0, atol=1e-4)


def test_the_supervised_update_moves_d_alone(state_and_inputs: tuple[State, Any, Any, Any, Any]) -> None:
    state, x, y, _, _ = state_and_inputs
    before = snapshot(state)
    update_supervised(state, x, y)
    assert moved(before, snapshot(state)) == {"d/weights", "d/statistics"}


def test_both_updates_of_d_move_d_alone(state_and_inputs: tuple[State, Any, Any, Any, Any]) -> None:
    state, x, y, u, z = state_and_inputs
    before = snapshot(state)
    update_d(state, RealImages(x, y, u, u, u[:0], None, tf.ones([])), z)
    assert moved(before, snapshot(state)) == {"d/weights", "d/statistics"}


@pytest.mark.parametrize("loss", ["adversarial", "feature_matching"])
def test_the_generator_update_moves_g_alone(loss: Any, state_and_inputs: tuple[State, Any, Any, Any, Any]) -> None:
    state, _, _, u, z = state_and_inputs
    recipe = dataclasses.replace(RECIPE, generator_loss=loss)
    _, features = state.discriminator(u, training=False)
    before = snapshot(state)
    update_generator(state, z, features, recipe)
    assert moved(before, snapshot(state)) == {"g/weights", "g/statistics"}


def test_only_real_images_move_ds_statistics(state_and_inputs: tuple[State, Any, Any, Any, Any]) -> None:
    state, x, y, u, z = state_and_inputs
    for optimizer in (state.discriminator_optimizer, state.unsupervised_optimizer):
        optimizer.learning_rate = 0.0
    mean = next(v for v in state.discriminator.variables if "moving_mean" in v.path)
    layer_inputs = keras.Model(state.discriminator.input, state.discriminator.layers[3].output)
    labelled, unlabelled = (layer_inputs(images).numpy().mean(axis=(0, 1, 2)) for images in (x, u))
    expected = 0.99 * 0.01 * labelled + 0.01 * unlabelled  # momentum .99 from zero, one update after the other
    update_d(state, RealImages(x, y, u, u, u[:0], None, tf.ones([])), z)
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_a_whole_step_moves_both_and_trainable_stays_true(make_training_set: Callable[..., TrainingSet]) -> None:
    data = make_training_set()
    state = build_state(data, RECIPE, 0)
    before = snapshot(state)
    step = make_step(state, data, RECIPE, "none", 0)
    step(tf.range(4, dtype=tf.int64), tf.range(4, dtype=tf.int64), tf.constant(0))
    assert moved(before, snapshot(state)) == {"d/weights", "d/statistics", "g/weights", "g/statistics"}
    assert state.generator is not None
    for model in (state.discriminator, state.generator):
        assert all(layer.trainable for layer in model.layers)
