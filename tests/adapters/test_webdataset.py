"""Tar shards, read by webdataset."""

from pathlib import Path

import pytest
import webdataset as wds

from prelabel.adapters import webdataset
from prelabel.sources import Source
from support.conversions import Case, conversion_of, rows_of


def test_samples_come_back(
    tmp_path: Path, predictions: Path, source: Source, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "SHARD_IMAGES", 3)
    webdataset.write(tmp_path / "out", conversion_of(predictions, source=source))
    urls = sorted(str(path) for path in (tmp_path / "out").iterdir())
    assert len(urls) == 3
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png", "cls", "json"))
    rows = [row for row in rows_of(predictions) if row.label is not None]
    for row, (image, number, known) in zip(rows, samples, strict=True):
        assert image.size == (4, 3)
        assert image.getpixel((0, 0)) in (row.position, (row.position,) * 3)
        assert case.classes[number] == row.label
        assert known["probabilities"] == dict(zip(case.classes, row.probabilities, strict=True))
        assert (known["id"], known["lane"]) == (row.id, row.extra["lane"])
