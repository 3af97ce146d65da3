"""What is kept of each image to find its duplicates: a digest, a perceptual hash, a thumbnail; 224 bytes and the id.

The digest is over decoded pixels and not over the file's bytes: a picture that was saved anew without loss, or whose
metadata was stripped, is the same picture; and files of the same bytes have the same pixels anyway. Decoding costs
nothing extra, since the perceptual hash needs the pixels.

The perceptual hash is pHash (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): of
a 32 x 32 grey picture the 8 x 8 lowest frequencies of the discrete cosine transform without row and column 0; a bit
says whether a coefficient is over the median of the 64. Its first step, a mean filter, is left out: the antialiased
reduction to 32 x 32 does that.

The hash knows neither brightness nor colour nor contrast, and on pictures with little detail, such as digits, different
pictures share hashes. The thumbnail is the second opinion.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel.errors import ImageError, InputError
from prelabel.images import Pixels, read_picture
from prelabel.lookahead import map_ahead
from prelabel.progress import Progress
from prelabel.sources import Sample, Source, batches

HASH_PX = 32
BANDS = 8
"""8 x 8 frequencies make 64 bits."""
THUMBNAIL_PX = 8
READ_IMAGES = 256
"""Most images that one thread works on at a time."""


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of n images, those that could not be read left out."""

    positions: NDArray[np.int64]
    """int64 [n], ascending: position of each in the collection."""
    ids: tuple[str, ...]
    """Its id."""
    digests: NDArray[np.uint64]
    """uint64 [n, 2]: hash of size and pixels; equal where and only where the decoded pictures are equal."""
    hashes: NDArray[np.uint64]
    """uint64 [n]: perceptual hash."""
    thumbnails: Pixels
    """uint8 [n, 192], 0..255: the picture at 8 x 8 pixels in RGB."""
    unreadable: int = 0
    """Images that were left out."""

    def __len__(self) -> int:
        return len(self.positions)

    @functools.cached_property
    def brightness(self) -> NDArray[np.int64]:
        """int64 [n]: sum of each thumbnail."""
        brightness: NDArray[np.int64] = self.thumbnails.sum(axis=1, dtype=np.int64)
        return brightness


def fingerprint(source: Source, blocks: Sequence[range], threads: int, report: Progress) -> Fingerprints:
    """Reads images and takes their fingerprints.

    Args:
        source: The images.
        blocks: Positions to read, ascending.
        threads: Threads that decode.
        report: Is advanced by each image.

    Raises:
        InputError: The source changed while it was read, or cannot be read any more.
    """
    parts: list[Fingerprints] = []
    with contextlib.closing(map_ahead(_fingerprint_batch, batches_of(source, blocks), threads)) as prints:
        for part in prints:
            parts.append(part)
            report.advance(len(part) + part.unreadable)
    if not parts:
        return _join([_empty()])
    return _join(parts)


def batches_of(source: Source, blocks: Sequence[range]) -> Iterator[tuple[range, list[Sample]]]:
    """Yields (positions, images), at most `READ_IMAGES` at a time, fewer where their files are large.

    Raises:
        InputError: The source changed while it was read, or cannot be read any more.
    """
    for block in blocks:
        start = block.start
        for batch in batches(source.read(block.start, block.stop), len(block), READ_IMAGES):
            yield range(start, start + len(batch)), batch
            start += len(batch)
        if start != block.stop:
            raise InputError(f"the input ended at image {start} of {block.stop}: it was changed while it was read")


def perceptual_hash(grey: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Returns the hash uint64 [B] of grey pictures uint8 [B, 32, 32]."""
    basis = _cosines()
    frequencies = (basis @ grey.astype(np.float64) @ basis.T).reshape(len(grey), BANDS * BANDS)
    # In a flat picture only rounding errors are left, and they would decide the bits.
    frequencies = np.round(frequencies, 3)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    hashes: NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    return hashes


def picture_of(sample: Sample) -> tuple[Image.Image, str]:
    """Returns the picture of a sample at its own size, upright in RGB, and the mode in which it was stored.

    Raises:
        ImageError: It could not be read or cannot be decoded.
    """
    content = sample.content
    if content is None:
        raise ImageError(sample.error or "could not be read")
    if isinstance(content, bytes):
        return read_picture(content)
    image = Image.fromarray(content[:, :, 0] if content.ndim == 3 and content.shape[2] == 1 else content)
    return image.convert("RGB"), image.mode


def _fingerprint_batch(batch: tuple[range, list[Sample]]) -> Fingerprints:
    positions: list[int] = []
    ids: list[str] = []
    digests: list[bytes] = []
    greys: list[Pixels] = []
    thumbnails: list[Pixels] = []
    for position, sample in zip(*batch, strict=True):
        try:
            picture, _ = picture_of(sample)
        except ImageError:
            continue
        positions.append(position)
        ids.append(sample.id)
        digests.append(_digest(picture))
        greys.append(np.asarray(picture.convert("L").resize((HASH_PX, HASH_PX), Image.Resampling.BILINEAR)))
        thumbnails.append(np.asarray(picture.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)).ravel())
    if not positions:
        return _empty(unreadable=len(batch[0]))
    return Fingerprints(
        np.array(positions, np.int64),
        tuple(ids),
        np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2),
        perceptual_hash(np.stack(greys)),
        np.stack(thumbnails),
        len(batch[0]) - len(positions),
    )


def _digest(picture: Image.Image) -> bytes:
    digest = hashlib.blake2b(f"{picture.width} x {picture.height}\n".encode(), digest_size=16)
    digest.update(picture.tobytes())
    return digest.digest()


def _cosines() -> NDArray[np.float64]:
    """float64 [8, 32]: rows 1..8 of the discrete cosine transform (DCT-II, not scaled) of 32 values."""
    frequency, place = np.arange(1, BANDS + 1)[:, None], np.arange(HASH_PX)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * (2 * place + 1) * frequency / (2 * HASH_PX))
    return cosines


def _empty(unreadable: int = 0) -> Fingerprints:
    return Fingerprints(
        np.empty(0, np.int64),
        (),
        np.empty((0, 2), np.uint64),
        np.empty(0, np.uint64),
        np.empty((0, 3 * THUMBNAIL_PX**2), np.uint8),
        unreadable,
    )


def _join(parts: Sequence[Fingerprints]) -> Fingerprints:
    return Fingerprints(
        np.concatenate([part.positions for part in parts]),
        tuple(identity for part in parts for identity in part.ids),
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.thumbnails for part in parts]),
        sum(part.unreadable for part in parts),
    )
