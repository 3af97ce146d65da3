"""Pictures with enough detail for perceptual hashes, and the same picture in other files."""

import io

import numpy as np
from PIL import Image


def picture(seed: int, size_px: int = 64, patches: int = 6) -> Image.Image:
    """A random RGB picture of `patches` x `patches` colours that flow into each other: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (patches, patches, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
