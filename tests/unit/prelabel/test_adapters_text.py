"""Formats that are one text file, read back by the parsers of the standard library."""

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings

from prelabel.adapters import csv_table, cvat, ground_truth, label_studio_tasks
from prelabel.adapters.pictures import image_name
from prelabel.adapters.rows import Conversion, Predictions, Row
from prelabel.errors import InputError
from prelabel.sources import open_source
from support.conversions import Case, cases, conversion_of, odd_case, rows_of, write_case, write_images

Write = Callable[[Path, Conversion], None]


def round_trip(case: Case, write: Write, **changes: Any) -> tuple[list[Row], bytes, Predictions]:
    with tempfile.TemporaryDirectory() as folder:
        directory = write_case(Path(folder) / "predictions", case)
        path = Path(folder) / "out"
        write(path, conversion_of(directory, **changes))
        assert sorted(one.name for one in Path(folder).iterdir()) == ["out", "predictions"]
        return rows_of(directory), path.read_bytes(), Predictions(directory)


def undo(cell: str) -> str:
    """What the documentation tells readers to do."""
    return cell.removeprefix("'")


def check_csv(case: Case) -> None:
    rows, content, predictions = round_trip(case, csv_table.write)
    header, *lines = csv.reader(content.decode().splitlines(keepends=True))
    extra = list(predictions.extra_types)
    assert header[:7] == ["id", "path", "label", "confidence", "realness", "model_id", "error"]
    assert header[7:] == [*extra, *(f"p_{name}" for name in case.classes)]
    for row, line in zip(rows, lines, strict=True):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in line)
        assert undo(line[0]) == row.id
        assert undo(line[1]) == row.path
        assert undo(line[2]) == (row.label or "")
        assert [line[3], line[4]] == ["" if one is None else str(one) for one in (row.confidence, row.realness)]
        assert (line[5], line[6]) == (row.model_id, row.error or "")
        assert [undo(one) for one in line[7 : 7 + len(extra)]] == [
            "" if row.extra[name] is None else str(row.extra[name]) for name in extra
        ]
        wanted = [str(one) for one in row.probabilities] or [""] * len(case.classes)
        assert line[7 + len(extra) :] == wanted


def check_cvat(case: Case) -> None:
    rows, content, predictions = round_trip(case, cvat.write)
    root = ElementTree.fromstring(content)
    assert root.findtext("version") == "1.1"
    labels = root.findall("meta/task/labels/label")
    assert [one.findtext("name") for one in labels] == list(case.classes)
    declared = ["confidence", "realness", *predictions.extra_types]
    for label in labels:
        assert label.findtext("type") == "tag"
        assert [one.findtext("name") for one in label.findall("attributes/attribute")] == declared
    predicted = [row for row in rows if row.label is not None]
    for row, image in zip(predicted, root.findall("image"), strict=True):
        assert image.attrib == {"id": str(cvat.NO_FRAME + row.position), "name": image_name(row.id)}
        (tag,) = image.findall("tag")
        assert tag.attrib == {"label": row.label, "source": "auto"}
        found = {one.attrib["name"]: one.text for one in tag}
        known = {"confidence": row.confidence, "realness": row.realness, **row.extra}
        assert found == {name: str(value) for name, value in known.items() if value is not None}


def check_ground_truth(case: Case) -> None:
    rows, content, _ = round_trip(case, ground_truth.write, image_url_prefix="s3://bucket/x/")
    assert content.endswith(b"\n")
    for row, text in zip(rows, content.split(b"\n")[:-1], strict=True):
        line = json.loads(text)
        assert line["source-ref"] == f"s3://bucket/x/{row.id}"
        if row.label is None:
            assert set(line) == {"source-ref", "prelabel"}
            assert line["prelabel"]["error"] == row.error
            continue
        assert case.classes[line["label"]] == row.label
        metadata = line["label-metadata"]
        assert metadata.pop("creation-date")[:2] == "20"
        assert metadata == {
            "class-name": row.label,
            "confidence": row.confidence,
            "type": "groundtruth/image-classification",
            "job-name": "prelabel/model-1",
            "human-annotated": "no",
        }
        assert line["prelabel"]["probabilities"] == dict(zip(case.classes, row.probabilities, strict=True))
        assert line["prelabel"].get("lane") == row.extra.get("lane")


