"""MNIST in other clothes: `colour-digits-32`, `digit-halves`, `unbalanced-digits` and `polluted-digits`."""

import numpy as np
from numpy.typing import NDArray

from prelabel.images import Pixels
from scripts.composed.foreign import make_foreign
from scripts.composed.scenery import paint
from scripts.composed.split import Split, names_of

DIGITS = "0123456789"
RAREST = 0.1
"""Frequency of the rarest class in `unbalanced-digits`, of the most frequent one's."""
POLLUTED = 0.2
"""Fraction of the pile in `polluted-digits` that belongs to no class."""
POLLUTION = ("letters", "inverted", "noise", "neighbours")


def colour_digits(generator: np.random.Generator, images: Pixels, labels: NDArray[np.int64], count: int) -> Split:
    """Digits of any colour, moved by up to 2 pixels, on coloured textures: uint8 [count, 32, 32, 3]."""
    chosen = generator.choice(len(images), count, replace=False)
    masks = np.zeros((count, 32, 32), np.uint8)
    for i, (row, column) in enumerate(generator.integers(0, 5, (count, 2)).tolist()):
        masks[i, row : row + 28, column : column + 28] = images[chosen[i]]
    return Split(paint(generator, masks, 12.0), names_of(labels[chosen], DIGITS))


def digit_halves(generator: np.random.Generator, images: Pixels, labels: NDArray[np.int64], count: int) -> Split:
    """Digits in two classes of five shapes; fours look like nines, threes like eights: uint8 [count, 28, 28, 1]."""
    chosen = generator.choice(len(images), count, replace=False)
    return Split(images[chosen][..., None], names_of(labels[chosen] // 5, ("0-4", "5-9")))


def unbalanced_digits(generator: np.random.Generator, images: Pixels, labels: NDArray[np.int64], count: int) -> Split:
    """Digits whose frequencies fall geometrically from the zeros to the nines: uint8 [about count, 28, 28, 1]."""
    frequencies = RAREST ** (np.arange(10) / 9)
    wanted = np.round(count * frequencies / frequencies.sum()).astype(int)
    parts = [
        generator.choice(np.flatnonzero(labels == digit), number, replace=False) for digit, number in enumerate(wanted)
    ]
    chosen = generator.permutation(np.concatenate(parts))
    return Split(images[chosen][..., None], names_of(labels[chosen], DIGITS))


def polluted_digits(generator: np.random.Generator, images: Pixels, labels: NDArray[np.int64], count: int) -> Split:
    """Digits among which a fifth are images of no class and without a label: uint8 [count, 28, 28, 1].

    The digits stay in MNIST's order, so with all of them here a label draw of the trainer shows the same images as
    from `data/mnist`: what differs between two such runs is the pollution alone.
    """
    foreign_count = round(count * POLLUTED)
    digit_count = count - foreign_count
    foreign = np.zeros(count, bool)
    foreign[generator.choice(count, foreign_count, replace=False)] = True
    mixed = np.zeros((count, 28, 28), np.uint8)
    mixed[~foreign] = images[:digit_count]
    kinds = generator.integers(0, len(POLLUTION), foreign_count)
    polluting = np.zeros((foreign_count, 28, 28), np.uint8)
    for k, kind in enumerate(POLLUTION):
        polluting[kinds == k] = make_foreign(generator, kind, int((kinds == k).sum()), images, labels)
    mixed[foreign] = polluting
    shown, origins = np.full(count, None, object), np.full(count, "digit", object)
    shown[~foreign] = names_of(labels[:digit_count], DIGITS)
    origins[foreign] = [POLLUTION[kind] for kind in kinds]
    return Split(mixed[..., None], tuple(shown), tuple(origins))


def clean_digits(images: Pixels, labels: NDArray[np.int64], count: int) -> Split:
    """The first `count` digits as they are: uint8 [count, 28, 28, 1]."""
    return Split(images[:count, ..., None], names_of(labels[:count], DIGITS))
