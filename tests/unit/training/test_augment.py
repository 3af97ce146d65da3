import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from prelabel.images import ImageSpec
from training.augment import (
    PHOTOGRAPHS,
    VIEWS,
    View,
    choose_kind,
    fitted,
    random_view,
    view_strength,
)
from training.models import build_discriminator
from training.recipe import PRESETS, changed


def images(count: int = 8) -> tf.Tensor:
    generator = np.random.default_rng(0)
    pixels = np.full((count, 16, 16, 1), -1.0, np.float32)
    pixels[:, 5:11, 5:11] = generator.uniform(0, 1, (count, 6, 6, 1))
    return tf.constant(pixels)


@pytest.mark.parametrize("kind", ["digits", "recoloured-digits", "natural", "recoloured"])
@pytest.mark.parametrize("strength", [0, 1])
def test_views_depend_on_the_seed_alone_and_stay_in_range(kind: str, strength: int) -> None:
    view = VIEWS[kind][strength]  # type: ignore[index]
    first, again, other = (random_view(images(), view, kind, tf.constant([0, s])).numpy() for s in (1, 1, 2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.min() >= -1
    assert first.max() <= 1


def test_a_view_without_freedom_is_the_image_itself() -> None:
    still = View(0, 0, 0, 0, 0, 0, 0, 0)
    np.testing.assert_allclose(random_view(images(), still, "digits", tf.constant([0, 0])), images(), atol=1e-5)
    without_strength = random_view(images(), VIEWS["digits"][1], "digits", tf.constant([0, 0]), 0.0)
    np.testing.assert_allclose(without_strength, images(), atol=1e-5)
    assert random_view(images(), VIEWS["digits"][1], "none", tf.constant([0, 0])) is not None


def test_a_shift_moves_the_content_by_at_most_its_limit() -> None:
    view = View(2 / 16, 0, 0, 0, 0, 0, 0, 0)
    moved = random_view(images(64), view, "digits", tf.constant([0, 3])).numpy()
    rows = np.where((moved > -0.99).any(axis=(2, 3)))
    assert rows[1].min() >= 5 - 2
    assert rows[1].max() <= 10 + 2
    assert rows[1].min() < 5


def test_nothing_flips() -> None:
    """A bright left and a dark right half stay where they are, in every view."""
    pixels = np.full((64, 16, 16, 1), -1.0, np.float32)
    pixels[:, :, :8] = 1.0
    for weak_and_strong in VIEWS.values():
        for view in weak_and_strong:
            views = random_view(tf.constant(pixels), view, "digits", tf.constant([0, 1])).numpy()
            assert (views[:, :, :4].mean(axis=(1, 2, 3)) > views[:, :, -4:].mean(axis=(1, 2, 3))).all()


def test_the_kind_comes_from_the_borders() -> None:
    labels = np.arange(20, dtype=np.int32) % 2
    plain = np.full((20, 16, 16, 3), 250, np.uint8)
    plain[:, 4:12, 4:12] = 10
    grey = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1)).astype(np.uint8)
    assert choose_kind(plain, plain, labels) == "digits"
    assert choose_kind(grey, grey, labels) == "natural"
    assert choose_kind(grey.repeat(3, axis=3), grey.repeat(3, axis=3), labels) == "natural"


def test_colours_vary_where_they_tell_nothing() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(100, dtype=np.int32) % 5
    base = generator.integers(0, 256, (100, 1, 1, 3))
    noise = generator.integers(-60, 60, (100, 16, 16, 3))
    any_colour = np.clip(base + noise, 0, 255).astype(np.uint8)
    of_class = np.clip(base[labels] + 2 * noise, 0, 255).astype(np.uint8)
    assert choose_kind(any_colour, any_colour, labels) == "recoloured"
    assert choose_kind(of_class, of_class, labels) == "natural"
    for images, kind in ((any_colour, "recoloured-digits"), (of_class, "digits")):
        framed = images.copy()
        for edge in (framed[:, 0], framed[:, -1], framed[:, :, 0], framed[:, :, -1]):
            edge[:] = 255
        assert choose_kind(framed, framed, labels) == kind


