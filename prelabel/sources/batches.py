"""Images cut into batches that fit into memory, whatever the size of their files."""

from collections.abc import Iterator
from itertools import islice

from prelabel.sources.base import Sample

BATCH_BYTES = 64 << 20
"""Image files in one batch: 256 photographs are over a gigabyte, and each core has two or three batches at a time."""


def batches(samples: Iterator[Sample], images: int, most: int) -> Iterator[list[Sample]]:
    """Yields the next `images` samples in lists; fewer of them in all where there are no more.

    Args:
        samples: Is read no further than that.
        images: How many are wanted.
        most: Most images in a list. One whose contents reach `BATCH_BYTES` ends there, wherever the same images are
            read again: what a model answers may depend on the batch.
    """
    batch: list[Sample] = []
    size_bytes = 0
    for sample in islice(samples, images):
        batch.append(sample)
        size_bytes += sample.content_bytes
        if len(batch) == most or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
