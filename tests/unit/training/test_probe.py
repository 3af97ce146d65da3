import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import budget, probe
from training.dataset import TrainingSet
from training.recipe import PRESETS
from training.trust import worth

RECIPE = dataclasses.replace(PRESETS["default"], labelled_batch=9, unlabelled_batch=4, generated_batch=4, steps=200)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200))
def test_every_label_is_held_out_once_and_every_class_stays_known(values: list[int]) -> None:
    labels = np.array(values, np.int32)
    turn = probe.folds(labels)
    assert set(turn.tolist()) <= {-1, *range(probe.FOLDS)}
    assert ((turn == -1) == (np.bincount(labels)[labels] == 1)).all()
    for fold in range(probe.FOLDS):
        assert set(labels[turn != fold]) == set(labels)
        assert (turn == fold).sum() <= -(-len(labels) // probe.FOLDS)


def test_labels_that_tell_the_classes_are_known_from_labels_that_do_not(
    make_training_set: Callable[..., TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "FOLDS", 2)
    data = make_training_set(labelled=48)
    wrong = dataclasses.replace(data, labels=np.random.default_rng(0).permutation(data.labels))
    right, none = (probe.held_out_skill(one, RECIPE, "natural", 0, None, "none").value for one in (data, wrong))
    assert right > 0.5 > 0.3 > none


def test_one_label_a_class_tells_nothing(make_training_set: Callable[..., TrainingSet]) -> None:
    data = make_training_set()
    first = [int(np.flatnonzero(data.labels == label)[0]) for label in range(3)]
    few = dataclasses.replace(data, labelled=data.labelled[first], labels=data.labels[first])
    assert worth(probe.held_out_skill(few, RECIPE, "natural", 0, None, "none")) == 0


def test_a_time_budget_shortens_the_folds(
    make_training_set: Callable[..., TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    monkeypatch.setattr(budget, "TIMED_STEPS", (1, 3))
    monkeypatch.setattr(budget.Budget, "_fit", lambda *_: 7)
    original = probe.BalancedSampler.positions
    monkeypatch.setattr(
        probe.BalancedSampler, "positions", lambda self, step: (steps.append(step), original(self, step))[1]
    )
    probe.held_out_skill(make_training_set(), RECIPE, "natural", 0, 1.0, "none")
    assert steps == list(range(7)) * probe.FOLDS
