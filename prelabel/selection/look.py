"""The images of a pile, or of a sample of it, made small enough to be in memory together: 768 bytes each."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from prelabel.duplicates.fingerprints import batches_of
from prelabel.errors import ImageError
from prelabel.images import ImageSpec, Pixels
from prelabel.lookahead import map_ahead
from prelabel.planning.sample import Unreadable
from prelabel.progress import Progress
from prelabel.sources import Sample, Source

SMALL = ImageSpec(16, 16, 3)
"""What differs between pictures at a glance is left of them."""
BLOCK_IMAGES = 64
"""A sample is of blocks of neighbours, since single images of Parquet files and object stores are slow to read."""


@dataclass
class Looked:
    """The n images of a pile that were looked at and can be chosen."""

    positions: list[int] = field(default_factory=list)
    """Ascending positions in the pile."""
    ids: list[str] = field(default_factory=list)
    """Their ids."""
    paths: list[str] = field(default_factory=list)
    """Where they lie."""
    pixels: list[Pixels] = field(default_factory=list)
    """uint8 [16, 16, 3] of each, 0..255."""
    unreadable: list[Unreadable] = field(default_factory=list)
    """Images that cannot be decoded."""
    duplicates: int = 0
    """Images that were left out as duplicates."""


def sample_blocks(images: int, wanted: int, seed: int) -> list[range]:
    """Returns the positions to look at, ascending: all, or random blocks of `BLOCK_IMAGES` with `wanted` or a few more.

    Args:
        images: How many there are.
        wanted: How many to look at, 1 or more.
        seed: Decides which blocks.
    """
    blocks = [range(start, min(start + BLOCK_IMAGES, images)) for start in range(0, images, BLOCK_IMAGES)]
    if wanted >= images:
        return blocks
    count = -(-wanted // BLOCK_IMAGES)
    generator = np.random.default_rng([seed, 0xB10C])
    chosen = generator.choice(len(blocks), count, replace=False).tolist()
    if sum(len(blocks[i]) for i in chosen) < wanted:  # the last block is among them, and may be of a single image
        chosen.append(int(generator.choice(np.setdiff1d(np.arange(len(blocks)), chosen))))
    return [blocks[i] for i in sorted(chosen)]


def look_at(
    source: Source, blocks: Sequence[range], duplicates: frozenset[str], threads: int, report: Progress
) -> Looked:
    """Reads images and makes them small.

    Args:
        source: The pile.
        blocks: Positions to look at, ascending.
        duplicates: Ids to leave out.
        threads: Threads that decode.
        report: Is advanced by each image.

    Raises:
        InputError: The source changed while it was read, or cannot be read any more.
    """
    looked = Looked()

    def wanted() -> Iterator[list[tuple[int, Sample]]]:
        for positions, samples in batches_of(source, blocks):
            kept = [(i, sample) for i, sample in zip(positions, samples, strict=True) if sample.id not in duplicates]
            looked.duplicates += len(samples) - len(kept)
            report.advance(len(samples) - len(kept))
            yield kept

    with contextlib.closing(map_ahead(_make_small, wanted(), threads)) as batches:
        for batch in batches:
            for position, sample, small in batch:
                if isinstance(small, ImageError):
                    looked.unreadable.append(Unreadable(sample.id, sample.path, str(small)))
                    continue
                looked.positions.append(position)
                looked.ids.append(sample.id)
                looked.paths.append(sample.path)
                looked.pixels.append(small)
            report.advance(len(batch))
    return looked


def _make_small(batch: list[tuple[int, Sample]]) -> list[tuple[int, Sample, Pixels | ImageError]]:
    made: list[tuple[int, Sample, Pixels | ImageError]] = []
    for position, sample in batch:
        try:
            small: Pixels | ImageError = sample.pixels(SMALL)
        except ImageError as error:
            small = error
        # Without the file's bytes: the pile does not fit into memory.
        made.append((position, Sample(sample.id, sample.path, None), small))
    return made
