"""Random views of images, on the device, one batched projective transformation at a time.

Nothing flips: a mirrored digit, letter or sign is another one, or none. All functions take images float32 [B, H, W, C],
-1..1, and a stateless seed int32 [2], so that a step's views depend on (seed, step) alone.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from prelabel.images import Pixels
from training.colours import are_grey, colour_may_tell_class
from training.recipe import Recipe
from training.spread import LOOKED_AT, evenly_spread

Kind = Literal["none", "digits", "recoloured-digits", "natural", "recoloured"]


@dataclass(frozen=True)
class View:
    """How far a random view may lie from the image."""

    shift: float
    """Largest move in either direction, as a fraction of the image's side."""
    rotation_degrees: float
    """Largest rotation either way, of a square image; of others as much less as one side is shorter than the other."""
    scale: float
    """Largest change of size either way, as a fraction."""
    shear: float
    """Largest shear either way, of a square image as well."""
    cutout: float
    """Side of a square that is blanked, as a fraction of the image's side; 0 blanks nothing."""
    elastic: float
    """Standard deviation of a smooth random displacement, as a fraction of the image's side; 0 leaves shapes alone."""
    tone: float
    """Largest change of brightness and of contrast; 0 leaves them alone."""
    colour: float
    """0..1, of RGB images: hue turns by up to this many half circles either way, saturation changes by up to this
    fraction; 0 leaves colours alone."""


