"""Inputs for bulk work on the tiny model of `tests/conftest.py`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch
from prelabel.sources import Sample

CLASSES = ("low", "high")
SPEC = ImageSpec(2, 2, 1)


@dataclass
class ListSource:
    """`count` images whose pixels carry their position; those in `broken` cannot be decoded. Counts what it reads."""

    count: int
    broken: frozenset[int] = frozenset()
    manifest_hash: str = "manifest"
    read_count: int = 0
    fail_at: int | None = None
    """The source raises an OSError when it comes to this position."""

    def __len__(self) -> int:
        return self.count

    def entries(self) -> Iterator[tuple[str, int]]:
        return ((f"{i:05d}", 4) for i in range(self.count))

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        for i in range(start, min(stop, self.count)):
            if i == self.fail_at:
                raise OSError(5, "Input/output error")
            self.read_count += 1
            content: bytes | Pixels = b"broken" if i in self.broken else pixels_of(i)
            yield Sample(f"{i:05d}", f"somewhere/{i}", content)


def pixels_of(position: int) -> Pixels:
    """uint8 [2, 2]: the position in base 256."""
    return np.array([[position % 256, position // 256], [0, 0]], np.uint8)


@dataclass(frozen=True)
class ListModel:
    """A model whose answer tells which image it was."""

    model_id: str = "model-1"
    classes: tuple[str, ...] = CLASSES
    input: ImageSpec = SPEC
    max_request_images: int = 1000
    name: str = "list"
    execution_provider: str = "none"


@dataclass
class ListPredictor:
    """Answers in this process; `window` batches are taken before the first answer, as a stream over a network does."""

    about: ListModel = field(default_factory=ListModel)
    fail_at_batch: int | None = None
    error: Callable[[], BaseException] = KeyboardInterrupt
    predicted: list[int] = field(default_factory=list)
    """Positions of all images that were answered."""
    batch_sizes: list[int] = field(default_factory=list)
    streams: int = 0

    def model(self) -> ListModel:
        return self.about

    def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
        self.streams += 1
        waiting: list[Pixels] = []
        for batch in batches:
            waiting.append(batch)
            if len(waiting) >= window:
                yield self._answer(waiting.pop(0))
        for batch in waiting:
            yield self._answer(batch)

    def _answer(self, batch: Pixels) -> PredictionBatch:
        if len(self.batch_sizes) == self.fail_at_batch:
            raise self.error()
        positions = positions_in(batch)
        self.predicted += positions
        self.batch_sizes.append(len(batch))
        return answer_for(positions, self.about.model_id)


def positions_in(batch: Pixels) -> list[int]:
    assert batch.dtype == np.uint8
    assert batch.shape[1:] == SPEC.shape
    return [int(value) for value in batch[:, 0, 0, 0] + 256 * batch[:, 0, 1, 0].astype(np.int64)]


def answer_for(positions: Sequence[int], model_id: str) -> PredictionBatch:
    """The right answer: `low` for even positions; the realness is the position itself / 2^16."""
    low = np.where(np.array(positions) % 2 == 0, 0.75, 0.25).astype(np.float32)
    return PredictionBatch(
        np.stack([low, 1 - low], axis=1), np.array(positions, np.float32) / np.float32(2**16), model_id
    )


def write_pile(directory: Path, count: int, broken: Sequence[int] = ()) -> Path:
    """Writes 8 x 8 PNG files for the tiny model; file i has first pixel i % 256."""
    directory.mkdir(parents=True)
    for i in range(count):
        pixels = np.zeros((8, 8), np.uint8)
        pixels[0, :2] = i % 256, 255 - i % 256
        path = directory / f"{i:04d}.png"
        Image.fromarray(pixels).save(path)
        if i in broken:
            path.write_bytes(path.read_bytes()[:40])
    return directory
