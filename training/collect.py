"""Decodes images while they are read, so that their files need not be in memory at the same time."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from prelabel.engine_base import usable_cores
from prelabel.errors import ImageError, InputError
from prelabel.images import ImageSpec, Pixels, image_size_and_channels
from prelabel.lookahead import map_ahead
from prelabel.sources import Sample
from training.memory import machine_memory_bytes
from training.spread import LOOKED_AT, evenly_spread

MAX_IMAGE_SIZE_PX = 64
"""Larger images are brought to this side length unless the user says otherwise: CPU training has to end."""
MIN_IMAGE_SIZE_PX = 16
"""Smaller images are enlarged to it: D halves a side three times, and views of so few pixels blur what is in them."""
USUAL_SHARE = 0.25
"""A size that so many images have is the data's own; where there is none, images are as they happened to be cut."""
WAITING_BYTES = 1 << 30
"""So much of files is kept until the shape of images is chosen: all of a usual data set, the start of a huge one."""
CHUNK_BYTES = 64 << 20
"""After that, so much of files is decoded at a time."""
CHUNK_IMAGES = 1024
"""Most images that are decoded at a time."""
COPIES = 3
"""Of all images that training has in memory at the most: these, TensorFlow's, and one while that is made."""
LARGE_FILE_BYTES = 16 << 10
"""Mean size of files that several threads decode: with smaller ones they would wait for each other."""

FLAT = 24
"""Values, of 256, over which an image spreads that shows something: a faint photograph spreads over more."""

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")


class Collector:
    """Takes samples one by one and gives their pixels, all of one shape.

    The shape is chosen from all labelled samples, or, where files take more than `WAITING_BYTES`, from those before, or
    from all before where none of them is labelled.
    """

    def __init__(self, image_size: int | None, most: int, advance: Callable[[int], None] = lambda _: None) -> None:
        """Prepares for at most `most` samples; `image_size` as in `choose_spec`.

        Calls `advance` with how many more were decoded.
        """
        self._image_size, self._most, self._advance = image_size, most, advance
        self._waiting: list[Sample] = []
        self._waiting_bytes = 0
        self._spec: ImageSpec | None = None
        self._images: Pixels = np.zeros(0, np.uint8)
        self._count = 0
        self.failed: dict[int, str] = {}
        """Position of a sample among those added -> why it cannot be decoded; its pixels are 0."""

    def add(self, sample: Sample) -> None:
        """Takes the next sample."""
        self._waiting.append(sample)
        self._waiting_bytes += sample.content_bytes
        if self._spec is None:
            if self._waiting_bytes > WAITING_BYTES:
                self._choose()
        elif self._waiting_bytes > CHUNK_BYTES or len(self._waiting) == CHUNK_IMAGES:
            self._decode(self._spec)

    def finish(self) -> tuple[ImageSpec, Pixels]:
        """Returns the shape, and uint8 [n, H, W, C] of the n samples that were added.

        Raises:
            InputError: None of those that the shape is chosen from can be decoded.
        """
        spec = self._spec or self._choose()
        self._decode(spec)
        return spec, self._images[: self._count]

    def _choose(self) -> ImageSpec:
        labelled = [sample for sample in self._waiting if sample.label is not None]
        spec = choose_spec(labelled or self._waiting, self._image_size)
        wanted = COPIES * self._most * math.prod(spec.shape)
        if wanted > machine_memory_bytes():
            shape = " x ".join(map(str, spec.shape))
            raise InputError(
                f"to train on {self._most:,} images of {shape} takes {wanted / 2**30:,.0f} GiB, and this machine has "
                f"{machine_memory_bytes() / 2**30:,.0f}: give a smaller --max-unlabelled or --image-size"
            )
        # Zero pages cost no memory until something is written to them.
        self._images = np.zeros((self._most, *spec.shape), np.uint8)
        self._spec = spec
        self._decode(spec)
        return spec

    def _decode(self, spec: ImageSpec) -> None:
        """Decodes what waits."""

        def pixels_or_error(sample: Sample) -> Pixels | ImageError:
            try:
                return sample.pixels(spec)
            except ImageError as error:
                return error

        for outcome in _each(pixels_or_error, self._waiting):
            if isinstance(outcome, ImageError):
                self.failed[self._count] = str(outcome)
            else:
                self._images[self._count] = outcome
            self._count += 1
            self._advance(1)
        self._waiting, self._waiting_bytes = [], 0


