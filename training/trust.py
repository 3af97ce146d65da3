"""How far the losses on the pile are trusted, where the thing itself is not all that varies in an image.

On a plain background the classes that tell the pile's images apart best are mostly the wanted ones. In photographs
background and colour vary as much, and before D has learnt from the labels what to look at, mutual information and
adversarial views hold it to classes of backgrounds, from which it does not come back. So a fifth of the labels is held
out at first, and the pile's losses weigh as much as D's accuracy on them allows: nothing where it is low.
"""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.augment import PHOTOGRAPHS, Kind
from training.config import Recipe
from training.distribute import mean_over_replicas
from training.state import State

HELD_OUT = 5
"""One label in so many is held out during probation."""
PROBATION = 0.4
"""Share of the run after which all labels are learnt from."""
WORTH = 0.25
"""Share of the way from chance to no errors up to which the pile counts for nothing, and from twice which for all."""
DECAY = 0.98
"""The accuracy on held-out labels, about six in a step, is averaged over about 50 steps."""


def is_guarded(kind: Kind, recipe: Recipe) -> bool:
    """Returns whether the losses on the pile have to earn their weight: in all that looks like a photograph."""
    weights = recipe.information_weight, recipe.adversarial_weight, recipe.consistency_weight
    return kind in PHOTOGRAPHS and any(weights)


def held_out_labels(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns which labels (int32 [n]) are held out at first, bool [n]: every fifth by class, but never a lone one."""
    held_out = np.zeros(len(labels), bool)
    held_out[np.argsort(labels, kind="stable")[HELD_OUT // 2 :: HELD_OUT]] = True
    return held_out & (np.bincount(labels)[labels] > 1)


def on_probation(state: State, number: tf.Tensor) -> tf.Tensor:
    """Returns whether labels are held out in step `number` (int32 scalar): bool scalar."""
    return tf.cast(number, tf.float32) < PROBATION * tf.cast(state.total_steps, tf.float32)


def pile_trust(state: State) -> tf.Tensor:
    """Returns the factor on the pile's losses, float32 scalar, 0..1.

    With the skill s = (a - 1 / K) / (1 - 1 / K), where a is the average of D's accuracy on strong views of the held-out
    images: 0 up to `WORTH`, s from twice that on. A D that knows less makes itself worse from the pile.
    """
    chance = 1.0 / state.class_mean.shape[0]
    skill = (state.held_out_accuracy - chance) / (1.0 - chance)
    return skill * tf.clip_by_value((skill - WORTH) / WORTH, 0.0, 1.0)


def note_accuracy(state: State, hits: tf.Tensor, held_out: tf.Tensor) -> None:
    """Moves the average behind `pile_trust`; when no label is held out any more, it stays what it is.

    Args:
        state: Holds the average.
        hits: float32 [B], 1 where D is right about a labelled image.
        held_out: float32 [B], 1 where that image is held out in this step.
    """
    count = mean_over_replicas(tf.reduce_sum(held_out))
    now = mean_over_replicas(tf.reduce_sum(held_out * hits)) / tf.maximum(count, 1e-6)
    moved = DECAY * state.held_out_accuracy + (1.0 - DECAY) * now
    state.held_out_accuracy.assign(tf.where(count > 0.0, moved, state.held_out_accuracy))
