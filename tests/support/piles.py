"""Predictions whose truth is known, for audits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.predictions import PredictionBatch, with_failures
from prelabel.table import ShardInfo, to_table, write_shard

CLASSES = ("cat", "dog", "owl")


@dataclass(frozen=True)
class KnownPile:
    """A directory of predictions and the right labels of its rows."""

    directory: Path
    truth: NDArray[np.int64]
    """int64 [N], 0..2."""
    label: NDArray[np.int64]
    """int64 [N], 0..2: the predictions."""
    ids: list[str]


def write_predictions(
    directory: Path,
    probabilities: NDArray[np.float32],
    realness: NDArray[np.float32] | None = None,
    failed: dict[int, str] | None = None,
    shard_size: int = 1000,
    ids: list[str] | None = None,
    **info: Any,
) -> list[str]:
    """Writes float32 [N, 3] probabilities as shards; rows in `failed` are error rows. Returns the ids.

    Other numbers of classes go with `classes=`.
    """
    directory.mkdir(parents=True)
    failed = failed or {}
    count = len(probabilities)
    real = np.linspace(0.01, 1, count, dtype=np.float32) if realness is None else realness
    ids = ids or [f"set/{i:05d}.png" for i in range(count)]
    for shard, start in enumerate(range(0, count, shard_size)):
        rows = range(start, min(start + shard_size, count))
        good = [i for i in rows if i not in failed]
        batch = with_failures(
            PredictionBatch(probabilities[good], real[good], "m1"),
            {i - start: failed[i] for i in rows if i in failed},
            len(rows),
        )
        about = ShardInfo(**{"version": "0.1.0", "model_id": "m1", "classes": CLASSES, "manifest_hash": "hash"} | info,
                          shard=shard, start=start)  # fmt: skip
        names = ids[start : start + len(rows)]
        write_shard(
            directory / f"part-{shard:05d}-key.parquet", to_table(names, [f"p/{n}" for n in names], batch, about)
        )
    return ids


def make_pile(directory: Path, count: int = 3000, seed: int = 0, failed: dict[int, str] | None = None) -> KnownPile:
    """Predictions that are right as often as their confidence says, and mostly very sure."""
    generator = np.random.default_rng(seed)
    confidence = 1 - 0.45 * generator.random(count) ** 12
    label = generator.integers(0, 3, count)
    wrong = generator.random(count) > confidence
    runner_up = (label + 1 + generator.integers(0, 2, count)) % 3
    probabilities = np.empty((count, 3))
    probabilities[:] = ((1 - confidence) * 0.1)[:, None]
    probabilities[np.arange(count), label] = confidence
    probabilities[np.arange(count), runner_up] = (1 - confidence) * 0.9
    ids = write_predictions(directory, probabilities.astype(np.float32), failed=failed)
    return KnownPile(directory, np.where(wrong, runner_up, label), label, ids)
