import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from training.dataset import TrainingSet
from training.recipe import PRESETS, labels_alone
from training.state import State, build_state
from training.step import make_step
from training.trust import Skill, is_guarded, note_accuracy, pile_ramp, pile_trust, skill, with_fitted_ramp, worth

BOOK = dataclasses.replace(PRESETS["book"], labelled_batch=10, unlabelled_batch=4, generated_batch=4, steps=10)
RECIPE = dataclasses.replace(BOOK, information_weight=1.0)
GREY = np.zeros((2, 4, 4, 1), np.uint8)


@pytest.fixture
def data(make_training_set: Callable[..., TrainingSet]) -> TrainingSet:
    return make_training_set()


@pytest.fixture
def state(data: TrainingSet) -> State:
    return build_state(data, RECIPE, 0)


@given(st.integers(2, 200), st.integers(1, 50), st.floats(0, 1))
def test_skill_is_nothing_at_chance_and_one_without_errors(classes: int, rounds: int, share: float) -> None:
    labels = np.tile(np.arange(classes, dtype=np.int32), rounds)
    places = np.arange(len(labels))
    assert skill(labels == 0, labels, classes).value == pytest.approx(0, abs=1e-9)
    assert skill(labels >= 0, labels, classes).value == pytest.approx(1)
    assert 0 < skill(places < share * len(labels), labels, classes).error < 2


def test_to_name_the_most_frequent_class_always_is_no_skill() -> None:
    labels = np.repeat(np.arange(2, dtype=np.int32), [90, 10])
    assert skill(labels == 0, labels, 2).value == pytest.approx(0)
    assert worth(skill(labels == 0, labels, 2)) == 0
    assert skill(labels == 1, labels, 2).value == pytest.approx(0)


def test_of_a_class_without_a_held_out_image_nothing_is_known() -> None:
    """A class of one label has none: to name the other one always is no skill then, either."""
    labels = np.zeros(100, np.int32)
    assert skill(labels == 0, labels, 2).value == pytest.approx(0)
    assert worth(skill(labels == 0, labels, 2)) == 0
    three = np.arange(99, dtype=np.int32) % 3
    assert skill(three >= 0, three, 4).value == pytest.approx(2 / 3)


def test_without_answers_there_is_no_skill() -> None:
    assert skill(np.zeros(0, np.bool_), np.zeros(0, np.int32), 3) == Skill(0.0, 1.0)


def test_a_rare_class_makes_the_skill_less_sure() -> None:
    even, uneven = (np.repeat(np.arange(2, dtype=np.int32), counts) for counts in ([50, 50], [90, 10]))
    assert skill(uneven >= 0, uneven, 2).error > 1.5 * skill(even >= 0, even, 2).error


def test_more_labels_make_the_skill_surer() -> None:
    labels = np.tile(np.arange(2, dtype=np.int32), 50)
    right = np.arange(100) % 10 < 7
    few, many = skill(right[:10], labels[:10], 2), skill(right, labels, 2)
    assert few.value == pytest.approx(many.value)
    assert few.error > 2 * many.error


def test_the_pile_is_worth_nothing_below_one_skill_and_all_above_another() -> None:
    pairs = ((0.0, 0.0), (0.15, 0.0), (0.2, 0.0), (0.25, 0.05), (0.25, 0.0), (0.3, 0.5), (1.0, 0.1))
    assert [worth(Skill(*pair)) for pair in pairs] == pytest.approx([0, 0, 0.5, 0.5, 1, 0, 1])


def test_trust_grows_with_the_labels_that_were_learnt_up_to_the_most(state: State) -> None:
    trust = []
    for accuracy in (0.2, 1 / 3, 2 / 3, 1.0):
        state.seen_accuracy.assign(accuracy)
        trust.append(float(pile_trust(state, 0.8)))
    assert trust == pytest.approx([0, 0, 0.8 * 0.25, 0.8], abs=1e-6)


def test_the_pile_counts_for_more_along_its_ramp_and_then_for_all(state: State) -> None:
    state.seen_accuracy.assign(0.95)
    weights = [float(pile_ramp(state, tf.constant(done), 0.4)) for done in (0.0, 0.1, 0.2, 0.4, 0.41, 1.0)]
    assert weights == pytest.approx([0, 1 / 16, 1 / 4, 1, 1, 1])