def _each(function: Callable[[Sample], ResultT], samples: Sequence[Sample]) -> Iterator[ResultT]:
    """Returns what a function, which must be safe in threads, gives for each sample, in order."""
    in_files = sum(len(sample.content) for sample in samples if isinstance(sample.content, bytes))
    if in_files < LARGE_FILE_BYTES * len(samples):
        return map(function, samples)
    return map_ahead(function, samples, usable_cores())


def warn_of_flat(what: str, images: Pixels, paths: Sequence[str]) -> None:
    """Logs where most images (uint8 [n, H, W, C], n at least 1) show next to nothing; at most 500 are looked at.

    `what` says which images they are, in the plural.
    """
    chosen = evenly_spread(len(images), LOOKED_AT)
    sample = images[chosen]
    ranges = np.ptp(sample.reshape(len(sample), -1), axis=1)
    if (share := (ranges < FLAT).mean()) > 0.5:
        flattest = int(ranges.argmin())
        logger.warning(
            "%.0f %% of the %s are almost of one colour as they are read, for example %s (values %d to %d): "
            "transparency is laid on black, and of 16-bit greys the upper 8 bits are taken; convert such images before",
            100.0 * share, what, paths[chosen[flattest]], sample[flattest].min(), sample[flattest].max(),
        )  # fmt: skip


def choose_spec(samples: Sequence[Sample], image_size: int | None) -> ImageSpec:
    """Chooses the shape of images from (at most 500 of) some: grey only if all are grey.

    The size is the most frequent one, or, where fewer than `USUAL_SHARE` have that, the medians of height and width;
    enlarged so that no side is under `MIN_IMAGE_SIZE_PX`, and shrunk so that none is over `MAX_IMAGE_SIZE_PX`, which
    goes first. `image_size` is both sides' length instead.

    Raises:
        InputError: None of the samples can be decoded.
    """
    shapes, failed = [], []
    looked_at = [samples[i] for i in evenly_spread(len(samples), LOOKED_AT)]
    for sample, outcome in zip(looked_at, _each(_shape_or_error, looked_at), strict=True):
        if isinstance(outcome, ImageError):
            failed.append(f"{sample.path}: {outcome}")
        else:
            shapes.append(outcome)
    if not shapes:
        kind = "images" if samples[0].label is None else "labelled images"
        raise InputError(f"none of the {len(samples)} {kind} can be decoded, for example {failed[0]}")
    channels = max(c for _, _, c in shapes)
    (height, width), times = Counter((h, w) for h, w, _ in shapes).most_common(1)[0]
    if times < USUAL_SHARE * len(shapes):
        height, width = (round(float(np.median([shape[side] for shape in shapes]))) for side in (0, 1))
        if image_size is None:
            logger.info(
                "images have many sizes, half of them over %d x %d pixels: all are brought to one", width, height
            )
    if image_size is not None:
        height = width = image_size
    else:
        enlarge = max(1.0, MIN_IMAGE_SIZE_PX / min(height, width))
        scale = min(enlarge, MAX_IMAGE_SIZE_PX / max(height, width))
        height, width = (max(8, round(side * scale)) for side in (height, width))
    return ImageSpec(height, width, 1 if channels == 1 else 3)


def _shape_or_error(sample: Sample) -> tuple[int, int, int] | ImageError:
    if isinstance(sample.content, bytes):
        try:
            return image_size_and_channels(sample.content)
        except ImageError as error:
            return error
    if sample.content is None:
        return ImageError(sample.error or "could not be read")
    height, width = sample.content.shape[:2]
    return height, width, sample.content.shape[2] if sample.content.ndim == 3 else 1
