"""The next images to label, when there is a model: those that it is least sure of, different confusions in turns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.answers import given_answers
from prelabel.audit.lanes import LANES, METADATA_KEY, REVIEW, Uncertainty, uncertainty
from prelabel.audit.pile import Pile, read_pile
from prelabel.audit.review import review_order
from prelabel.audit.suspects import rows_of
from prelabel.errors import InputError
from prelabel.selection.selection import Selection, duplicate_ids
from prelabel.table import read_predictions, require_pyarrow

By = Literal["entropy", "margin"]


@dataclass(frozen=True)
class NextConfig:
    """How the next images are selected."""

    by: By = "entropy"
    """What makes a prediction uncertain: entropy of all probabilities, or a small margin between the two largest."""
    labelled: tuple[Path, ...] = ()
    """Files of answers (CSV with columns `id` and `answer`, or Label Studio's JSON): their images are not selected."""


def select_next(predictions: Path, count: int, config: NextConfig, duplicates: Path | None) -> Selection:
    """Selects rows of predictions, the most uncertain first, as `prelabel audit apply` orders its lane `review`.

    Of predictions with lanes only those in `review` are candidates, by the temperature of the lanes: what is accepted
    needs no label.

    Args:
        predictions: Output of `prelabel run` or `prelabel audit apply`.
        count: Images to select, 1 or more.
        config: Options.
        duplicates: File of `prelabel duplicates`, whose duplicates are not selected.

    Raises:
        InputError: There are fewer candidates than wanted, or a file is not usable.
    """
    pile = read_pile(predictions)
    lane, temperature = _lane(predictions)
    labelled = _labelled(pile, config.labelled)
    copies = _copies(pile, duplicates)
    in_review = np.ones(len(pile), bool) if lane is None else lane == REVIEW
    candidates = np.flatnonzero(pile.predicted & in_review & ~labelled & ~copies)
    if count > len(candidates):
        raise InputError(
            f"--count {count} is not usable: {len(candidates):,} of {len(pile):,} rows can be selected "
            f"({(~pile.predicted).sum():,} have no prediction, {(~in_review).sum():,} are in lanes other than review, "
            f"{labelled.sum():,} are labelled, {copies.sum():,} are duplicates)"
        )
    about = uncertainty(pile, temperature)
    score = about.entropy if config.by == "entropy" else 1.0 - about.margin
    order = review_order(score[candidates], pile.label[candidates], about.runner_up[candidates])
    chosen = candidates[order[:count]]
    paths = read_predictions(predictions, ["path"])["path"].take(require_pyarrow().array(chosen)).to_pylist()
    return Selection(
        manifest_hash=pile.manifest_hash,
        rows=tuple(chosen.tolist()),
        ids=tuple(pile.ids_at(chosen)),
        paths=tuple(paths),
        reasons=tuple(_reason(config.by, pile, about, row) for row in chosen.tolist()),
        classes=pile.classes,
        about={
            "method": f"{config.by}, confusions in turns",
            "model_id": pile.model_id,
            "predictions_sha256": pile.sha256,
            "rows": len(pile),
            "candidates": len(candidates),
            "lanes": lane is not None,
            "labelled_left_out": int(labelled.sum()),
            "duplicates_left_out": int(copies.sum()),
        },
    )


def _lane(predictions: Path) -> tuple[NDArray[np.int64] | None, float]:
    """Returns the index into `LANES` of each row, int64 [N], and the temperature of its ranks; None and 1 without."""
    import pyarrow.compute as pc

    table = read_predictions(predictions, ["lane"])
    if "lane" not in table.column_names:
        return None, 1.0
    lane: NDArray[np.int64] = pc.index_in(table["lane"], value_set=require_pyarrow().array(LANES)).to_numpy()
    return lane, json.loads(table.schema.metadata[METADATA_KEY])["temperature"]


def _labelled(pile: Pile, files: Sequence[Path]) -> NDArray[np.bool_]:
    labelled = np.zeros(len(pile), bool)
    for path in files:
        ids = require_pyarrow().array(list(given_answers(path, known=())), "string")
        labelled[rows_of(pile, ids, path)] = True
    return labelled


def _copies(pile: Pile, duplicates: Path | None) -> NDArray[np.bool_]:
    copies = np.zeros(len(pile), bool)
    if duplicates is not None:
        ids = require_pyarrow().array(sorted(duplicate_ids(duplicates, pile.manifest_hash)), "string")
        copies[rows_of(pile, ids, duplicates)] = True
    return copies


def _reason(by: By, pile: Pile, about: Uncertainty, row: int) -> str:
    value = f"entropy {about.entropy[row]:.3g} nats" if by == "entropy" else f"margin {about.margin[row]:.3g}"
    return f"{value}, between {pile.classes[pile.label[row]]!r} and {pile.classes[about.runner_up[row]]!r}"
