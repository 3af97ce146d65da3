"""How far the losses on the pile are trusted, where the thing itself is not all that varies in an image.

On a plain background the classes that tell the pile's images apart best are mostly the wanted ones. In photographs
background and colour vary as much, and before D has learnt from the labels what to look at, mutual information and
adversarial views hold it to classes of backgrounds, from which it does not come back. So the pile's losses weigh as
much as D knows: of labels that it did not see (`training.probe`), and of those that it learns from.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from prelabel.images import Pixels
from training.augment import PHOTOGRAPHS, Kind
from training.colours import are_grey
from training.distribute import mean_over_replicas
from training.recipe import Recipe
from training.state import State

WORTH = 0.15, 0.25
"""Skill, less its standard error, up to which the pile counts for nothing, and from which on it counts for all."""
DECAY = 0.98
"""The accuracy on labelled images is averaged over about 50 steps."""
LEARNT = 0.5, 0.9
"""Skill on the labels that D learns from, up to which the pile waits, and from which on it waits no longer."""
SHORTEST = 0.2
"""Share of the ramp that the fewest labels have: long enough to wait until they are learnt, too short to mislead."""
WAITS_FROM = 0.3125
"""Share of the ramp before which nothing waits: the pile's weight is a tenth then, and the average says little."""


def is_guarded(kind: Kind, images: Pixels, recipe: Recipe) -> bool:
    """Returns whether the losses on the pile have to earn their weight: in photographs, and in all that has colours.

    Args:
        kind: Of augmentation.
        images: uint8 [n, H, W, C]: the pile.
        recipe: Without losses on the pile's classes there is nothing to guard.
    """
    weights = recipe.information_weight, recipe.adversarial_weight, recipe.consistency_weight
    return any(weights) and (kind in PHOTOGRAPHS or not are_grey(images))


@dataclass(frozen=True)
class Skill:
    """What D knows of labels that it did not learn from."""

    value: float
    """The mean over the classes of how many of their images are right, as a share of the way from chance to no errors:
    1 for no errors, 0 for chance, less for worse."""
    error: float
    """Its standard error."""


def skill(right: NDArray[np.bool_], labels: NDArray[np.int32], classes: int) -> Skill:
    """Returns the skill that answers show, each class counting alike: to name the most frequent one always is none.

    Args:
        right: bool [n]: which answers are.
        labels: int32 [n]: the images' classes. Without any there is no skill; of a class without one nothing is known.
        classes: K.
    """
    counts = np.bincount(labels, minlength=classes)
    held = counts > 0
    if not held.any():
        return Skill(0.0, 1.0)
    accuracy = float((np.bincount(labels, right, classes)[held] / counts[held]).mean())
    way = 1.0 - 1.0 / classes
    # Between one more hit and one more miss: without any hit or any miss the error is not 0.
    likely = (accuracy * len(labels) + 1) / (len(labels) + 2)
    error = math.sqrt(likely * (1.0 - likely) * float((1.0 / counts[held]).sum())) / held.sum()
    known = held.mean()
    return Skill((known * accuracy - 1.0 / classes) / way, known * error / way)


def worth(known: Skill) -> float:
    """Returns the largest factor on the pile's losses, 0..1: a D that knows less makes itself worse from the pile."""
    nothing, everything = WORTH
    return min(1.0, max(0.0, (known.value - known.error - nothing) / (everything - nothing)))


def with_fitted_ramp(recipe: Recipe, labels: int, classes: int) -> Recipe:
    """Returns the recipe with a ramp of the pile's weight that fits the mean number of labels a class.

    Up to `Recipe.ramp_labels` it has a fifth of its length, from twice as many on all of it. The fewer labels a class
    has, the more of its styles have none, and what labels that lead for long have given to another class stays there:
    of MNIST with 20 or 50 labels, on some draws, the sevens with a bar among the threes. Without any ramp nothing waits
    (`pile_ramp`), and classes of several shapes are lost instead.
    """
    if not recipe.ramp_labels:
        return recipe
    share = min(1.0, max(SHORTEST, labels / classes / recipe.ramp_labels - 1.0))
    return dataclasses.replace(recipe, pile_ramp=recipe.pile_ramp * share)


def pile_ramp(state: State, done: tf.Tensor, ramp: float) -> tf.Tensor:
    """Returns the factor on the losses of a pile that need not earn its weight, float32 scalar, 0..1.

    It grows as the square of the share of the run that is done (`done`, float32 scalar, 0..1) up to 1 at `ramp`, and
    waits where D has not learnt its labels (`LEARNT`): what looks alike is grouped first, and a group that belongs to
    two classes goes to one of them for good. Digits under and over 4.5 with 100 labels: with the nines go all fours.
    Without a ramp the factor is 1.
    """
    if not ramp:
        return tf.ones([])
    waits, learnt = LEARNT
    known = tf.clip_by_value((seen_skill(state) - waits) / (learnt - waits), 0.0, 1.0)
    return tf.square(tf.minimum(1.0, done / ramp)) * tf.where(done < WAITS_FROM * ramp, 1.0, known)


def pile_trust(state: State, most: float) -> tf.Tensor:
    """Returns the factor on the pile's losses, float32 scalar, 0..1: `most` times the square of the seen skill."""
    return most * tf.square(tf.maximum(0.0, seen_skill(state)))


def seen_skill(state: State) -> tf.Tensor:
    """Returns how well D knows strong views of the labelled images, which it learns from, float32 scalar up to 1.

    The share of the way from chance (0) to no errors (1), averaged over the steps before.
    """
    chance = 1.0 / state.class_mean.shape[0]
    return (state.seen_accuracy - chance) / (1.0 - chance)


def note_accuracy(state: State, accuracy: tf.Tensor) -> None:
    """Moves the average behind `seen_skill` by D's accuracy on a batch of labelled images, float32 scalar, 0..1."""
    now = mean_over_replicas(accuracy)
    state.seen_accuracy.assign(DECAY * state.seen_accuracy + (1.0 - DECAY) * now)
