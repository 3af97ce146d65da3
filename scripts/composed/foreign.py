"""Images for a digit classifier that show no digit: for pollution, and for tests of what is out of distribution."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.images import Pixels
from scripts.composed.glyphs import ALPHABET, LETTER_FONTS, render
from scripts.composed.mnist import MNIST, load_digits
from scripts.composed.scenery import smooth_fields

Foreign = Literal["rotated", "inverted", "noise", "letters", "composed"]
"""The kinds of out-of-distribution images."""
NO_DIGITS = tuple(sorted(set(ALPHABET) - set("BDGIOQSTZ")))
"""Letters that nobody reads as 8, 0, 6, 1, 5, 7 or 2."""


def foreign_images(kind: Foreign, count: int, seed: int, mnist: Path = MNIST) -> Pixels:
    """Returns images for an MNIST classifier that show no digit, made from the test split: uint8 [count, 28, 28, 1]."""
    generator = np.random.default_rng([seed, *kind.encode()])
    images, labels = load_digits(mnist, "test")
    return make_foreign(generator, kind, count, images, labels)[..., None]


def make_foreign(
    generator: np.random.Generator, kind: str, count: int, images: Pixels, labels: NDArray[np.int64]
) -> Pixels:
    """Makes images of a kind, uint8 [count, 28, 28], from digits uint8 [n, 28, 28] with labels int64 [n]."""
    match kind:
        case "rotated":
            return rotated(generator, count, images, labels)
        case "inverted":
            return inverted(generator, count, images)
        case "noise":
            return noise(generator, count)
        case "letters":
            return foreign_letters(generator, count)
        case "composed":
            return composed(generator, count, images, labels)
        case "neighbours":
            return neighbours(generator, count, images)
    raise AssertionError(kind)


def rotated(generator: np.random.Generator, count: int, images: Pixels, labels: NDArray[np.int64]) -> Pixels:
    """Digits turned by 90 or 180 degrees; only turns after which no digit is left (a 6 by 180 degrees is a 9)."""
    quarter = np.flatnonzero(np.isin(labels, [0], invert=True))
    half = np.flatnonzero(np.isin(labels, [3, 4, 7]))
    left = np.rot90(images[generator.choice(quarter, count)], 1, (1, 2))
    right = np.rot90(images[generator.choice(quarter, count)], 3, (1, 2))
    over = np.rot90(images[generator.choice(half, count)], 2, (1, 2))
    return np.choose(generator.integers(0, 3, count)[:, None, None], [left, right, over])


def inverted(generator: np.random.Generator, count: int, images: Pixels) -> Pixels:
    """Digits dark on light."""
    return 255 - images[generator.choice(len(images), count)]


def noise(generator: np.random.Generator, count: int) -> Pixels:
    """Noise of four grains, from single pixels to blotches wider than strokes, half of it cut to black and white."""
    grains = [generator.random((count, 28, 28, 1), np.float32)]
    grains += [smooth_fields(generator, count, 28, cells, 1) for cells in (14, 8, 5)]
    fields = np.stack(grains)[generator.integers(0, 4, count), np.arange(count), :, :, 0]
    # A threshold over the mean leaves blobs on black, which is what digits look like to a careless model.
    cut = np.clip((fields - generator.uniform(0.5, 0.7, (count, 1, 1))) * 12 + 0.5, 0, 1)
    return (255 * np.where(generator.random((count, 1, 1)) < 0.5, cut, fields)).astype(np.uint8)


def foreign_letters(generator: np.random.Generator, count: int) -> Pixels:
    """Letters as bright on black as the digits are, so that only their form is foreign."""
    chosen = [NO_DIGITS[i] for i in generator.integers(0, len(NO_DIGITS), count)]
    return render(generator, chosen, LETTER_FONTS, 28)


def composed(generator: np.random.Generator, count: int, images: Pixels, labels: NDArray[np.int64]) -> Pixels:
    """Two halves of digits of different classes, glued at their outer sides inside the box that digits fill.

    Glued at their inner sides, as one digit is made, many halves make a digit again: the top of a 9 on the foot of a 7.
    """
    first, second = _different_pairs(generator, count, labels)
    pictures = np.zeros((2, count, 28, 28), np.uint8)
    pictures[0, :, :, 4:14], pictures[0, :, :, 14:24] = images[first, :, 14:24], images[second, :, 4:14]
    pictures[1, :, 4:14], pictures[1, :, 14:24] = images[first, 14:24], images[second, 4:14]
    return pictures[generator.integers(0, 2, count), np.arange(count)]


def neighbours(generator: np.random.Generator, count: int, images: Pixels) -> Pixels:
    """Windows between two digits that stand side by side, as a bad segmentation cuts them."""
    first, second = generator.choice(len(images), (2, count))
    # Digits fill the middle 20 columns; without the margins they stand as close as in handwriting.
    pairs = np.concatenate([images[first, :, :24], images[second, :, 4:]], axis=2)
    start = generator.integers(7, 14, count)
    columns = start[:, None] + np.arange(28)
    return np.take_along_axis(pairs, columns[:, None, :], axis=2)


def _different_pairs(
    generator: np.random.Generator, count: int, labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns two lists of positions, int64 [count] each, whose labels differ in every pair."""
    first = generator.choice(len(labels), count)
    second = generator.choice(len(labels), count)
    while len(same := np.flatnonzero(labels[first] == labels[second])):
        second[same] = generator.choice(len(labels), len(same))
    return first, second
