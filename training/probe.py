"""What the labels teach: cross-validation of D on the labels alone, before the training itself."""

import dataclasses
import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from prelabel.files import write_text_atomically
from prelabel.progress import Progress, ProgressMode
from training.augment import Kind
from training.batches import BalancedSampler
from training.budget import Budget
from training.config import Options
from training.dataset import TrainingSet
from training.distribute import is_chief, mean_over_hosts
from training.evaluate import Classifier
from training.recipe import Recipe, labels_alone
from training.state import Settler, build_state
from training.step import make_step
from training.trust import Skill, skill

FOLDS = 4
SHARE_OF_STEPS = 0.2
"""Steps of one fold, as a share of the run's: D learns late what to look at in a photograph. These steps are short."""
SHARE_OF_MINUTES = 0.25
"""Share of `--minutes` that all folds may take."""


def folds(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Returns in which fold a label (int32 [n]) is held out, int64 [n]: 0..FOLDS - 1 in turn by class.

    -1 for a class's only label, without which D would not know of the class.
    """
    turn = np.empty(len(labels), np.int64)
    turn[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS
    return np.where(np.bincount(labels)[labels] > 1, turn, -1)


def pile_skill(
    options: Options, data: TrainingSet, recipe: Recipe, kind: Kind, strategy: tf.distribute.Strategy
) -> tuple[Skill, float]:
    """Returns what D knows of labels that are held out (`held_out_skill`), and the seconds that it took to measure.

    A run measures it once: what the folder has is taken. All hosts of a strategy get the same figures.
    """
    path = options.output / "skill.json"
    found = _read(path)
    if found is None:
        keras.utils.clear_session()
        keras.utils.set_random_seed(options.seed)
        started = time.monotonic()
        reached = held_out_skill(data, recipe, kind, options.seed, options.minutes, options.progress)
        found = {**dataclasses.asdict(reached), "seconds": time.monotonic() - started}

    found = {name: mean_over_hosts(strategy, value) for name, value in found.items()}
    if is_chief(strategy):
        write_text_atomically(path, json.dumps(found) + "\n")
    return Skill(found["value"], found["error"]), found["seconds"]


def held_out_skill(
    data: TrainingSet, recipe: Recipe, kind: Kind, seed: int, minutes: float | None, progress: ProgressMode
) -> Skill:
    """Cross-validates D on the labels alone: returns its skill on those that it did not learn from.

    Args:
        data: Its labels are learnt from; the pile is not looked at.
        recipe: The run's, as fitted to the kind.
        kind: Of augmentation.
        seed: Of weights and views.
        minutes: Time for the whole run, where there is a limit.
        progress: How progress is shown.
    """
    turn = folds(data.labels)
    total = max(1, round(SHARE_OF_STEPS * recipe.steps))
    recipe = dataclasses.replace(labels_alone(recipe), steps=total)
    right = np.zeros(len(turn), np.bool_)
    started = time.monotonic()
    budget = Budget(SHARE_OF_MINUTES * minutes / FOLDS, started, 0, started) if minutes else None
    with Progress(FOLDS * total, "steps", "what the labels teach", mode=progress) as report:
        for place, fold in enumerate(np.unique(turn[turn >= 0])):
            kept, out = turn != fold, turn == fold
            part = dataclasses.replace(
                data, labelled=data.labelled[kept], labels=data.labels[kept], unlabelled=data.unlabelled[:1]
            )
            state = build_state(part, recipe, seed)
            step = make_step(state, part, recipe, kind, seed)
            state.total_steps.assign(total)
            sampler = BalancedSampler(part.labels, recipe.labelled_batch, seed)
            nothing = tf.zeros([0], tf.int64)
            number = 0
            while number < total:
                if budget and place == 0:
                    total = min(total, budget.steps(number, total, False, time.monotonic()))
                    state.total_steps.assign(total)
                    report.expect(FOLDS * total)
                step(tf.constant(sampler.positions(number)), nothing, tf.constant(number))
                report.advance(1)
                number += 1
            # Once for each fold: to compile it would take longer, and TensorFlow warns of functions compiled so often.
            tf.config.run_functions_eagerly(True)
            Settler(state.teacher, part.labelled).settle()
            right[out] = Classifier(state.teacher).labels(data.labelled[out]) == data.labels[out]
            tf.config.run_functions_eagerly(False)
    asked = turn >= 0
    return skill(right[asked], data.labels[asked], len(data.classes))


def _read(path: Path) -> dict[str, float] | None:
    """Returns what an earlier start of the run measured; None where it came to nothing."""
    try:
        known: dict[str, float] = json.loads(path.read_text())
        return {name: float(known[name]) for name in ("value", "error", "seconds")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
