"""Colours, textures, clutter and noise: what keeps a set from being separable by a few pixels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prelabel.images import Pixels
from scripts.composed.split import Masks

CHUNK = 512
"""Images that are worked on at a time: float colours take four times the memory of the finished images."""
CONTRAST = 100.0
"""Least distance in RGB, 0..441, from an object's colour to the mean of its background."""
COLOUR_TRIES = 16


def chunks(count: int) -> Iterator[slice]:
    """Yields slices of at most `CHUNK` items that cover 0..count."""
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))


def smooth_fields(
    generator: np.random.Generator, count: int, size: int, cells: int, channels: int
) -> NDArray[np.float32]:
    """Returns random fields float32 [count, size, size, channels], 0..1, that vary over 1 / cells of the side."""
    knots = generator.random((count, cells + 1, cells + 1, channels), np.float32)
    position = np.linspace(0, cells, size, dtype=np.float32)
    left = np.minimum(position.astype(np.int64), cells - 1)
    part = (1 - np.cos(np.pi * (position - left))) / 2  # cosine steps: no visible creases at the knots
    weights = np.zeros((size, cells + 1), np.float32)
    weights[np.arange(size), left] = 1 - part
    weights[np.arange(size), left + 1] += part
    rows = np.einsum("yi,nijc->nyjc", weights, knots, optimize=True)
    fields: NDArray[np.float32] = np.einsum("xj,nyjc->nyxc", weights, rows, optimize=True)
    return fields


def backgrounds(generator: np.random.Generator, count: int, size: int) -> NDArray[np.float32]:
    """Returns colour gradients with some texture, float32 [count, size, size, 3], 0..255."""
    # Colours of one image are of a kind: with the whole range in each, nothing could stand out.
    base = generator.uniform(0.2, 0.8, (count, 1, 1, 3)).astype(np.float32)
    gradient = base + 0.6 * (smooth_fields(generator, count, size, 2, 3) - 0.5)
    blotches = smooth_fields(generator, count, size, 7, 3) - 0.5
    angle, phase = generator.uniform(0, np.pi, (2, count, 1, 1)).astype(np.float32)
    waves = generator.uniform(2, 6, (count, 1, 1)).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    stripes = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + 2 * phase)
    # Squared, so that most images have little of either, and some much.
    rough, striped = (generator.random((2, count, 1, 1, 1)) ** 2).astype(np.float32)
    mixed: NDArray[np.float32] = gradient + 0.4 * rough * blotches + 0.12 * striped * stripes[..., None]
    return mixed.clip(0, 1) * np.float32(255)


def contrasting_colours(generator: np.random.Generator, against: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns colours float32 [n, 3], 0..255, at least `CONTRAST` from `against` [n, 3] where any try is.

    The first such colour is taken, not the farthest: contrast should vary.
    """
    tries = generator.uniform(0, 255, (len(against), COLOUR_TRIES, 3)).astype(np.float32)
    distance = np.linalg.norm(tries - against[:, None], axis=2)
    chosen = np.where((distance >= CONTRAST).any(1), (distance >= CONTRAST).argmax(1), distance.argmax(1))
    colours: NDArray[np.float32] = tries[np.arange(len(tries)), chosen]
    return colours


def paint(generator: np.random.Generator, masks: Masks, noise: float) -> Pixels:
    """Paints each mask in a random colour onto a random background.

    Args:
        generator: Source of every colour.
        masks: uint8 [n, S, S].
        noise: Largest standard deviation of the pixel noise, in grey levels; each image has its own, from 0 up.

    Returns:
        uint8 [n, S, S, 3], 0..255.
    """
    images = np.empty((*masks.shape, 3), np.uint8)
    for part in chunks(len(masks)):
        cover = masks[part, :, :, None].astype(np.float32) / 255
        behind = backgrounds(generator, len(cover), masks.shape[1])
        mean = (behind * cover).sum((1, 2)) / np.maximum(cover.sum((1, 2)), 1)
        colour = contrasting_colours(generator, mean)[:, None, None]
        # A light gradient over the object: a flat colour among textures would give it away.
        shade = 50 * (smooth_fields(generator, len(cover), masks.shape[1], 1, 1) - 0.5)
        images[part] = with_noise(generator, behind * (1 - cover) + (colour + shade) * cover, noise)
    return images


def with_noise(generator: np.random.Generator, pixels: NDArray[np.floating[Any]], noise: float) -> Pixels:
    """Adds normal noise of a standard deviation between 0 and `noise`, one for each image of [n, ...], as uint8."""
    sigma = generator.uniform(0, noise, (len(pixels), *[1] * (pixels.ndim - 1))).astype(np.float32)
    noisy = pixels + sigma * generator.standard_normal(pixels.shape, np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def with_clutter(generator: np.random.Generator, image: Pixels, most: int) -> Pixels:
    """Draws 1 to `most` short lines of random colours over an image uint8 [S, S, 3]."""
    size = len(image)
    overlay = Image.new("RGBA", (2 * size, 2 * size))
    draw = ImageDraw.Draw(overlay)
    for _ in range(generator.integers(1, most + 1)):
        middle, angle = generator.uniform(0, 2 * size, 2), generator.uniform(0, np.pi)
        reach = generator.uniform(0.2, 0.7) * size * np.array([np.cos(angle), np.sin(angle)])
        ends = [*(middle - reach), *(middle + reach)]
        colour = (*generator.integers(0, 256, 3).tolist(), 255)
        draw.line(ends, colour, int(generator.integers(2, 6)))
    small = overlay.reduce(2)  # drawn at twice the size: smooth edges
    base = Image.fromarray(image).convert("RGBA")
    return np.asarray(Image.alpha_composite(base, small).convert("RGB"))
