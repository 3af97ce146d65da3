"""Drawn shapes on coloured grounds: the sets `shapes-64` and `binary-64`."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prelabel.images import Pixels
from scripts.composed.scenery import paint, with_clutter
from scripts.composed.split import Masks, Split, balanced, names_of

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
OUTLINES = ("smooth", "jagged")
SIZE_PX = 64
OVERSAMPLE = 2
"""Masks are drawn this many times larger and averaged: smooth edges."""

Points = NDArray[np.float64]
"""float64 [n, 2]: corners of a polygon, x and y, about the origin; radius 1 is the shape's size."""


def shapes(generator: np.random.Generator, count: int) -> Split:
    """Six geometric shapes of any colour, size, place and rotation under clutter: uint8 [count, 64, 64, 3]."""
    labels = balanced(generator, count, len(SHAPES))
    masks = np.stack([_draw(generator, *_shape(SHAPES[label])) for label in labels])
    return Split(_finish(generator, masks), names_of(labels, SHAPES))


def outlines(generator: np.random.Generator, count: int) -> Split:
    """Blobs whose outline is smooth or jagged, else alike: uint8 [count, 64, 64, 3]."""
    labels = balanced(generator, count, len(OUTLINES))
    masks = np.stack([_draw(generator, _blob(generator, OUTLINES[label] == "jagged"), None) for label in labels])
    return Split(_finish(generator, masks), names_of(labels, OUTLINES))


def _finish(generator: np.random.Generator, masks: Masks) -> Pixels:
    return np.stack([with_clutter(generator, image, 4) for image in paint(generator, masks, 12.0)])


def _shape(name: str) -> tuple[Points, Points | None]:
    """Returns the outline of a shape, and that of the hole in it, if any."""
    match name:
        case "circle":
            return _polygon(40), None
        case "ring":
            return _polygon(40), 0.55 * _polygon(40)
        case "square":
            return _polygon(4), None
        case "triangle":
            return _polygon(3), None
        case "star":
            return _polygon(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None], None
        case "cross":
            arm = 0.3
            corners = [(arm, 1), (arm, arm), (1, arm)]  # of one quarter, turned three times
            turns = [np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), k) for k in range(4)]
            quarter = np.array(corners, np.float64)
            return np.concatenate([quarter @ turn.T for turn in turns]), None
    raise AssertionError(name)


def _polygon(corners: int) -> Points:
    angle = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _blob(generator: np.random.Generator, jagged: bool) -> Points:
    """Returns a closed outline of 144 points with three low waves; a jagged one has 14 to 24 teeth besides."""
    angle = 2 * np.pi * np.arange(144) / 144
    radius = np.ones(144)
    for wave in (2, 3, 4):
        radius += generator.uniform(0, 0.22) / np.sqrt(wave) * np.cos(wave * angle + generator.uniform(0, 2 * np.pi))
    if jagged:
        teeth = int(generator.integers(14, 25))
        saw = 2 * np.abs((teeth * angle / (2 * np.pi)) % 1 - 0.5) - 0.5  # -0.5..0.5: the mean radius stays
        radius += generator.uniform(0.18, 0.34) * saw * generator.uniform(0.6, 1.0, teeth).repeat(20)[:144]
    return _polygon(144) * radius[:, None]


def _draw(generator: np.random.Generator, outline: Points, hole: Points | None) -> NDArray[np.uint8]:
    """Returns a mask uint8 [64, 64] of the shape at a random place with a random size, rotation and aspect."""
    side = SIZE_PX * OVERSAMPLE
    angle = generator.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    radius = generator.uniform(0.18, 0.36) * side
    stretch = np.array([1.0, generator.uniform(0.8, 1.0)])  # along the shape's own axes, then turned
    place = generator.uniform(0.9 * radius, side - 0.9 * radius, 2)  # may be cut a little by the frame
    image = Image.new("L", (side, side))
    for points, tone in ((outline, 255), (hole, 0)):
        if points is not None:
            corners = (points * stretch * radius) @ rotation.T + place
            ImageDraw.Draw(image).polygon([(x, y) for x, y in corners.tolist()], fill=tone)
    return np.asarray(image.reduce(OVERSAMPLE))
