import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from prelabel.errors import InputError
from training.dataset import TrainingSet
from training.precision import choose_precision, precision
from training.recipe import PRESETS, changed
from training.state import Settler, build_state, call_frozen_statistics, to_network_range


@pytest.mark.parametrize("preset", ["default", "book"])  # their layers move their statistics at other speeds
def test_settled_statistics_are_those_of_the_images(preset: str, make_training_set: Callable[..., TrainingSet]) -> None:
    data = make_training_set()
    state = build_state(data, dataclasses.replace(PRESETS[preset], dropout=0.0), 0)
    Settler(state.teacher, data.unlabelled).settle()
    images = to_network_range(tf.constant(data.unlabelled))
    settled, _ = state.teacher(images, training=False)
    own, _ = call_frozen_statistics(state.teacher, images)
    np.testing.assert_allclose(settled, own, atol=2e-3)


def test_settling_changes_no_weight_and_not_the_student(make_training_set: Callable[..., TrainingSet]) -> None:
    data = make_training_set()
    state = build_state(data, PRESETS["default"], 0)
    before = [v.numpy() for v in (*state.discriminator.variables, *state.teacher.trainable_variables)]
    Settler(state.teacher, data.unlabelled).settle()
    after = [v.numpy() for v in (*state.discriminator.variables, *state.teacher.trainable_variables)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_changes_of_a_recipe_are_typed_and_named() -> None:
    recipe = changed(PRESETS["default"], ("norm=none", "steps=7", "learning_rate=1e-3", "align=true"))
    assert (recipe.norm, recipe.steps, recipe.learning_rate, recipe.align) == ("none", 7, 1e-3, True)
    for change, reason in (
        ("nrom=none", "has no nrom"),
        ("norm=layer", "one of none, batch, weight"),
        ("steps=x", "steps=x"),
    ):
        with pytest.raises(InputError, match=reason):
            changed(PRESETS["default"], (change,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("steps=0", "1 or more"),
        ("labelled_batch=0", "1 or more"),
        ("unlabelled_batch=-1", "0 or more"),
        ("feature_grid=0", "1 or more"),
        ("learning_rate=nan", "more than 0"),
        ("learning_rate=0.0", "more than 0"),
        ("information_weight=inf", "0 or more"),
        ("ema_decay=1.0", "0 to less than 1"),
        ("view_decay=1.5", "0 to 1"),
        ("adversarial_batch=256", "0 to unlabelled_batch, 128"),
    ],
)
def test_values_of_a_recipe_that_cannot_be_trained_are_named(change: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"--change {change} is out of range: {reason}"):
        changed(PRESETS["default"], (change,))


def test_bfloat16_networks_have_float32_weights_and_answers(make_training_set: Callable[..., TrainingSet]) -> None:
    data = make_training_set()
    exact = build_state(data, PRESETS["default"], 0)
    with precision("bfloat16"):
        state = build_state(data, PRESETS["default"], 0)
    assert state.generator is not None
    assert {v.dtype for v in state.discriminator.trainable_variables} == {"float32"}
    assert {layer.compute_dtype for layer in state.discriminator.layers if "conv" in layer.name} == {"bfloat16"}
    images = to_network_range(tf.constant(data.unlabelled))
    (logits, features), (expected, _) = state.discriminator(images), exact.discriminator(images)
    assert (logits.dtype, features.dtype) == (tf.float32, tf.float32)
    assert state.generator(tf.zeros([2, 100])).dtype == tf.float32
    np.testing.assert_allclose(logits, expected, atol=0.1)
    Settler(state.teacher, data.unlabelled).settle()
    assert choose_precision("auto") == "float32" or tf.config.list_physical_devices("GPU")
    assert keras.mixed_precision.dtype_policy().name == "float32"
