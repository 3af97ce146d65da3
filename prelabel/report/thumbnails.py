"""Small copies of images as data: URIs, within a budget for all of them."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from prelabel.errors import ImageError
from prelabel.images import ImageSpec, image_size_and_channels
from prelabel.sources import Sample, Source

BUDGET_BYTES = 8_000_000
"""All images of a page together, as they stand in it (base64): mail programs and wikis take such a file."""
PNG_SIDE_PX = 32
"""Up to this side images are PNG, without loss: so small, JPEG saves nothing and smears digits."""
STEPS = ((96, 85), (72, 75), (48, 70), (32, 60), (16, 50))
"""Longest side in pixels and JPEG quality, from what is wanted to what always fits: about 1,000 bytes in base64."""


def make_thumbnails(source: Source, shown: Sequence[int], budget_bytes: int = BUDGET_BYTES) -> dict[int, str]:
    """Returns row -> data: URI; rows whose image cannot be read or decoded are left out.

    Every image may take as much as the budget allows if all took as much.

    Args:
        source: Where the images are.
        shown: Rows, as often as they are shown.
        budget_bytes: For all of `shown`, over 1,000 for each.
    """
    uris = {}
    for row in sorted(set(shown)):
        (sample,) = source.read(row, row + 1)
        try:
            uris[row] = _uri(sample, budget_bytes // len(shown))
        except ImageError:
            continue  # an error row, or a file that was changed since: its tile says that there is no image
    return uris


def _uri(sample: Sample, limit_bytes: int) -> str:
    height, width, channels = _shape(sample)
    uri = ""
    for side, quality in STEPS:
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = sample.pixels(ImageSpec(*size, 1 if channels == 1 else 3))
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        kind = "png" if max(size) <= PNG_SIDE_PX and uri == "" else "jpeg"
        uri = _encode(image, kind, quality)
        if len(uri) <= limit_bytes:
            break
    return uri


def _encode(image: Image.Image, kind: str, quality: int) -> str:
    buffer = io.BytesIO()
    options = {"optimize": True} if kind == "png" else {"quality": quality, "optimize": True}
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shape(sample: Sample) -> tuple[int, int, int]:
    """Returns (height, width, channels)."""
    if isinstance(sample.content, bytes):
        return image_size_and_channels(sample.content)
    if sample.content is None:
        raise ImageError(sample.error or "could not be read")
    pixels = np.atleast_3d(sample.content)
    return pixels.shape[0], pixels.shape[1], pixels.shape[2]