VIEWS: dict[Kind, tuple[View, View]] = {
    # (weak view, strong view). Digits and signs: on a plain background everything may move, colours stay.
    "digits": (View(0.07, 5.0, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0), View(0.1, 15.0, 0.15, 0.2, 0.0, 0.04, 0.0, 0.0)),
    # The same where a class comes in every colour.
    "recoloured-digits": (
        View(0.07, 5.0, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0),
        View(0.1, 15.0, 0.15, 0.2, 0.0, 0.04, 0.3, 1.0),
    ),
    # Photographs: smaller moves; brightness and contrast vary.
    "natural": (View(0.07, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), View(0.12, 10.0, 0.15, 0.1, 0.3, 0.0, 0.3, 0.0)),
    # The same where a class comes in every colour. Coloured digits, 50 labels a class: 42 % errors in place of 79.
    "recoloured": (View(0.07, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), View(0.12, 10.0, 0.15, 0.1, 0.3, 0.0, 0.3, 1.0)),
    "none": (View(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), View(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
}


PHOTOGRAPHS: tuple[Kind, ...] = ("natural", "recoloured")
"""Kinds of images in which more varies than the thing that is shown."""

ELASTIC_GRID = 5
"""Knots of the elastic field along each side: bends are as wide as a stroke's curve, not as its thickness."""


def choose_kind(images: Pixels, labelled: Pixels, labels: NDArray[np.int32]) -> Kind:
    """Returns the kind of augmentation that fits the data.

    `digits` where most images have a plain ground, else `natural`: nine tenths of the border, or, where a thing fills
    the image, two fifths of all pixels, lie as near to the border's median as a sixteenth of the image's range of
    values: what an image is does not depend on its contrast. `recoloured-digits` and `recoloured` where the images are
    not grey and the colours of the labelled ones do not tell their classes.

    Args:
        images: uint8 [n, H, W, C], 0..255: the pile.
        labelled: uint8 [m, H, W, C], 0..255.
        labels: int32 [m].
    """
    sample = images[evenly_spread(len(images), LOOKED_AT)].astype(np.int16)
    edges = (sample[:, 0], sample[:, -1], sample[:, :, 0], sample[:, :, -1])
    border = np.concatenate(edges, axis=1)  # [n, 2 (H + W), C]
    ground = np.median(border, axis=1, keepdims=True)
    whole = sample.reshape(len(sample), -1, sample.shape[3])
    # Of one channel: a cast of colour is no contrast. One grey level is the noise of an empty image.
    near = np.maximum(1.0, (whole.max(axis=1) - whole.min(axis=1)).max(axis=1)[:, None] / 16)
    of_border, of_image = ((np.abs(p - ground).max(axis=2) <= near).mean(axis=1) for p in (border, whole))
    plain = (of_border >= 0.9) | (of_image >= 0.4)
    any_colour = not are_grey(images) and not colour_may_tell_class(labelled, labels)
    if plain.mean() >= 0.5:
        return "recoloured-digits" if any_colour else "digits"
    return "recoloured" if any_colour else "natural"


def fitted(recipe: Recipe, kind: Kind) -> Recipe:
    """Returns the recipe for images of a kind: photographs have a step size, batch and feature grid of their own.

    Their views are as strong to the end: more varies in them than the few labels show.
    """
    if kind not in PHOTOGRAPHS:
        return recipe
    return dataclasses.replace(
        recipe,
        learning_rate=recipe.photo_learning_rate,
        feature_grid=recipe.photo_feature_grid,
        labelled_batch=recipe.photo_labelled_batch,
        view_decay=0.0,
    )


def view_strength(done: tf.Tensor, decay: float) -> tf.Tensor:
    """Returns the strength of strong views, float32 scalar, 0..1, where a share of the run (0..1) is done.

    The whole of it over the first half; then it falls evenly to 1 - `decay`.
    """
    return 1.0 - decay * tf.clip_by_value(2.0 * done - 1.0, 0.0, 1.0)


def random_view(
    images: tf.Tensor, view: View, kind: Kind, seed: tf.Tensor, strength: tf.Tensor | float = 1.0
) -> tf.Tensor:
    """Returns one random view of each image, float32 [B, H, W, C], -1..1.

    `strength`, float32 scalar, 0..1, is a factor on all that varies in it but the size of a blanked square.
    """
    if kind == "none":
        return images
    seeds = tf.random.split(seed, 12)
    batch = tf.shape(images)[0]
    height, width = images.shape[1], images.shape[2]

    def uniform(number: int, limit: float) -> tf.Tensor:
        return strength * tf.random.stateless_uniform([batch], seeds[number], -limit, limit)

    # What turns or slants a long image as far as a square one moves its ends out of the frame.
    slant = min(height, width) / max(height, width)
    angle = uniform(0, slant * view.rotation_degrees * np.pi / 180)
    zoom_x, zoom_y = 1.0 + uniform(1, view.scale), 1.0 + uniform(2, view.scale)
    shear = uniform(3, slant * view.shear)
    move_x, move_y = uniform(4, view.shift * width), uniform(5, view.shift * height)
    # The matrix maps output to input pixels: a rotation with zoom and shear about the centre, then a shift.
    a, b = tf.cos(angle) / zoom_x, (shear * tf.cos(angle) - tf.sin(angle)) / zoom_y
    c, d = tf.sin(angle) / zoom_x, (shear * tf.sin(angle) + tf.cos(angle)) / zoom_y
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    offset_x = centre_x - a * centre_x - b * centre_y + move_x
    offset_y = centre_y - c * centre_x - d * centre_y + move_y
    zero = tf.zeros([batch])
    transforms = tf.stack([a, b, offset_x, c, d, offset_y, zero, zero], axis=1)
    # A plain background goes on at its own colour; a photograph's edge is repeated.
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    if view.elastic:
        moved = _elastic(moved, strength * view.elastic, seeds[9])
    if view.colour and images.shape[3] == 3:
        moved = _recolour(moved, uniform(10, np.pi * view.colour), 1.0 + uniform(11, view.colour))
    if view.tone:
        contrast = 1.0 + tf.reshape(uniform(6, view.tone), [-1, 1, 1, 1])
        brightness = tf.reshape(uniform(7, view.tone), [-1, 1, 1, 1])
        moved = tf.clip_by_value(moved * contrast + brightness, -1.0, 1.0)
    return _cutout(moved, view.cutout, seeds[8]) if view.cutout else moved


def _recolour(images: tf.Tensor, angle: tf.Tensor, saturation: tf.Tensor) -> tf.Tensor:
    """Turns the hue by `angle` (radians, [B]) about the grey axis and scales the distance from it by `saturation` [B].

    Rodrigues' rotation: along the axis nothing changes, so the mean of the three channels stays.
    """
    along = tf.fill([3, 3], 1.0 / 3.0)
    across = tf.eye(3) - along
    turned = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3.0).astype(np.float32)
    cosine, sine = (saturation * f(angle) for f in (tf.cos, tf.sin))
    matrix = along + cosine[:, None, None] * across + sine[:, None, None] * turned
    return tf.clip_by_value(tf.einsum("bhwc,bdc->bhwd", images, matrix), -1.0, 1.0)


def _cutout(images: tf.Tensor, fraction: float, seed: tf.Tensor) -> tf.Tensor:
    """Fills a square at a random place with the image's corner mean (DeVries and Taylor 2017)."""
    batch = tf.shape(images)[0]
    height, width = images.shape[1], images.shape[2]
    centre = tf.random.stateless_uniform([2, batch, 1], seed)
    rows = tf.abs(tf.range(height, dtype=tf.float32)[None] + 0.5 - centre[0] * height) < fraction * height / 2
    columns = tf.abs(tf.range(width, dtype=tf.float32)[None] + 0.5 - centre[1] * width) < fraction * width / 2
    hole = tf.cast(rows[:, :, None, None] & columns[:, None, :, None], images.dtype)
    corners = (images[:, :1, :1] + images[:, -1:, :1] + images[:, :1, -1:] + images[:, -1:, -1:]) / 4
    return images * (1.0 - hole) + corners * hole


def _elastic(images: tf.Tensor, fraction: tf.Tensor | float, seed: tf.Tensor) -> tf.Tensor:
    """Moves pixels along a smooth random field (Simard et al. 2003): bends strokes as another hand would."""
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1], images.shape[2], images.shape[3]
    coarse = tf.random.stateless_normal([batch, ELASTIC_GRID, ELASTIC_GRID, 2], seed)
    field = tf.image.resize(coarse, [height, width], "bicubic") * [fraction * height, fraction * width]
    rows = tf.clip_by_value(tf.range(height, dtype=tf.float32)[None, :, None] + field[..., 0], 0.0, height - 1.0)
    columns = tf.clip_by_value(tf.range(width, dtype=tf.float32)[None, None, :] + field[..., 1], 0.0, width - 1.0)
    top, left = tf.floor(rows), tf.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    flat = tf.reshape(images, [batch, height * width, channels])

    def pixel(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        position = tf.cast(tf.minimum(row, height - 1.0) * width + tf.minimum(column, width - 1.0), tf.int32)
        picked = tf.gather(flat, tf.reshape(position, [batch, height * width]), batch_dims=1)
        return tf.reshape(picked, [batch, height, width, channels])

    upper = pixel(top, left) * (1.0 - right) + pixel(top, left + 1.0) * right
    lower = pixel(top + 1.0, left) * (1.0 - right) + pixel(top + 1.0, left + 1.0) * right
    return upper * (1.0 - down) + lower * down