@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (4, 5), (5, 5), (72, 8), (80, 8), (50, 2), (90, 10), (30, 1, 30)])
def test_classes_told_apart_by_colour_alone_keep_their_colours(counts: tuple[int, ...]) -> None:
    """However few the labels are, and however uneven."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.zeros((len(labels), 16, 16, 3), np.uint8)
    images[np.arange(len(labels)), 4:12, 4:12, labels] = 200
    assert choose_kind(images, images, labels) == "digits"


def test_a_thing_that_fills_the_image_is_on_a_plain_ground_too() -> None:
    cross = np.full((20, 8, 8, 1), 10, np.uint8)
    cross[:, 3:5], cross[:, :, 3:5] = 240, 240
    labels = np.arange(20, dtype=np.int32) % 2
    assert choose_kind(cross, cross, labels) == "digits"
    ramps = np.broadcast_to(np.arange(0, 256, 32, dtype=np.uint8)[None, :, None, None], cross.shape)
    assert choose_kind(ramps, ramps, labels) == "natural"


@pytest.mark.parametrize("contrast", [1.0, 0.5, 0.25])
def test_contrast_does_not_decide_what_is_a_photograph(contrast: float) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(20, dtype=np.int32) % 2
    texture = generator.normal(0, 40, (20, 16, 16, 1))
    thing = generator.normal(-100, 3, (20, 16, 16, 1))
    thing[:, 3:13, 6:10] += 200
    for pixels, kind in ((texture, "natural"), (thing, "digits")):
        images = np.clip(128 + contrast * pixels, 0, 255).astype(np.uint8)
        assert choose_kind(images, images, labels) == kind
    tinted = np.clip(np.array([200, 128, 60]) + contrast * texture, 0, 255).astype(np.uint8)
    assert choose_kind(tinted, tinted, labels) in PHOTOGRAPHS


def test_a_long_image_keeps_its_ends() -> None:
    """Turned and sheared as far as a square one, it would lose a tenth of them."""
    view = VIEWS["digits"][1]
    lost = []
    for height, width in ((28, 28), (64, 8), (8, 64)):
        pixels = np.full((200, height, width, 1), -1.0, np.float32)
        top, left = height // 8, width // 8
        pixels[:, top : height - top, left : width - left] = 1.0
        seen = random_view(tf.constant(pixels), view, "digits", tf.constant([0, 4])).numpy()
        lost.append(1.0 - (seen + 1).sum() / (pixels + 1).sum())
    assert max(lost[1:]) < lost[0] + 0.03


def test_recolouring_keeps_greys_and_the_mean_of_the_channels() -> None:
    view = View(0, 0, 0, 0, 0, elastic=0, tone=0, colour=1)
    pixels = np.random.default_rng(0).uniform(-0.3, 0.3, (16, 8, 8, 3)).astype(np.float32)
    turned = random_view(tf.constant(pixels), view, "recoloured", tf.constant([0, 2])).numpy()
    assert np.abs(turned - pixels).max() > 0.1
    np.testing.assert_allclose(turned.mean(axis=3), pixels.mean(axis=3), atol=1e-5)
    grey = tf.constant(pixels[..., :1].repeat(3, axis=3))
    np.testing.assert_allclose(random_view(grey, view, "recoloured", tf.constant([0, 2])), grey, atol=1e-5)


def test_an_elastic_view_bends_but_keeps_the_amount_of_ink() -> None:
    view = View(0, 0, 0, 0, 0, elastic=0.04, tone=0, colour=0)
    plain, bent = images(64).numpy(), random_view(images(64), view, "digits", tf.constant([0, 5])).numpy()
    assert (np.abs(bent - plain).mean(axis=(1, 2, 3)) > 0.01).all()
    np.testing.assert_allclose((bent + 1).mean(), (plain + 1).mean(), rtol=0.1)
    assert (bent[:, :2] == -1).all()


def test_strong_views_keep_their_strength_over_half_the_run_and_lose_a_share_of_it_to_the_end() -> None:
    strengths = [float(view_strength(tf.constant(done), 0.6)) for done in (0.0, 0.5, 0.75, 1.0)]
    assert strengths == pytest.approx([1, 1, 0.7, 0.4])
    assert float(view_strength(tf.constant(1.0), 0.0)) == 1


def test_photographs_have_a_step_size_a_batch_a_feature_grid_and_steady_views_of_their_own() -> None:
    changes = ("learning_rate=5e-3", "photo_learning_rate=1e-3", "photo_feature_grid=2", "photo_labelled_batch=48")
    recipe = changed(PRESETS["default"], changes)
    assert fitted(recipe, "digits").view_decay > 0 == fitted(recipe, "natural").view_decay
    for kind in ("digits", "recoloured-digits", "none"):
        assert fitted(recipe, kind) == recipe
    for kind in ("natural", "recoloured"):
        photographs = fitted(recipe, kind)
        assert (photographs.learning_rate, photographs.labelled_batch, photographs.feature_grid) == (1e-3, 48, 2)
    assert fitted(PRESETS["book"], "natural") == dataclasses.replace(PRESETS["book"], feature_grid=1)


def test_photographs_do_not_tell_places_apart() -> None:
    spec = ImageSpec(64, 64, 3)
    for kind, features in (("digits", 4 * 4 * 64), ("recoloured", 64)):
        net = build_discriminator(spec, 6, fitted(PRESETS["default"], kind), seed=0)
        assert [output.shape for output in net.outputs] == [(None, 6), (None, features)]
