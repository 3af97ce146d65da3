"""Hugging Face Parquet, read by datasets."""

from pathlib import Path

import datasets
import pytest

from prelabel.adapters import huggingface
from prelabel.sources import Source
from support.conversions import Case, conversion_of, rows_of


def test_features_and_rows_come_back(tmp_path: Path, predictions: Path, source: Source, case: Case) -> None:
    huggingface.write(tmp_path / "out", conversion_of(predictions, source=source))
    dataset = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), split="train")
    label = dataset.features["label"]
    assert isinstance(label, datasets.ClassLabel)
    assert label.names == list(case.classes)
    assert isinstance(dataset.features["image"], datasets.Image)
    assert dataset.features["probabilities"].length == len(case.classes)
    rows = rows_of(predictions)
    assert len(dataset) == len(rows)
    for row, line in zip(rows, dataset, strict=True):
        assert (line["id"], line["error"], line["lane"]) == (row.id, row.error, row.extra["lane"])
        if row.label is None:
            assert (line["label"], line["image"]) == (None, None)
            continue
        assert label.int2str(line["label"]) == row.label
        assert line["probabilities"] == pytest.approx(row.probabilities, abs=1e-7)
        assert line["image"].size == (4, 3)
        assert line["image"].getpixel((0, 0)) == row.position


def test_without_images(tmp_path: Path, predictions: Path) -> None:
    huggingface.write(tmp_path / "out", conversion_of(predictions))
    dataset = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), split="train")
    assert "image" not in dataset.features
    assert dataset["id"][:] == [row.id for row in rows_of(predictions)]


def test_the_output_of_a_run_by_its_pattern(tmp_path: Path, predictions: Path) -> None:
    """As docs/bulk.md says: its other files begin with an underscore, which `datasets` does not pass over."""
    (predictions / "_run.json").write_text("{}")
    files = str(predictions / "part-*.parquet")
    dataset = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"), split="train")
    assert dataset["id"][:] == [row.id for row in rows_of(predictions)]
