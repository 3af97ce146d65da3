"""Predictions with odd names for the tests of `prelabel.adapters`."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from prelabel.adapters.rows import Conversion, Predictions, Row
from prelabel.predictions import PredictionBatch, with_failures
from prelabel.table import ShardInfo, to_table, write_shard

ODD_CLASSES = ("cat", 'a "b" <c> & d', "é猫/x", "=1+1", "a,b;c", "two\nlines\r\n", " space ", "'quoted", "..")
ODD_IDS = (
    "a/0.png",
    "b/0.png",
    "ü ß.jpeg",
    "no suffix",
    "=cmd()",
    "x<y>&'\".png",
    "../up.png",
    "/etc/x.png",
    "a\tb.png",
)

characters = st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]) | st.sampled_from("\n\t\r,;\"'<>&/\\%=+-@.")
"""All that XML can hold, the odd ones more often."""
names = st.text(characters, min_size=1, max_size=20)


@dataclass(frozen=True)
class Case:
    """What a directory of predictions holds."""

    classes: Sequence[str]
    ids: Sequence[str]
    failed: Sequence[int] = ()
    lanes: bool = False
    shard_rows: int = 3
    probabilities: Any = field(default=None, compare=False)
    """float32 [B, K]; random where None."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """At least one row has a prediction."""
    classes = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    ids = draw(st.lists(names, min_size=1, max_size=7, unique=True))
    failed = draw(st.sets(st.integers(0, len(ids) - 1), max_size=len(ids) - 1))
    return Case(classes, ids, sorted(failed), draw(st.booleans()))


def odd_case(lanes: bool = True) -> Case:
    """Nine rows, one of them an error, one label for each odd class."""
    count = len(ODD_CLASSES)
    probabilities = (0.1 / count + 0.9 * np.eye(count)).astype(np.float32)
    return Case(ODD_CLASSES, ODD_IDS, [3], lanes, probabilities=probabilities)


def write_case(directory: Path, case: Case, manifest_hash: str = "manifest") -> Path:
    """Writes the shards of `prelabel run`, or those of `prelabel audit apply` where the case has lanes."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    total, failed = len(case.ids), {i: f"broken, row {i}" for i in case.failed}
    probabilities = case.probabilities
    if probabilities is None:
        probabilities = generator.dirichlet(np.ones(len(case.classes)), total).astype(np.float32)
    realness = generator.random(total, np.float32)
    for shard, start in enumerate(range(0, total, case.shard_rows)):
        rows = range(start, min(start + case.shard_rows, total))
        good = [i for i in rows if i not in failed]
        errors = {i - start: failed[i] for i in rows if i in failed}
        batch = with_failures(PredictionBatch(probabilities[good], realness[good], "model-1"), errors, len(rows))
        info = ShardInfo("0.1.0", "model-1", tuple(case.classes), manifest_hash, shard, start)
        ids = [case.ids[i] for i in rows]
        table = to_table(ids, [f"pile/{name}" for name in ids], batch, info)
        if case.lanes:
            lanes = ["suspect" if i in failed else "accept" if i % 2 else "review" for i in rows]
            table = table.append_column("lane", pa.array(lanes, pa.string()))
            table = table.append_column("lane_reason", pa.array([f"because {lane}" for lane in lanes], pa.string()))
            table = table.append_column("review_rank", pa.array(list(rows), pa.int64()))
            table = table.append_column("calibrated_confidence", table["confidence"])
        write_shard(directory / f"part-{shard:05d}-x.parquet", table)
    return directory


def rows_of(directory: Path) -> list[Row]:
    return list(Predictions(directory).rows())


def conversion_of(directory: Path, **changes: Any) -> Conversion:
    return Conversion(Predictions(directory), **changes)


def png(value: int, size: tuple[int, int] = (4, 3)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


def write_images(path: Path, case: Case) -> Path:
    """Writes the case's images as one Parquet file: ids can be anything; image i is 4 x 3 pixels of value i."""
    broken = set(case.failed)
    images = [b"broken" if i in broken else png(i) for i in range(len(case.ids))]
    pq.write_table(pa.table({"id": list(case.ids), "image": images}), path)
    return path
