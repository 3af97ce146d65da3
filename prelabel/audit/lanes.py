"""The lane of every row, and predictions written again with it: `accept`, `review` or `suspect`."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.certify import Certificate
from prelabel.audit.pile import BATCH_ROWS, Pile, probability_batches, shards
from prelabel.audit.review import review_order
from prelabel.audit.suspects import Kind, Suspects
from prelabel.calibration import entropy
from prelabel.files import write_atomically
from prelabel.table import require_pyarrow
from prelabel.temperature import apply_temperature

LANES = ("accept", "review", "suspect")
ACCEPT, REVIEW, SUSPECT = range(3)
METADATA_KEY = b"prelabel_lanes"
CONFIRMED = "a person gave this label in the audit"
_HUGGING_FACE = b"huggingface"


@dataclass(frozen=True)
class Uncertainty:
    """What the temperature makes of the probabilities of N rows."""

    confidence: NDArray[np.float32]
    """float32 [N], 0..1, calibrated; NaN where there is no prediction."""
    entropy: NDArray[np.float32]
    """float32 [N], nats; 0 where there is no prediction."""
    runner_up: NDArray[np.int32]
    """int32 [N], 0..K-1, the second most probable class; 0 where there is no prediction."""
    margin: NDArray[np.float32]
    """float32 [N], 0..1: by how much the most probable class is ahead of it; NaN where there is no prediction."""


@dataclass(frozen=True)
class Lanes:
    """The new columns of N rows."""

    lane: NDArray[np.int8]
    """int8 [N], index into `LANES`."""
    reason: NDArray[np.int32]
    """int32 [N], index into `reasons`."""
    reasons: list[str]
    """The texts."""
    rank: NDArray[np.int64]
    """int64 [N]: 1 is looked at first, counted for `review` and `suspect` apart; 0 in `accept`."""
    confidence: NDArray[np.float32]
    """float32 [N], 0..1, calibrated; NaN where there is no prediction."""


def uncertainty(pile: Pile, temperature: float) -> Uncertainty:
    """Applies the temperature to all rows, batch by batch."""
    result = Uncertainty(
        np.full(len(pile), np.nan, np.float32),
        np.zeros(len(pile), np.float32),
        np.zeros(len(pile), np.int32),
        np.full(len(pile), np.nan, np.float32),
    )
    for start, probabilities in probability_batches(pile.directory):
        rows = start + np.flatnonzero(pile.predicted[start : start + len(probabilities)])
        if not len(rows):
            continue
        scaled = apply_temperature(probabilities[rows - start], temperature)
        result.entropy[rows] = entropy(scaled)
        labels = pile.label[rows]
        result.confidence[rows] = scaled[np.arange(len(rows)), labels]
        scaled[np.arange(len(rows)), labels] = -1.0
        result.runner_up[rows] = scaled.argmax(axis=1)
        result.margin[rows] = result.confidence[rows] - scaled.max(axis=1)
    return result


def assign(
    pile: Pile,
    certificates: list[Certificate],
    suspects: Suspects,
    realness_quantile: float,
    confirmed: NDArray[np.int64],
    about: Uncertainty,
) -> Lanes:
    """Puts every row into a lane, with reason and rank.

    What people found in the audit only helps the promise: rows that they found wrong leave the certified set, and rows
    that they found right come to it.

    Args:
        pile: The predictions.
        certificates: One for all rows, or one for each class that occurs.
        suspects: All suspects, the wrong ones of the audit among them.
        realness_quantile: What the suspects were found with.
        confirmed: int64 [n], the audited rows whose label is right.
        about: From `uncertainty`.
    """
    lane, reason = np.full(len(pile), REVIEW, np.int8), np.zeros(len(pile), np.int32)
    reasons = ["nothing is certified"]

    def give(rows: NDArray[Any], text: str) -> None:
        reason[rows] = len(reasons)
        reasons.append(text)

    for one in certificates:
        members = pile.predicted if one.class_name is None else pile.label == pile.classes.index(one.class_name)
        of_class = "" if one.class_name is None else f" for class {one.class_name!r}"
        if one.set is None:
            give(members, f"no confidence is certified{of_class}")
            continue
        inside = members & (suspects.kind == Kind.NONE) & (pile.confidence >= np.float32(one.set.threshold))
        lane[inside] = ACCEPT
        # Nine digits give the same float32 back.
        give(members, f"confidence under {one.set.threshold:.9g}{of_class}")
        give(inside, f"confidence at least {one.set.threshold:.9g}{of_class}: at most {100 * one.alpha:g} % are wrong")
    rows = np.flatnonzero(suspects.kind != Kind.NONE)
    lane[rows] = SUSPECT
    texts = {row: suspects.reason(row, realness_quantile) for row in rows.tolist()}
    index = {text: len(reasons) + i for i, text in enumerate(dict.fromkeys(texts.values()))}
    reason[rows] = [index[text] for text in texts.values()]
    reasons += index
    lane[confirmed] = ACCEPT
    give(confirmed, CONFIRMED)
    return Lanes(lane, reason, reasons, _ranks(lane, suspects, pile, about), about.confidence)


def _ranks(lane: NDArray[np.int8], suspects: Suspects, pile: Pile, about: Uncertainty) -> NDArray[np.int64]:
    rank = np.zeros(len(lane), np.int64)
    review = np.flatnonzero(lane == REVIEW)
    order = review[review_order(about.entropy[review], pile.label[review], about.runner_up[review])]
    rank[order] = np.arange(1, len(order) + 1)
    suspect = np.flatnonzero(lane == SUSPECT)
    order = suspect[np.lexsort((suspects.severity[suspect], suspects.kind[suspect]))]
    rank[order] = np.arange(1, len(order) + 1)
    return rank


def write_lanes(pile: Pile, lanes: Lanes, about: dict[str, Any], directory: Path) -> None:
    """Writes the prediction files again, under the same names, with the new columns behind the old ones.

    Args:
        pile: The predictions.
        lanes: The new columns.
        about: What every file's metadata says under `prelabel_lanes`.
        directory: Where to; it must be there.
    """
    pa = require_pyarrow()
    for path, start in shards(pile.directory):
        with pa.parquet.ParquetFile(path) as file:
            schema = _schema(file.schema_arrow, about)
            write_atomically(directory / path.name, partial(_write, file=file, schema=schema, start=start, lanes=lanes))


def _write(out: Any, file: Any, schema: Any, start: int, lanes: Lanes) -> None:
    pa = require_pyarrow()
    with pa.parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in file.iter_batches(BATCH_ROWS):
            rows = slice(start, start + len(batch))
            ranks, confidence = lanes.rank[rows], lanes.confidence[rows]
            columns = [
                *batch.columns,
                _texts(lanes.lane[rows], LANES),
                _texts(lanes.reason[rows], lanes.reasons),
                pa.array(ranks, mask=ranks == 0),
                pa.array(confidence, mask=np.isnan(confidence)),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            start += len(batch)


def _texts(index: NDArray[Any], texts: Any) -> Any:
    pa = require_pyarrow()
    used, position = np.unique(index, return_inverse=True)
    names = pa.array([texts[i] for i in used], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(position.astype(np.int32)), names).cast(pa.string())


def _schema(old: Any, about: dict[str, Any]) -> Any:
    """Returns the schema of a lanes file: that of the predictions with four more columns, for Hugging Face too."""
    pa = require_pyarrow()
    added = {"lane": "string", "lane_reason": "string", "review_rank": "int64", "calibrated_confidence": "float32"}
    fields = [pa.field(name, pa.type_for_alias(kind), nullable=kind != "string") for name, kind in added.items()]
    metadata = dict(old.metadata) | {METADATA_KEY: json.dumps(about)}
    if _HUGGING_FACE in metadata:
        info = json.loads(metadata[_HUGGING_FACE])
        info["info"]["features"] |= {name: {"dtype": kind, "_type": "Value"} for name, kind in added.items()}
        metadata[_HUGGING_FACE] = json.dumps(info)
    return pa.schema([*old, *fields], metadata)
