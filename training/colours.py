"""What colours are for in a data set: none at all, or what tells its classes, or what varies beside them."""

import numpy as np
from numpy.typing import NDArray

from prelabel.images import Pixels
from training.spread import LOOKED_AT, evenly_spread

TOLD = 0.85
"""Accuracy that labels may at most have to reach to show that colours name their classes; with five of each of two
classes, one that is wrong would count as proof that they do not."""


def are_grey(images: Pixels) -> bool:
    """Returns whether images (uint8 [n, H, W, C]) have one channel, or nearly all have equal ones.

    At most 500 of them are looked at. One in fifty may have colours, and channels may differ by 8 of 255: scans and
    what lies in a pile by mistake.
    """
    if images.shape[3] == 1:
        return True
    sample = images[evenly_spread(len(images), LOOKED_AT)].astype(np.int16)
    chroma = (sample.max(axis=3) - sample.min(axis=3)).max(axis=(1, 2))
    return bool((chroma > 8).mean() <= 0.02)


def colour_may_tell_class(images: Pixels, labels: NDArray[np.int32]) -> bool:
    """False only where the colours of images (uint8 [n, H, W, 3]) are known not to name their classes (int32 [n]).

    Each image is given the class whose other images have the nearest mean colour, and that of the image with the
    nearest colour, since a class may have several; in units of the channels' spread (leave one out, at most 2,000
    images). Both by the colour of the whole image and by that of the thing in it, since of a small thing on any ground
    the former says nothing. Colours name classes where the mean over the classes of how many are right is above chance
    by more than 3 standard deviations of it, or, of nearest images, above that of each of 999 shuffles of the labels;
    classes that a person tells by colour are far above. True as well where labels are too few to tell, so that more
    than `TOLD` would have to be right: to take a class's colour away is worse than to leave one that means nothing.
    """
    chosen = evenly_spread(len(images), 2000)
    images, labels = images[chosen], labels[chosen]
    names, of_name = np.unique(labels, return_inverse=True)
    labels = of_name.astype(np.int32)
    counts = np.bincount(labels)
    asked = counts > 1  # a class's only image has no other to be compared with
    if not asked.any():
        return True
    chance = 1.0 / len(names)
    deviation = np.sqrt(chance * (1.0 - chance) * (1.0 / counts[asked]).sum()) / asked.sum()
    wanted = chance + 3.0 * deviation
    if wanted > TOLD:
        return True
    # One by one: large images take gigabytes as wider numbers.
    of_things = np.stack([_colour_of_thing(image) for image in images])
    for colours in (images.mean(axis=(1, 2)), of_things):
        colours = (colours - colours.mean(axis=0)) / np.maximum(colours.std(axis=0), 1e-6)
        if _accuracy(_classes_of_nearest_means(colours, labels), labels) > wanted:
            return True
        if _neighbours_tell(colours, labels):
            return True
    return False


def _colour_of_thing(image: Pixels) -> NDArray[np.float64]:
    """Returns the mean colour (float64 [3]) of what differs most from the border's median: half as much or more."""
    border = np.concatenate((image[0], image[-1], image[:, 0], image[:, -1]))
    distance = np.abs(image - np.median(border, axis=0).astype(np.int16)).max(axis=2)
    colour: NDArray[np.float64] = image[distance >= distance.max() / 2].mean(axis=0)
    return colour


def _accuracy(found: NDArray[np.int32], labels: NDArray[np.int32]) -> float:
    """Returns how many of the found classes (0..K-1, [n]) are right: the mean over the classes with more than one."""
    counts = np.bincount(labels)
    right = np.bincount(labels, found == labels) / counts
    return float(right[counts > 1].mean())


def _classes_of_nearest_means(colours: NDArray[np.float64], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns for colours (float64 [n, 3]) the class (0..K-1, [n]) whose other images have the nearest mean."""
    member = labels[:, None] == np.arange(labels.max() + 1)  # [n, K]
    sums, counts = member.T @ colours, member.sum(axis=0)
    left = counts[None] - member  # images of each class without the one that is asked about
    means = (sums[None] - member[..., None] * colours[:, None]) / np.maximum(left, 1)[..., None]
    distances = np.where(left > 0, ((means - colours[:, None]) ** 2).sum(axis=2), np.inf)
    return distances.argmin(axis=1)


def _neighbours_tell(colours: NDArray[np.float64], labels: NDArray[np.int32]) -> bool:
    """Returns whether the nearest other colour is of the same class more often than chance has it.

    Two images are often each other's nearest, and right or wrong together: only shuffles tell what chance has.
    """
    generator = np.random.default_rng(0)
    squares = (colours**2).sum(axis=1)
    distances = squares[:, None] + squares - 2.0 * colours @ colours.T
    distances += 1e-9 * generator.random(distances.shape)  # of equal colours any may be the nearest, not the first
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    shuffles = (generator.permutation(labels) for _ in range(999))
    known = _accuracy(labels[nearest], labels)
    return all(known > _accuracy(shuffled[nearest], shuffled) for shuffled in shuffles)
