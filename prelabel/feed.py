"""The input side of bulk work: reading and decoding a bounded number of batches ahead of the model.

Threads of this process decode, or other processes (`prelabel.decoders`); the batches are the same.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prelabel.errors import ImageError, InputError
from prelabel.images import ImageSpec, Pixels, fit_pixels
from prelabel.lookahead import map_ahead
from prelabel.shards import neighbours
from prelabel.sources import PixelSource, Sample, Source, batches


@dataclass(frozen=True)
class Batch:
    """Consecutive images of one shard."""

    shard: int
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    errors: dict[int, str]
    """Position in the batch -> why that image cannot be used."""


@dataclass(frozen=True)
class Decoded:
    """A batch with its pixels."""

    batch: Batch
    pixels: Pixels
    """uint8 [B, H, W, C], 0..255; black where an image cannot be used. They are inferred all the same: an engine may
    round otherwise in a smaller batch, and what a good image gets must not depend on a broken neighbour."""


@dataclass(frozen=True)
class Cut:
    """How a collection is cut into batches, and what its images are brought to."""

    spec: ImageSpec
    """Size and channels of the model."""
    shard_size: int
    """Images per shard."""
    batch_size: int
    """Most images per batch; a batch does not cross a shard's end, and large image files make smaller ones."""


def decoded_by_threads(
    source: Source, missing: Sequence[range], cut: Cut, threads: int
) -> Generator[Decoded, None, None]:
    """Yields all images of the missing shards, decoded by threads, in order; close it to end them.

    Args:
        source: The images.
        missing: Positions in the source of each shard that is wanted, in order.
        cut: The batches.
        threads: Threads that decode.

    Raises:
        InputError: The source changed while it was read, or cannot be read any more.
    """
    return map_ahead(lambda batch: _decode(*batch, cut.spec), _read(source, missing, cut), threads)


def decoded_here(source: Source, missing: Sequence[range], cut: Cut) -> Iterator[Decoded]:
    """Yields all images of the missing shards, decoded by the caller, in order; see `decoded_by_threads`."""
    for shard, samples in _read(source, missing, cut):
        yield _decode(shard, samples, cut.spec)


def pixel_batches(source: PixelSource, missing: Sequence[range], cut: Cut) -> Generator[Decoded, None, None]:
    """Yields all images of the missing shards of a collection that needs no decoding, in order.

    Raises:
        InputError: The source changed since it was opened.
    """
    for rows in missing:
        for start in range(rows.start, rows.stop, cut.batch_size):
            stop = min(start + cut.batch_size, rows.stop)
            found = source.pixel_rows(start, stop)
            _check_length(len(found.ids), start, stop)
            batch = Batch(rows.start // cut.shard_size, found.ids, found.paths, {})
            pixels = found.pixels[..., None] if found.pixels.ndim == 3 else found.pixels
            if pixels.shape[1:] != cut.spec.shape:
                pixels = np.stack([fit_pixels(image, cut.spec) for image in pixels])
            yield Decoded(batch, pixels)


def _read(source: Source, missing: Sequence[range], cut: Cut) -> Iterator[tuple[int, list[Sample]]]:
    """Yields (shard, samples) batches of the missing shards, which do not cross a shard's end.

    Neighbouring shards are one range for the source: it may have to unpack rows from the start of their row group.
    """
    for stretch in neighbours(missing):
        samples = source.read(stretch[0].start, stretch[-1].stop)
        for rows in stretch:
            found = 0
            for batch in batches(samples, len(rows), cut.batch_size):
                found += len(batch)
                yield rows.start // cut.shard_size, batch
            _check_length(found, rows.start, rows.stop)


def _check_length(found: int, start: int, stop: int) -> None:
    if found != stop - start:
        raise InputError(
            f"the input ended at image {start + found}, before image {stop}: it was changed while it was read; "
            "start over with --overwrite"
        )


def _decode(shard: int, samples: Sequence[Sample], spec: ImageSpec) -> Decoded:
    pixels, errors = np.zeros((len(samples), *spec.shape), np.uint8), {}
    for i, sample in enumerate(samples):
        try:
            pixels[i] = sample.pixels(spec)
        except ImageError as error:
            errors[i] = str(error)
    return Decoded(Batch(shard, tuple(one.id for one in samples), tuple(one.path for one in samples), errors), pixels)
