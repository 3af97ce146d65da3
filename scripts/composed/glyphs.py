"""Characters in matplotlib's fonts: the sets `letters`, `colour-letters-32` and `glyphs-100`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from scripts.composed.scenery import chunks, contrasting_colours, with_noise
from scripts.composed.split import Masks, Split, balanced, names_of

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOUR_LETTERS = 10
LETTER_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmb10", "cmss10", "cmtt10", "cmmi10",
)  # fmt: skip
GLYPH_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono")
GLYPH_RANGES = (
    (0x0391, 0x03FF),  # Greek
    (0x0402, 0x04FF),  # Cyrillic
    (0x0531, 0x0587),  # Armenian
    (0x10D0, 0x10F0),  # Georgian
    (0x2190, 0x21FF),  # arrows
    (0x2200, 0x22FF),  # mathematical operators
    (0x25A0, 0x25FF),  # geometric shapes
)
SOURCE_PX = 80
"""Side of the picture that a glyph is rendered to once; every image is an affine view of it."""
GLYPH_PX = 56
"""Longest side of the glyph in it."""
BLUR_PX = 2.0
"""The blurred glyph cut at a random level is a thinner or thicker one."""
COMPARE_PX = 20
"""Side at which glyphs are compared: smaller differences are lost to jitter and noise."""


def letters(generator: np.random.Generator, count: int) -> Split:
    """26 upper-case letters in 14 fonts, dark on light paper as if scanned: uint8 [count, 28, 28, 1]."""
    labels = balanced(generator, count, len(ALPHABET))
    masks = render(generator, [ALPHABET[label] for label in labels], LETTER_FONTS, 28)
    ink = generator.uniform(0, 110, (count, 1, 1)).astype(np.float32)
    paper = generator.uniform(170, 255, (count, 1, 1)).astype(np.float32)
    cover = masks.astype(np.float32) / 255
    pixels = with_noise(generator, paper + (ink - paper) * cover, 15.0)
    return Split(pixels[..., None], names_of(labels, ALPHABET))


def colour_letters(generator: np.random.Generator, count: int) -> Split:
    """The first ten letters in any colour on a plain ground of any other: uint8 [count, 32, 32, 3]."""
    labels = balanced(generator, count, COLOUR_LETTERS)
    masks = render(generator, [ALPHABET[label] for label in labels], LETTER_FONTS, 32)
    paper = generator.uniform(0, 255, (count, 3)).astype(np.float32)
    ink = contrasting_colours(generator, paper)
    cover = masks[..., None].astype(np.float32) / 255
    pixels = paper[:, None, None] + (ink - paper)[:, None, None] * cover
    return Split(with_noise(generator, pixels, 12.0), names_of(labels, ALPHABET))


def glyphs(generator: np.random.Generator, count: int, class_count: int = 100) -> Split:
    """Distinct letters and signs of several scripts, light on dark: uint8 [count, 32, 32, 1]."""
    characters = distinct_characters(class_count)
    labels = balanced(generator, count, class_count)
    masks = render(generator, [characters[label] for label in labels], GLYPH_FONTS, 32)
    ink = generator.uniform(130, 255, (count, 1, 1)).astype(np.float32)
    paper = generator.uniform(0, 70, (count, 1, 1)).astype(np.float32)
    cover = masks.astype(np.float32) / 255
    pixels = with_noise(generator, paper + (ink - paper) * cover, 15.0)
    return Split(pixels[..., None], names_of(labels, [f"U+{ord(character):04X}" for character in characters]))


def render(generator: np.random.Generator, characters: Sequence[str], fonts: Sequence[str], size: int) -> Masks:
    """Renders each character in a random font with random rotation, shear, size, place and stroke width.

    Returns:
        uint8 [n, size, size], 0..255, light on black.
    """
    count = len(characters)
    font = generator.integers(0, len(fonts), count)
    inverse = _inverse_affine(generator, count, 2 * size)
    # Hairlines of the Computer Modern fonts vanish at levels over 0.4.
    level = generator.uniform(0.12, 0.38, (count, 1, 1)).astype(np.float32)
    masks = np.empty((count, size, size), np.uint8)
    for part in chunks(count):
        views = [
            np.asarray(
                _source(fonts[font[i]], characters[i]).transform(
                    (2 * size, 2 * size), Image.Transform.AFFINE, inverse[i].tolist(), Image.Resampling.BILINEAR
                )
            )
            for i in range(part.start, part.stop)
        ]
        sharp = np.clip((np.stack(views).astype(np.float32) / 255 - level[part]) * 6 + 0.5, 0, 1)
        # Rendered at twice the size and averaged: smooth edges.
        masks[part] = 255 * sharp.reshape(-1, size, 2, size, 2).mean((2, 4))
    return masks


def _inverse_affine(generator: np.random.Generator, count: int, size: int) -> NDArray[np.float64]:
    """Returns float64 [count, 6]: random maps from pixels of a [size, size] view to those of the glyph's picture."""
    angle = np.deg2rad(generator.uniform(-15, 15, count))
    shear = generator.uniform(-0.2, 0.2, count)
    height = generator.uniform(0.62, 0.88, count) * size / GLYPH_PX
    width = height * generator.uniform(0.8, 1.15, count)
    move = generator.uniform(-0.07, 0.07, (count, 2)) * size
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    slant = np.array([[width, shear * height], [np.zeros(count), height]]).transpose(2, 0, 1)
    back = np.linalg.inv(rotation @ slant)
    offset = SOURCE_PX / 2 - np.einsum("nij,nj->ni", back, size / 2 + move)
    return np.concatenate([back, offset[..., None]], axis=2).reshape(count, 6)


