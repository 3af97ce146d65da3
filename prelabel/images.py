"""Decoding and resizing: the one function through which every pixel enters prelabel.

Training, the server and bulk work all call `decode_image`, so a model sees in service exactly what it saw in training.
Scaling to the network's range is not done here: it lives inside the exported graph.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from prelabel.errors import ImageError, InputError
from prelabel.jpeg_scans import has_more_scans
from prelabel.tiff_tiles import tiled_pixels

Pixels = NDArray[np.uint8]
"""uint8 [H, W, C] or [B, H, W, C], 0..255."""

RESIZE_RULE = "stretch-bilinear"
"""Bring the image to H x W by antialiased bilinear interpolation, whatever its aspect ratio: nothing is cropped."""

MAX_IMAGE_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded (decompression bombs). Pillow keeps colours in four bytes
a pixel, and at most one converted copy beside them: 512 MB."""

_MAX_SCANS = 64
"""Passes over the picture of a JPEG file: each costs as much as a scan with something in it, however short it is.
libtiff has such a limit for those inside of TIFF."""

_MAX_RUN_LENGTH_PIXELS = 1 << 22
"""Pixels of a run-length coded BMP file: Pillow decodes those in Python, with the interpreter locked, and a row may be
four bytes."""

_TILE_MARGIN_PIXELS = 1 << 20
"""What the tiles of a TIFF file may have beside the picture, and a quarter of the most pixels more."""

