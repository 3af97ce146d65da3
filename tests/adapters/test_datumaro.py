"""CVAT for images 1.1, read by datumaro."""

import dataclasses
import os
from pathlib import Path

import pytest
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset

from prelabel.adapters import cvat
from prelabel.adapters.pictures import image_name
from prelabel.sources import Source
from support.conversions import Case, conversion_of, odd_case, rows_of


@pytest.fixture
def case() -> Case:
    """With names that files can have: datumaro wants the images too, in a folder beside the XML."""
    ids = ("a/0.png", "b/0.png", "ü.jpeg", "bare", "=cmd()", "x<y>&'\".png", "50%.png", " .png", "a\tb.png")
    return dataclasses.replace(odd_case(), ids=ids)


def test_labels_and_attributes_come_back(tmp_path: Path, predictions: Path, source: Source, case: Case) -> None:
    folder = tmp_path / "cvat"
    for sample in source.read(0, len(source)):
        path = folder / "images" / image_name(sample.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(sample.content, bytes)
        path.write_bytes(sample.content)
    cvat.write(folder / "default.xml", conversion_of(predictions, source=source))
    dataset = Dataset.import_from(str(folder), "cvat")
    categories = dataset.categories()[AnnotationType.label]
    assert [label.name for label in categories] == list(case.classes)
    rows = rows_of(predictions)
    items = {item.attributes["frame"]: item for item in dataset}
    assert sorted(items) == [row.position for row in rows]
    for row in rows:
        item = items[row.position]
        assert item.id == os.path.splitext(image_name(row.id))[0]
        if row.label is None:
            assert not item.annotations
            continue
        (label,) = item.annotations
        assert case.classes[label.label] == row.label
        attributes = dict(label.attributes)
        assert (attributes["confidence"], attributes["realness"]) == (str(row.confidence), str(row.realness))
        assert (attributes["lane"], attributes["review_rank"]) == (row.extra["lane"], str(row.extra["review_rank"]))