@functools.cache
def _source(font: str, character: str) -> Image.Image:
    """Returns the glyph's blurred picture: mode L, `SOURCE_PX` wide and high, light on black."""
    return _outline(font, character).filter(ImageFilter.GaussianBlur(BLUR_PX))


def _outline(font: str, character: str) -> Image.Image:
    """Returns the glyph centred in its picture, its longest side `GLYPH_PX` long, whatever the font makes of it."""
    rough = _ink(_font(font, SOURCE_PX), character)
    exact = _ink(_font(font, SOURCE_PX * GLYPH_PX / max(rough.size)), character)
    picture = Image.new("L", (SOURCE_PX, SOURCE_PX))
    picture.paste(exact, ((SOURCE_PX - exact.width) // 2, (SOURCE_PX - exact.height) // 2))
    return picture


def _ink(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """Returns the glyph cut to its ink: Pillow's own boxes count the space around it too."""
    side = 4 * round(font.size)
    page = Image.new("L", (side, side))
    ImageDraw.Draw(page).text((side / 4, side / 4), character, 255, font)
    return page.crop(page.getbbox())


@functools.cache
def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    # The basic layout does not depend on whether Pillow was built with Raqm.
    return ImageFont.truetype(str(_font_path(name)), size, layout_engine=ImageFont.Layout.BASIC)


def _font_path(name: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@functools.cache
def distinct_characters(count: int) -> tuple[str, ...]:
    """Chooses the characters of `GLYPH_RANGES`, known to all `GLYPH_FONTS`, that look least alike, in code order.

    Farthest-point sampling: each next character is the one whose nearest chosen one is farthest. The distance of two
    is 1 - the cosine of their blurred small pictures, so ink and stroke width count little; of all fonts, and of turns
    as `render` makes them, the least counts.
    """
    known = set.intersection(*(set(FT2Font(str(_font_path(font))).get_charmap()) for font in GLYPH_FONTS))
    codes = [code for low, high in GLYPH_RANGES for code in range(low, high + 1) if code in known]
    characters = [chr(code) for code in codes if chr(code).isprintable() and not chr(code).isspace()]
    similar = np.full((len(characters), len(characters)), -1.0, np.float32)
    for font in GLYPH_FONTS[::2]:
        upright = np.stack([_fingerprint(font, character, 0) for character in characters])
        for degrees in (-20, 0, 20):
            turned = np.stack([_fingerprint(font, character, degrees) for character in characters])
            similar = np.maximum(similar, turned @ upright.T)
    similar = np.maximum(similar, similar.T)
    chosen = [0]
    while len(chosen) < count:
        nearest = similar[:, chosen].max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return tuple(sorted(characters[i] for i in chosen))


def _fingerprint(font: str, character: str, degrees: int) -> NDArray[np.float32]:
    """Returns the small blurred picture as a vector float32 [COMPARE_PX ** 2] of mean 0 and length 1."""
    picture = _outline(font, character).rotate(degrees, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(3))
    vector = np.asarray(picture.resize((COMPARE_PX, COMPARE_PX), Image.Resampling.BOX), np.float32).ravel()
    vector -= vector.mean()
    vector /= np.linalg.norm(vector)
    return vector