def check_label_studio(case: Case) -> None:
    rows, content, _ = round_trip(case, label_studio_tasks.write, image_url_prefix="/data/local-files/?d=set/")
    for row, task in zip(rows, json.loads(content), strict=True):
        assert task["data"]["image"].startswith("/data/local-files/?d=set/")
        assert "&" not in task["data"]["image"]
        assert task["data"]["uid"] == row.id
        assert {name: value for name, value in task["data"].items() if name in row.extra} == {
            name: value for name, value in row.extra.items() if value is not None
        }
        if row.label is None:
            assert "predictions" not in task
            assert task["data"]["error"] == row.error
            continue
        (prediction,) = task["predictions"]
        assert (prediction["model_version"], prediction["score"]) == ("model-1", row.confidence)
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == ("label", "image", "choices")
        assert result["value"] == {"choices": [row.label]}
        assert [task["data"][f"p_{name}"] for name in case.classes] == list(row.probabilities)


CHECKS = [check_csv, check_cvat, check_ground_truth, check_label_studio]


@pytest.mark.parametrize("check", CHECKS)
def test_odd_names_come_back_as_they_were(check: Callable[[Case], None]) -> None:
    check(odd_case())


@pytest.mark.parametrize("check", CHECKS)
def test_any_names_come_back_as_they_were(check: Callable[[Case], None]) -> None:
    settings(max_examples=25)(given(cases())(check))()


@pytest.mark.parametrize("check", CHECKS)
def test_a_hundred_classes(check: Callable[[Case], None]) -> None:
    check(Case([f"class {k}" for k in range(100)], ["a.png", "b.png"]))


def test_cells_that_a_spreadsheet_would_run_begin_with_an_apostrophe() -> None:
    _, content, _ = round_trip(Case(["=1+1", "-", "@x", "'y"], ["=cmd|' /C calc'!A0", "+1", "\t=1"]), csv_table.write)
    header, *lines = csv.reader(content.decode().splitlines(keepends=True))
    assert header[-4:] == ["p_=1+1", "p_-", "p_@x", "p_'y"]
    assert [line[0] for line in lines] == ["'=cmd|' /C calc'!A0", "'+1", "'\t=1"]
    assert {line[2][0] for line in lines} == {"'"}


def test_numbers_are_written_as_short_as_they_are() -> None:
    case = Case(["a", "b"], ["x"], probabilities=np.array([[0.81, 0.19]], np.float32))
    _, content, _ = round_trip(case, csv_table.write)
    assert content.splitlines()[1].startswith(b"x,pile/x,a,0.81,")
    assert content.rstrip().endswith(b",0.81,0.19")


@pytest.mark.parametrize("case", [Case(["a\x00b"], ["x"]), Case(["a"], ["x\x1f"]), Case(["a\ufffe"], ["x"])])
def test_what_xml_cannot_hold_is_an_error_and_leaves_no_file(case: Case, tmp_path: Path) -> None:
    directory = write_case(tmp_path / "predictions", case)
    with pytest.raises(InputError, match="XML cannot: rename it, or use another format"):
        cvat.write(tmp_path / "out.xml", conversion_of(directory))
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize("ids", [["b/1.jpg", "b/1.png"], ["a", "x", "a.png"]])
def test_images_that_cvat_cannot_tell_apart_are_named(ids: list[str], tmp_path: Path) -> None:
    directory = write_case(tmp_path / "predictions", Case(["a"], ids))
    with pytest.raises(InputError, match=f"'{ids[0]}' and '{ids[-1]}' are one frame for CVAT"):
        cvat.write(tmp_path / "out.xml", conversion_of(directory))
    assert list(tmp_path.iterdir()) == [directory]


def test_cvat_has_sizes_where_there_are_images(tmp_path: Path) -> None:
    case = odd_case()
    source = open_source(write_images(tmp_path / "images.parquet", case))
    directory = write_case(tmp_path / "predictions", case, source.manifest_hash)
    cvat.write(tmp_path / "out.xml", conversion_of(directory, source=source))
    images = ElementTree.parse(tmp_path / "out.xml").getroot().findall("image")
    sizes = [(one.get("width"), one.get("height")) for one in images]
    assert sizes == [("4", "3")] * (len(case.ids) - len(case.failed))
