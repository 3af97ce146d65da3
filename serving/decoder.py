"""Encoded images to one tensor, in threads, so that the event loop goes on serving.

Files are decoded in chunks. One is given to a thread only when that is free for it, so a person's files wait for the
chunks that are being decoded, and not for the pile behind them. A chunk that takes long, because a small file can hold
a large image, lets others go first between two files.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from prelabel.errors import ImageError
from prelabel.images import MAX_IMAGE_PIXELS, ImageSpec, Pixels, decode_image
from prelabel.predictions import Priority
from serving.queue import BULK_SHARE
from serving.workers import Workers

_CHUNK_IMAGES = 16
"""Most images of one job: enough to make the hand-over cheap, few enough to spread a request over the threads."""
_CHUNK_BYTES = 256 << 10
"""Most bytes of the files of a job with more than one: some 10 ms of decoding, for which a person may have to wait."""
_TURN_S = 0.02
"""Time of the processor after which a chunk begins no further file before others had their turn."""

_Decoded = list[Pixels | str]
"""Of each file uint8 [H, W, C], or why it is no usable image."""


@dataclass(eq=False)
class _Chunk:
    """Files of one request that one thread decodes."""

    files: list[bytes]
    results: "asyncio.Future[_Decoded]"
    """Done early where the caller has left."""
    line: "_Line"
    """Where it waits for its turns."""
    decoded: _Decoded = field(default_factory=list)
    """Of as many files as its turns so far have done."""


_Line = OrderedDict[_Chunk, None]
"""Chunks that wait, in order; one whose caller leaves can leave from the middle, with its files."""


class Decoder:
    """Decodes image files by the rule of `prelabel.images`, as many at a time as there are threads.

    Must be made, used and closed in one running event loop.
    """

    def __init__(self, spec: ImageSpec, threads: int, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
        self._spec, self._max_pixels = spec, max_pixels
        self._loop = asyncio.get_running_loop()
        self._people: _Line = OrderedDict()
        self._pile: _Line = OrderedDict()
        self._pile_due = 0.0
        """Chunks that the pile is due; the next is its from 1 on."""
        # People wait for these threads: they take the cores from the inferences of a pile.
        self._workers = Workers(threads, self._decode, self._deliver, "decode", gives_way=False)
        self._running: set[_Chunk] = set()
        """Chunks that threads have now."""

    async def decode(self, files: Iterable[bytes], priority: Priority = "interactive") -> tuple[Pixels, dict[int, str]]:
        """Decodes the files that can be decoded; those of people before those of a pile, which keeps `BULK_SHARE`.

        Returns:
            uint8 [G, H, W, C]: the good images in their order; and position -> why that file is no usable image.
        """
        line = self._line(priority)
        chunks = [_Chunk(part, self._loop.create_future(), line) for part in _parts(files)]
        line.update(dict.fromkeys(chunks))
        self._give()
        try:
            results = [result for part in await asyncio.gather(*(one.results for one in chunks)) for result in part]
        finally:
            # Who has left, or got an error, needs none of the rest: it stops, and its files are not kept in the line.
            for chunk in chunks:
                chunk.results.cancel()
                line.pop(chunk, None)
        good = [result for result in results if isinstance(result, np.ndarray)]
        errors = {i: result for i, result in enumerate(results) if isinstance(result, str)}
        return np.stack(good) if good else np.empty((0, *self._spec.shape), np.uint8), errors

    async def close(self) -> None:
        """Cancels what waits and ends the threads, each after the file that it decodes; the event loop goes on."""
        for line in (self._people, self._pile):
            for chunk in line:
                chunk.results.cancel()
            line.clear()
        for chunk in self._running:
            chunk.results.cancel()
        await self._workers.close()

    def _line(self, priority: Priority) -> _Line:
        return self._pile if priority == "bulk" else self._people

    def _give(self) -> None:
        while self._workers.free and (chunk := self._next()) is not None:
            self._running.add(chunk)
            self._workers.give(chunk)

    def _next(self) -> _Chunk | None:
        self._pile_due = self._pile_due + BULK_SHARE if self._people and self._pile else 0.0
        if self._pile and (not self._people or self._pile_due >= 1.0):
            self._pile_due = 0.0
            return self._pile.popitem(last=False)[0]
        return self._people.popitem(last=False)[0] if self._people else None

    def _decode(self, chunk: _Chunk) -> None:
        """Runs in a thread: decodes on where the chunk was left, to its end or to that of its turn or its use."""
        begun_s = time.thread_time()
        while len(chunk.decoded) < len(chunk.files) and not chunk.results.done():
            data = chunk.files[len(chunk.decoded)]
            try:
                chunk.decoded.append(decode_image(data, self._spec, self._max_pixels))
            except ImageError as error:
                chunk.decoded.append(str(error))
            if time.thread_time() - begun_s >= _TURN_S:
                break

    def _deliver(self, chunk: _Chunk, outcome: Exception | None) -> None:
        self._running.discard(chunk)
        if not chunk.results.done():
            if outcome is not None:
                chunk.results.set_exception(outcome)
            elif len(chunk.decoded) < len(chunk.files):
                chunk.line[chunk] = None
            else:
                chunk.results.set_result(chunk.decoded)
        self._give()


def _parts(files: Iterable[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size_bytes = 0
    for file in files:
        if part and (len(part) == _CHUNK_IMAGES or size_bytes + len(file) > _CHUNK_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append(file)
        size_bytes += len(file)
    if part:
        yield part
