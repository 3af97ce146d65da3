"""What is known of colours from few images: when they may be taken away."""

import numpy as np
import pytest

from prelabel.images import Pixels
from training.colours import are_grey, colour_may_tell_class


def squares_of(colours: list[tuple[int, int, int]]) -> Pixels:
    """A square of each colour on a dark ground, uint8 [n, 16, 16, 3]."""
    images = np.full((len(colours), 16, 16, 3), 30, np.uint8)
    images[:, 4:12, 4:12] = np.array(colours, np.uint8)[:, None, None]
    return images


def test_colours_that_tell_nothing_are_known_by_many_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 8, 8, 3)).astype(np.uint8)
    assert not colour_may_tell_class(images, np.arange(5000, dtype=np.int32) % 10)


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_colour_of_a_small_thing_on_any_ground_is_kept(is_busy: bool) -> None:
    """The mean of such an image is the ground's."""
    generator = np.random.default_rng(0)
    labels = np.arange(80, dtype=np.int32) % 2
    images = np.broadcast_to(generator.integers(60, 190, (80, 1, 1, 3)), (80, 32, 32, 3)).copy()
    if is_busy:
        images += generator.integers(-30, 30, (80, 32, 32, 3))
    for image, label in zip(images, labels, strict=True):
        top, left = generator.integers(2, 24, 2)
        image[top : top + 6, left : left + 6] = (255, 0, 0) if label else (0, 255, 0)
    pile = images.astype(np.uint8)
    assert colour_may_tell_class(pile, labels)
    assert not colour_may_tell_class(pile[generator.permutation(80)], labels)


def test_some_coloured_images_and_faint_hues_leave_a_pile_grey() -> None:
    images = np.random.default_rng(0).integers(0, 240, (500, 8, 8, 1)).astype(np.uint8).repeat(3, axis=3)
    images[..., 0] += 8
    images[:10, 4, 4] = (255, 0, 0)
    assert are_grey(images)
    images[:11, 4, 4] = (255, 0, 0)
    assert not are_grey(images)
    assert are_grey(images[..., :1])


RED, CYAN, GREEN, MAGENTA = (200, 50, 50), (50, 200, 200), (50, 200, 50), (200, 50, 200)


@pytest.mark.parametrize("labels", [5, 8])
def test_of_few_labels_one_of_another_colour_is_no_proof(labels: int) -> None:
    images = squares_of([RED] * labels + [GREEN] * (labels - 1) + [RED])
    assert colour_may_tell_class(images, np.repeat(np.arange(2, dtype=np.int32), labels))


@pytest.mark.parametrize("labels", [20, 40])
def test_a_class_may_have_several_colours(labels: int) -> None:
    """Whose means are the same grey."""
    half = labels // 2
    images = squares_of([RED] * half + [CYAN] * half + [GREEN] * half + [MAGENTA] * half)
    assert colour_may_tell_class(images, np.repeat(np.arange(2, dtype=np.int32), labels))


@pytest.mark.parametrize(("classes", "labels"), [(2, 10), (2, 50), (6, 10), (10, 10), (26, 5)])
def test_any_colour_in_each_class_is_known_to_tell_nothing(classes: int, labels: int) -> None:
    """In all but few of many draws of labels."""
    names = np.repeat(np.arange(classes, dtype=np.int32), labels)
    kept = 0
    for seed in range(15):
        colours = np.random.default_rng(seed).integers(0, 256, (len(names), 3))
        kept += colour_may_tell_class(squares_of([tuple(colour) for colour in colours]), names)
    assert kept <= 2
