"""Encoded images to one tensor, in threads, so that the event loop goes on serving."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from prelabel.errors import ImageError
from prelabel.images import MAX_IMAGE_PIXELS, ImageSpec, Pixels, decode_image

_CHUNK_IMAGES = 16
"""Images of one job: enough to make the hand-over cheap, few enough to spread a request over the threads."""


class Decoder:
    """Decodes image files by the rule of `prelabel.images`, as many at a time as there are threads."""

    def __init__(self, spec: ImageSpec, threads: int, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
        self._spec, self._max_pixels = spec, max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, files: Sequence[bytes]) -> tuple[Pixels, dict[int, str]]:
        """Decodes the files that can be decoded.

        Returns:
            uint8 [G, H, W, C]: the good images in their order; and position -> why that file is no usable image.
        """
        loop = asyncio.get_running_loop()
        starts = range(0, len(files), _CHUNK_IMAGES)
        jobs = [
            loop.run_in_executor(self._pool, self._decode, files[start : start + _CHUNK_IMAGES]) for start in starts
        ]
        # Cancelling the gathering cancels the jobs that no thread has begun.
        results = [result for chunk in await asyncio.gather(*jobs) for result in chunk]
        good = [result for result in results if isinstance(result, np.ndarray)]
        errors = {i: result for i, result in enumerate(results) if isinstance(result, str)}
        return np.stack(good) if good else np.empty((0, *self._spec.shape), np.uint8), errors

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _decode(self, files: Sequence[bytes]) -> list[Pixels | str]:
        results: list[Pixels | str] = []
        for data in files:
            try:
                results.append(decode_image(data, self._spec, self._max_pixels))
            except ImageError as error:
                results.append(str(error))
        return results