_STRIP_PIXELS = 1 << 18
"""Pixels of which transparency is resolved at a time."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""Pillow's names of the formats that are decoded; its other decoders are not meant for bytes from strangers."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes the picture upright (CIPA DC-008, 4.6.4)."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
"""File names that count as images, in lower case."""

OTHER_IMAGE_SUFFIXES = frozenset(
    {".avif", ".dng", ".exr", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm", ".pgm", ".pnm", ".ppm", ".tga"}
)
"""File names of images that are not read, in lower case: whoever has some should hear that they are left out."""


@dataclass(frozen=True)
class ImageSpec:
    """The tensor that a model takes for one image: uint8 [height, width, channels], 0..255."""

    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    channels: Literal[1, 3]
    """1 (grey) or 3 (RGB)."""
    resize_rule: str = RESIZE_RULE
    """How images of other sizes are brought to height x width."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.channels not in (1, 3):
            raise InputError(
                f"image shape {self.shape} is not usable: height and width >= 1 and 1 or 3 channels wanted"
            )
        if self.resize_rule != RESIZE_RULE:
            raise InputError(
                f"unknown resize rule {self.resize_rule!r}: this version of prelabel knows {RESIZE_RULE!r}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


def decode_image(data: bytes, spec: ImageSpec, max_pixels: int = MAX_IMAGE_PIXELS) -> Pixels:
    """Decodes one image file and brings it to the model's shape.

    EXIF rotation is applied, transparency is laid on black, palettes, CMYK and 16-bit greys are converted. Of a
    camera's multi-picture JPEG the main picture is taken. Safe to call from several threads.

    Args:
        data: The bytes of a PNG, JPEG, BMP, GIF, WebP or TIFF file.
        spec: The shape to bring the image to.
        max_pixels: Larger images are refused by their header, before anything is decoded; `MAX_IMAGE_PIXELS` at most.

    Returns:
        uint8 [H, W, C], 0..255.

    Raises:
        ImageError: The bytes are empty, truncated, no image, animated, of floating-point pixels, decode to more than
            `max_pixels`, or would take far more time or memory than so many pixels do.
    """
    with _decoding(data, max_pixels):
        image = _to_mode(_open(data, max_pixels), "L" if spec.channels == 1 else "RGB")
        if image.size != (spec.width, spec.height):
            image = image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(spec.shape)


def fit_pixels(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Brings one decoded image (uint8 [h, w], [h, w, 1] or [h, w, 3]) to the model's shape by the same rule.

    Raises:
        ImageError: The array has another rank or number of channels, or no pixels.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ImageError(f"pixels {pixels.dtype} {list(pixels.shape)} are not a uint8 image [h, w, 1 or 3]")
    if pixels.shape == spec.shape:
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image = image.convert("L" if spec.channels == 1 else "RGB")
    return np.asarray(image.resize((spec.width, spec.height), Image.Resampling.BILINEAR), np.uint8).reshape(spec.shape)


def read_picture(data: bytes) -> tuple[Image.Image, str]:
    """Decodes one image file at its own size.

    Returns:
        The upright picture in RGB, by the rules of `decode_image`; and Pillow's mode of the pixels in the file (`L`,
        `RGB`, `CMYK`, `I;16`, ...).

    Raises:
        ImageError: As `decode_image`.
    """
    with _decoding(data, MAX_IMAGE_PIXELS):
        image = _open(data, MAX_IMAGE_PIXELS)
        return _to_mode(image, "RGB"), image.mode


def image_size_and_channels(data: bytes) -> tuple[int, int, int]:
    """Returns (height, width, channels) of an image file, upright; channels is 1 for greys and 3 otherwise.

    Raises:
        ImageError: As `decode_image`.
    """
    with _decoding(data, MAX_IMAGE_PIXELS):
        image = _open(data, MAX_IMAGE_PIXELS)
        grey = image.mode in {"1", "L", "LA"} or image.mode.startswith("I;16")
        return image.height, image.width, 1 if grey else 3


@contextlib.contextmanager
def _decoding(data: bytes, max_pixels: int) -> Iterator[None]:
    """Turns whatever Pillow raises over `data` into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"not an image in a known format, or cut off in its header (first bytes {data[:8].hex(' ')})"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow goes on with a limit of its own.
        raise ImageError(f"over the limit of {max_pixels} pixels: {str(error).partition(' exceeds ')[0]}") from None
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}") from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Returns the loaded image, upright; what it raises is for `_decoding` to translate."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > max_pixels:
        raise ImageError(f"{image.width} x {image.height} pixels are over the limit of {max_pixels} pixels")
    if image.format in {"JPEG", "MPO"} and has_more_scans(data, _MAX_SCANS):
        raise ImageError(f"the JPEG file has more scans than the limit of {_MAX_SCANS}: save it anew, with one")
    if isinstance(image, TiffImageFile):
        tiled = tiled_pixels(image, data)
        if tiled > (most := max_pixels + max_pixels // 4 + _TILE_MARGIN_PIXELS):
            raise ImageError(f"the tiles of the TIFF file have {tiled} pixels, over the limit of {most}")
    if image.tile and image.tile[0][0] == "bmp_rle" and image.width * image.height > _MAX_RUN_LENGTH_PIXELS:
        raise ImageError(
            f"{image.width} x {image.height} pixels are over the limit of {_MAX_RUN_LENGTH_PIXELS} pixels of a "
            "run-length coded BMP file: save it without that"
        )
    # A camera's JPEG may carry previews or depth maps behind the picture (MPO); elsewhere no frame is the main one.
    # Whether there are more, not how many: to count the pages of a TIFF takes time with the square of their number.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("the file holds more than one frame; give each frame as an image of its own")
    image.load()
    if image.mode == "F" or image.mode == "I":
        what = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageError(f"{what} pixels have no stated range; convert the image to 8 or 16 bits")
    # Pillow's own `exif_transpose` also writes the EXIF anew, which fails on values of types that it does not expect.
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _to_mode(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit greys to 255 instead of scaling them.
        grey = np.empty((image.height, image.width), np.uint8)
        image = Image.fromarray(np.right_shift(np.asarray(image), 8, out=grey, casting="unsafe"))
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        image = _on_black(image, mode)
    return image if image.mode == mode else image.convert(mode)


def _on_black(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Returns the image without its transparency; strip by strip, for each step of the way takes four bytes a pixel."""
    flat = Image.new(mode, image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, (0, 0, 0, 255)), strip)
        flat.paste(strip.convert(mode), (0, top))
    return flat
