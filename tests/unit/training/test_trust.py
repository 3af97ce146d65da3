import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from training.augment import Kind
from training.config import PRESETS
from training.dataset import TrainingSet
from training.state import State, build_state
from training.step import make_step, update_supervised
from training.trust import held_out_labels, is_guarded, note_accuracy, on_probation, pile_trust

BOOK = dataclasses.replace(PRESETS["book"], labelled_batch=10, unlabelled_batch=4, generated_batch=4, steps=10)
RECIPE = dataclasses.replace(BOOK, information_weight=1.0)


def state_of(make_training_set: Callable[..., TrainingSet]) -> tuple[State, TrainingSet]:
    data = make_training_set()
    return build_state(data, RECIPE, 0), data


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200))
def test_a_fifth_of_the_labels_is_held_out_and_every_class_keeps_one(values: list[int]) -> None:
    labels = np.array(values, np.int32)
    held_out = held_out_labels(labels)
    assert held_out.sum() <= (len(labels) + 2) // 5
    assert held_out.sum() >= (len(labels) + 2) // 5 - np.isin(labels, np.flatnonzero(np.bincount(labels) == 1)).sum()
    assert set(labels[~held_out]) == set(labels)


def test_trust_is_zero_where_little_is_known_and_one_without_errors(
    make_training_set: Callable[..., TrainingSet],
) -> None:
    state, _ = state_of(make_training_set)
    trust = []
    for accuracy in (0.2, 1 / 3, 1 / 2, 7 / 12, 2 / 3, 1.0):
        state.held_out_accuracy.assign(accuracy)
        trust.append(float(pile_trust(state)))
    assert trust == pytest.approx([0, 0, 0, 0.375 * 0.5, 0.5, 1], abs=1e-6)


def test_the_average_follows_the_held_out_images_alone_and_stays_without_any(
    make_training_set: Callable[..., TrainingSet],
) -> None:
    state, _ = state_of(make_training_set)
    for _ in range(400):
        note_accuracy(state, tf.constant([1.0, 0.0, 0.0, 1.0]), tf.constant([1.0, 1.0, 1.0, 0.0]))
    assert float(state.held_out_accuracy) == pytest.approx(1 / 3, abs=1e-3)
    for _ in range(50):
        note_accuracy(state, tf.ones(4), tf.zeros(4))
    assert float(state.held_out_accuracy) == pytest.approx(1 / 3, abs=1e-3)


def test_probation_ends_after_two_fifths(make_training_set: Callable[..., TrainingSet]) -> None:
    state, _ = state_of(make_training_set)
    assert [bool(on_probation(state, tf.constant(number))) for number in (0, 3, 4, 9)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("kind", "number", "learnt"),
    [("natural", 0, False), ("recoloured", 3, False), ("natural", 4, True), ("digits", 0, True)],
)
def test_held_out_labels_are_not_learnt_from_during_probation_in_photographs(
    make_training_set: Callable[..., TrainingSet], kind: Kind, number: int, learnt: bool
) -> None:
    state, data = state_of(make_training_set)
    held_out = np.flatnonzero(held_out_labels(data.labels))
    positions = tf.constant(np.resize(held_out, RECIPE.labelled_batch))
    metrics = make_step(state, data, RECIPE, kind, 0)(positions, tf.range(4, dtype=tf.int64), tf.constant(number))
    assert (float(metrics["loss_supervised"]) > 0) == learnt


def test_a_false_label_of_a_held_out_image_changes_nothing(make_training_set: Callable[..., TrainingSet]) -> None:
    weights = []
    for label in (0, 1):
        state, data = state_of(make_training_set)
        x, y = tf.constant(data.labelled[:4], tf.float32), tf.constant([0, 1, 2, label])
        update_supervised(state, x, y, tf.constant([0.0, 0.0, 0.0, 1.0]))
        weights.append([variable.numpy() for variable in state.discriminator.trainable_variables])
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_recipe_without_losses_on_the_classes_of_the_pile_holds_nothing_out() -> None:
    assert is_guarded("natural", RECIPE)
    assert not is_guarded("natural", BOOK)
    assert not is_guarded("digits", RECIPE)