@pytest.mark.parametrize(("labels", "ramp"), [(3, 0.04), (15, 0.04), (18, 0.04), (24, 0.12), (30, 0.2), (3000, 0.2)])
def test_the_ramp_is_shorter_where_a_class_has_few_labels(labels: int, ramp: float) -> None:
    recipe = dataclasses.replace(RECIPE, pile_ramp=0.2, ramp_labels=5.0)
    assert with_fitted_ramp(recipe, labels, 3) == dataclasses.replace(recipe, pile_ramp=pytest.approx(ramp))
    always = dataclasses.replace(recipe, ramp_labels=0.0)
    assert with_fitted_ramp(always, labels, 3) == always


def test_the_pile_waits_until_the_labels_are_learnt(state: State) -> None:
    """Three classes: skills of 0.4, 0.7, 0.9 and 1."""
    found = []
    for accuracy in (0.6, 0.8, 0.9334, 1.0):
        state.seen_accuracy.assign(accuracy)
        found.append([float(pile_ramp(state, tf.constant(done), 0.2)) for done in (0.04, 0.1, 1.0)])
    early = 0.04
    assert found[0] == pytest.approx([early, 0, 0])
    assert found[1] == pytest.approx([early, 0.25 * 0.5, 0.5])
    # To the bit: what learns its labels in time trains as without this.
    assert found[2] == found[3] == [float(tf.square(tf.constant(done) / 0.2)) for done in (0.04, 0.1, 0.2)]


def test_without_a_ramp_the_pile_counts_for_all_from_the_first_step(state: State) -> None:
    assert float(pile_ramp(state, tf.constant(0.0), 0.0)) == 1


def test_the_average_follows_the_accuracy(state: State) -> None:
    for _ in range(400):
        note_accuracy(state, tf.constant(0.75))
    assert float(state.seen_accuracy) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(("pile_worth", "ramp"), [(0.0, 0.0), (None, 0.5)], ids=["without worth", "before the ramp"])
def test_a_pile_without_weight_changes_nothing_in_the_classes_of_d(
    data: TrainingSet, pile_worth: float | None, ramp: float
) -> None:
    """Where the pile's losses count for nothing, the first step with another weight of them is the same step."""
    weights = []
    for weight in (1.0, 5.0):
        recipe = dataclasses.replace(RECIPE, information_weight=weight, pile_ramp=ramp)
        state = build_state(data, recipe, 0)
        state.seen_accuracy.assign(1.0)
        step = make_step(state, data, recipe, "none", 0, pile_worth=pile_worth)
        step(tf.range(10, dtype=tf.int64), tf.range(4, dtype=tf.int64), tf.constant(0))
        weights.append([variable.numpy() for variable in state.discriminator.trainable_variables])
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_labels_alone_takes_neither_pile_nor_generator(data: TrainingSet) -> None:
    recipe = labels_alone(RECIPE)
    state = build_state(data, recipe, 0)
    metrics = make_step(state, data, recipe, "none", 0)(
        tf.range(10, dtype=tf.int64), tf.zeros([0], tf.int64), tf.constant(0)
    )
    assert state.generator is None
    assert set(metrics) == {"loss_supervised", "labelled_accuracy"}
    assert (recipe.labelled_batch, recipe.learning_rate) == (RECIPE.labelled_batch, RECIPE.learning_rate)


def test_a_recipe_without_losses_on_the_classes_of_the_pile_needs_no_guard() -> None:
    assert is_guarded("natural", GREY, RECIPE)
    assert not is_guarded("natural", GREY, BOOK)


def test_what_has_colours_is_guarded_on_a_plain_ground_too() -> None:
    assert is_guarded("digits", np.random.default_rng(0).integers(0, 255, (9, 4, 4, 3)).astype(np.uint8), RECIPE)
    assert not is_guarded("digits", GREY, RECIPE)
    assert not is_guarded("digits", GREY.repeat(3, axis=3), RECIPE)
