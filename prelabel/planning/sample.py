"""What a random sample of a pile holds: sizes, kinds of pixels, labels, and what cannot be read."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prelabel.bounds import exact_interval
from prelabel.duplicates.fingerprints import picture_of
from prelabel.errors import ImageError
from prelabel.lookahead import map_ahead
from prelabel.progress import Progress
from prelabel.sources import Sample, Source

SAMPLE_S = 30.0
"""A plan is made before lunch: where single images are slow to read, fewer are looked at."""


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be used."""

    id: str
    """Its id."""
    path: str
    """Where it lies."""
    error: str
    """Why."""


@dataclass(frozen=True)
class SampleFacts:
    """What was found in the images that were looked at."""

    images: int
    """Images that were looked at; all of them where the pile is that small."""
    seed: int
    """Decides which."""
    bytes_per_image: float
    """Mean size of an encoded image (of its pixels, where they are not encoded), of those that were there at all."""
    sizes_px: dict[str, int]
    """`WIDTH x HEIGHT` -> images, the most frequent first."""
    modes: dict[str, int]
    """Pillow's mode of the stored pixels (`L`, `RGB`, `CMYK`, ...) -> images, the most frequent first."""
    labels: dict[str, int]
    """Label in the input -> images, the most frequent first; empty where the input has no labels."""
    unreadable: tuple[Unreadable, ...]
    """Images that cannot be used."""
    unreadable_at_least: int
    """Such images in the whole pile, with 95 % confidence (Clopper-Pearson)."""
    unreadable_at_most: int
    """The other end of that interval."""


@dataclass(frozen=True)
class _Look:
    unreadable: Unreadable | None
    content_bytes: int
    size_px: str
    mode: str
    label: str | None


def look_at(
    source: Source, count: int, seed: int, threads: int, report: Progress, *, limit_s: float = SAMPLE_S
) -> SampleFacts:
    """Looks at `count` images drawn at random, or at all where there are no more.

    Args:
        source: The pile.
        count: Images to look at, 1 or more.
        seed: Decides which.
        threads: Threads that decode.
        report: Is advanced by each image.
        limit_s: After so many seconds no further image is read.
    """
    looks: list[_Look] = []
    with contextlib.closing(map_ahead(_look, _drawn(source, count, seed, limit_s), threads)) as found:
        for look in found:
            looks.append(look)
            report.advance(1)
    unreadable = tuple(look.unreadable for look in looks if look.unreadable is not None)
    at_least, at_most = _in_all(len(unreadable), len(looks), len(source))
    return SampleFacts(
        images=len(looks),
        seed=seed,
        bytes_per_image=float(np.mean([look.content_bytes for look in looks if look.content_bytes] or [0])),
        sizes_px=_counts(look.size_px for look in looks if not look.unreadable),
        modes=_counts(look.mode for look in looks if not look.unreadable),
        labels=_counts(look.label for look in looks if look.label is not None),
        unreadable=unreadable,
        unreadable_at_least=at_least,
        unreadable_at_most=at_most,
    )


def _drawn(source: Source, count: int, seed: int, limit_s: float) -> Iterator[Sample]:
    """Yields the images in random order, so that those read until the time is over are a random sample, too."""
    if count >= len(source):
        yield from source.read(0, len(source))
        return
    stop = time.monotonic() + limit_s
    for position in np.random.default_rng(seed).choice(len(source), count, replace=False).tolist():
        yield from source.read(position, position + 1)
        if time.monotonic() > stop:
            return


def _look(sample: Sample) -> _Look:
    size = sample.content_bytes
    try:
        picture, mode = picture_of(sample)
    except ImageError as error:
        return _Look(Unreadable(sample.id, sample.path, str(error)), size, "", "", sample.label)
    return _Look(None, size, f"{picture.width} x {picture.height}", mode, sample.label)


def _in_all(found: int, drawn: int, images: int) -> tuple[int, int]:
    if drawn == images:
        return found, found
    low, high = exact_interval(found, drawn)
    # What was seen is certain, whatever the interval says.
    return max(found, int(np.floor(low * images))), min(images - (drawn - found), int(np.ceil(high * images)))


def _counts(values: Iterator[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
