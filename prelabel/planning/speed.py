"""How fast this machine reads, decodes and predicts a stretch of the pile: each alone, then both together on paper."""

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prelabel import __version__
from prelabel.duplicates.fingerprints import picture_of
from prelabel.engine_base import usable_cores
from prelabel.errors import ImageError, RemoteError
from prelabel.images import ImageSpec, Pixels
from prelabel.label import Predictor
from prelabel.lookahead import map_ahead
from prelabel.predictions import PredictionBatch
from prelabel.sources import Sample, Source
from prelabel.table import ShardInfo, require_pyarrow, to_table

MEASURED_IMAGES = 1024
"""Consecutive images that are timed, as `prelabel run` reads them."""
MEASURED_BYTES = 64 << 20
"""Fewer of large images: they are held in memory, and so are their pixels."""
BATCH_BYTES = 16 << 20
"""Pixels in one batch at most, as in `prelabel run`."""
MEASURED_S = 0.5
"""Each stage is repeated for so long: less would be noise."""
BATCHES_A_CORE = 4
"""Batches that are predicted in one round, at least."""
DECODED_AT_ONCE = 16
WINDOW = 4
"""Batches in flight, as in `prelabel run`."""


@dataclass(frozen=True)
class Speed:
    """Images/s of each stage alone, with all cores; None where it was not or could not be measured."""

    images: int
    """Consecutive images that were timed."""
    decode_threads: int
    """Threads that decoded."""
    read_per_s: float | None
    """Reading."""
    decode_per_s: float | None
    """Decoding, and bringing to the model's shape where there is a model."""
    inference_per_s: float | None
    """Inference with the real engine."""
    write_per_s: float | None
    """Making rows and writing them as Parquet."""
    end_to_end_per_s: float | None
    """All together, estimated from the others: the slowest stage; where inference runs on the cores that decode, the
    times of decoding, inference and writing add up."""
    row_bytes: float | None
    """Size of one row in the Parquet file."""


def measure(
    source: Source, predictor: Predictor | None, *, seed: int, threads: int, batch_size: int, shares_cores: bool
) -> Speed:
    """Times a stretch that starts at a random place of the pile.

    Args:
        source: The pile.
        predictor: The model, where there is one.
        seed: Decides where the stretch starts.
        threads: Threads that decode.
        batch_size: Images per inference, at most what the model takes.
        shares_cores: Whether inference runs on the cores that decode.

    Raises:
        RemoteError: The server failed, or left batches without an answer.
    """
    spec = None if predictor is None else predictor.model().input
    images = min(MEASURED_IMAGES, len(source))
    if spec is not None:
        images = min(images, max(1, MEASURED_BYTES // math.prod(spec.shape)))
    start = int(np.random.default_rng(seed).integers(0, len(source) - images + 1))
    began = time.perf_counter()
    samples = _first(source.read(start, start + images), MEASURED_BYTES)
    read_per_s = len(samples) / max(time.perf_counter() - began, 1e-9)
    good = [sample for sample in samples if _decode(sample, spec) is not None]
    if not good:
        return Speed(len(samples), threads, read_per_s, None, None, None, None, None)
    decode_per_s = _rate(lambda: _decode_all(samples, spec, threads), len(samples))
    if predictor is None or spec is None:
        return Speed(len(samples), threads, read_per_s, decode_per_s, None, None, None, None)
    pixels = np.stack([sample.pixels(spec) for sample in good])
    size = max(1, min(batch_size, predictor.model().max_request_images, BATCH_BYTES // math.prod(spec.shape)))
    batches = [pixels[first : first + size] for first in range(0, len(pixels), size)]
    answers = _predict(predictor, batches)  # the first time is slower, with writing as well
    file_bytes = _write(predictor, good, answers)
    # An inference runs on one core: fewer batches than cores would leave some idle, and the end of each round does.
    repeats = -(-BATCHES_A_CORE * usable_cores() // len(batches))
    inference_per_s = _rate(lambda: _predict(predictor, batches * repeats), repeats * len(pixels))
    write_per_s = _rate(lambda: _write(predictor, good, answers), len(pixels))
    stages = (decode_per_s, inference_per_s, write_per_s)
    together_per_s = 1 / sum(1 / per_s for per_s in stages) if shares_cores else min(stages)
    return Speed(
        len(samples),
        threads,
        read_per_s,
        decode_per_s,
        inference_per_s,
        write_per_s,
        min(read_per_s, together_per_s),
        file_bytes / len(pixels),
    )


def _first(samples: Iterator[Sample], most_bytes: int) -> list[Sample]:
    taken, size = [], 0
    for sample in samples:
        taken.append(sample)
        size += sample.content_bytes
        if size > most_bytes:
            break
    return taken


def _decode(sample: Sample, spec: ImageSpec | None) -> object | None:
    try:
        return picture_of(sample) if spec is None else sample.pixels(spec)
    except ImageError:
        return None


def _decode_all(samples: Sequence[Sample], spec: ImageSpec | None, threads: int) -> None:
    pieces = [samples[start : start + DECODED_AT_ONCE] for start in range(0, len(samples), DECODED_AT_ONCE)]
    for _ in map_ahead(lambda piece: [_decode(sample, spec) for sample in piece], pieces, threads):
        pass


def _predict(predictor: Predictor, batches: Sequence[Pixels]) -> list[PredictionBatch]:
    answers = list(predictor.predict_stream(iter(batches), window=WINDOW))
    if [len(answer) for answer in answers] != [len(batch) for batch in batches]:
        raise RemoteError(f"the server answered {len(answers)} batches, wanted are {len(batches)}")
    return answers


def _rate(work: Callable[[], object], images: int) -> float:
    began, rounds = time.perf_counter(), 0
    while rounds == 0 or time.perf_counter() - began < MEASURED_S:
        work()
        rounds += 1
    return rounds * images / max(time.perf_counter() - began, 1e-9)


def _write(predictor: Predictor, samples: Sequence[Sample], answers: Sequence[PredictionBatch]) -> int:
    """Writes the rows as Parquet into memory; returns the size in bytes."""
    pa = require_pyarrow()
    model = predictor.model()
    info = ShardInfo(__version__, model.model_id, model.classes, "", 0, 0)
    pieces, start = [], 0
    for answer in answers:
        rows = samples[start : start + len(answer)]
        pieces.append(to_table([row.id for row in rows], [row.path for row in rows], answer, info))
        start += len(answer)
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.concat_tables(pieces), buffer, compression="zstd")
    return len(buffer.getvalue())
