"""Bulk runs of made-up images, and what their output must hold."""

from pathlib import Path
from typing import Any

from prelabel.bulk import BulkConfig, BulkSummary, run_bulk
from prelabel.table import read_predictions
from support.samples import ListPredictor, ListSource, answer_for


def bulk(output: Path, source: ListSource, predictor: Any = None, **options: Any) -> BulkSummary:
    options = {"shard_size": 10, "batch_size": 4, "window": 2, "decode_threads": 2, **options}
    return run_bulk(BulkConfig(output, **options), source, "pile", predictor or ListPredictor(), progress="none")


def rows(output: Path) -> list[dict[str, Any]]:
    return list(read_predictions(output).to_pylist())


def check_rows(output: Path, count: int, broken: frozenset[int] = frozenset()) -> None:
    """Every image has exactly one row, in order, with its own answer."""
    found = rows(output)
    assert [row["id"] for row in found] == [f"{i:05d}" for i in range(count)]
    right = answer_for(range(count), "model-1")
    for i, row in enumerate(found):
        assert row["path"] == f"somewhere/{i}"
        assert row["model_id"] == "model-1"
        if i in broken:
            assert row["error"].startswith("not an image")
            assert row["label"] is row["realness"] is None
            assert row["probabilities"] == [None, None]
        else:
            assert row["error"] is None
            assert row["label"] == ("low", "high")[i % 2]
            assert row["probabilities"] == right.probabilities[i].tolist()
            assert row["confidence"] == 0.75
            assert row["realness"] == right.realness[i]


def parts(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob("part-*.parquet"))
