"""Formats that are folders, read back without the libraries that they are for (`make test-adapters` has these)."""

import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from prelabel.adapters import fiftyone, folders, huggingface, webdataset
from prelabel.adapters.rows import Conversion, Row
from prelabel.errors import InputError
from prelabel.sources import open_source
from support.conversions import Case, cases, conversion_of, odd_case, png, rows_of, write_case, write_images

Write = Callable[[Path, Conversion], None]


def convert(folder: Path, case: Case, write: Write, images: bool = True) -> tuple[list[Row], Path, Conversion]:
    """Returns the rows, the output and the conversion."""
    source = open_source(write_images(folder / "images.parquet", case))
    directory = write_case(folder / "predictions", case, source.manifest_hash)
    conversion = conversion_of(directory, source=source if images else None)
    write(folder / "out", conversion)
    assert sorted(one.name for one in folder.iterdir()) == ["images.parquet", "out", "predictions"]
    return rows_of(directory), folder / "out", conversion


def good(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.error is None]


def check_fiftyone(folder: Path, case: Case) -> None:
    rows, out, conversion = convert(folder, case, fiftyone.write)
    content = json.loads((out / "labels.json").read_text())
    assert content["classes"] == list(case.classes)
    files = {one.stem: one for one in (out / "data").iterdir()}
    assert set(files) == set(content["labels"])
    assert len(files) == len(rows) == conversion.tally.written
    for row, (key, target) in zip(rows, content["labels"].items(), strict=True):
        assert int(key[:6]) == row.position
        if row.error is not None:
            assert target is None
            continue
        assert files[key].read_bytes() == png(row.position)
        assert (target["label"], target["confidence"]) == (row.label, row.confidence)
        attributes = target["attributes"]
        assert attributes["image_id"] == row.id
        assert (attributes["realness"], attributes["probabilities"]) == (row.realness, list(row.probabilities))
        assert attributes.get("lane") == row.extra.get("lane")
        assert not {"id", "label", "confidence", "tags"} & set(attributes)


def check_folders(folder: Path, case: Case) -> None:
    rows, out, conversion = convert(folder, case, folders.write)
    found = {}
    for sample in open_source(out).read(0, len(rows)):
        assert sample.label is not None
        number = int(Path(sample.path).name[:6])
        found[number] = sample
        assert sample.content == png(number)
    assert sorted(found) == [row.position for row in good(rows)]
    assert [one.name for one in out.iterdir()] == ["labelled"]
    # Two classes never share a folder.
    labels = {(found[row.position].label, row.label) for row in good(rows)}
    assert len({shown for shown, _ in labels}) == len({label for _, label in labels}) == len(labels)
    assert sum(conversion.tally.skipped.values()) == len(case.failed)


def check_huggingface(folder: Path, case: Case) -> None:
    rows, out, _ = convert(folder, case, huggingface.write)
    (path,) = (out / "data").iterdir()
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": list(case.classes), "_type": "ClassLabel"}
    assert features["image"] == {"_type": "Image"}
    assert list(features) == table.schema.names
    for row, line in zip(rows, table.to_pylist(), strict=True):
        assert line["id"] == row.id
        assert {name: line[name] for name in row.extra if name != "calibrated_confidence"} == {
            name: value for name, value in row.extra.items() if name != "calibrated_confidence"
        }
        if row.error is not None:
            assert (line["label"], line["image"], line["error"]) == (None, None, row.error)
            assert line["probabilities"] == [None] * len(case.classes)
            continue
        assert case.classes[line["label"]] == row.label
        assert line["image"]["bytes"] == png(row.position)
        assert line["probabilities"] == pytest.approx(row.probabilities, abs=1e-7)


def check_webdataset(folder: Path, case: Case) -> None:
    rows, out, conversion = convert(folder, case, webdataset.write)
    members: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.iterdir()):
        with tarfile.open(path) as tar:
            for member in tar:
                key, suffix = member.name.split(".")
                file = tar.extractfile(member)
                assert file is not None
                members.setdefault(key, {})[suffix] = file.read()
    for row, (key, sample) in zip(good(rows), members.items(), strict=True):
        assert int(key) == row.position
        assert sample["png"] == png(row.position)
        assert case.classes[int(sample["cls"])] == row.label
        known = json.loads(sample["json"])
        assert (known["id"], known["realness"]) == (row.id, row.realness)
        assert known["probabilities"] == dict(zip(case.classes, row.probabilities, strict=True))
    assert sum(conversion.tally.skipped.values()) == len(case.failed)


CHECKS = [check_fiftyone, check_folders, check_huggingface, check_webdataset]


@pytest.mark.parametrize("check", CHECKS)
def test_odd_names_come_back_as_they_were(check: Callable[[Path, Case], None], tmp_path: Path) -> None:
    check(tmp_path, odd_case())


@pytest.mark.parametrize("check", CHECKS)
def test_any_names_come_back_as_they_were(check: Callable[[Path, Case], None]) -> None:
    def once(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder), case)

    settings(max_examples=15)(given(cases())(once))()


@pytest.mark.parametrize("write", [fiftyone.write, huggingface.write, webdataset.write, folders.write])
def test_an_error_in_the_middle_leaves_nothing(write: Write, tmp_path: Path) -> None:
    case = odd_case()
    source = open_source(write_images(tmp_path / "images.parquet", case))
    other = Case(**{**vars(case), "ids": [*case.ids[:-1], "another"]})
    directory = write_case(tmp_path / "predictions", other, source.manifest_hash)
    with pytest.raises(InputError, match=r"image 8 of --images is .*, but the prediction there is of 'another'"):
        write(tmp_path / "out", conversion_of(directory, source=source))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["images.parquet", "predictions"]


def test_files_are_split_where_they_grow_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(["a", "b"], [f"{i}.png" for i in range(10)])
    monkeypatch.setattr(webdataset, "SHARD_IMAGES", 4)
    _, out, _ = convert(tmp_path, case, webdataset.write)
    assert sorted(one.name for one in out.iterdir()) == [f"prelabel-{i:06d}.tar" for i in range(3)]
    monkeypatch.setattr(huggingface, "FILE_BYTES", 1)
    monkeypatch.setattr(huggingface, "GROUP_ROWS", 3)
    huggingface.write(tmp_path / "more", conversion_of(tmp_path / "predictions"))
    paths = sorted((tmp_path / "more/data").iterdir())
    assert [one.name for one in paths] == [f"train-{i:05d}.parquet" for i in range(4)]
    assert [name for path in paths for name in pq.read_table(path)["id"].to_pylist()] == list(case.ids)
    monkeypatch.setattr(huggingface, "GROUP_ROWS", 5)  # no empty file behind the last group
    huggingface.write(tmp_path / "even", conversion_of(tmp_path / "predictions"))
    assert len(list((tmp_path / "even/data").iterdir())) == 2


def test_images_of_one_name_in_several_folders_are_all_kept(tmp_path: Path) -> None:
    case = Case(["only"], ["a/0.png", "b/0.png", "a/0.jpg"])
    _, out, _ = convert(tmp_path, case, folders.write)
    assert sorted(one.name for one in (out / "labelled/only").iterdir()) == [
        "000000-0.png",
        "000001-0.png",
        "000002-0.png",
    ]


def test_a_class_too_long_for_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is too long for the name of a folder"):
        convert(tmp_path, Case(["x" * 256], ["a.png"]), folders.write)


def test_fiftyone_without_images_names_them_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = write_case(tmp_path / "predictions", Case(["a"], ["x/1.png", "x/2.png"]))
    with pytest.raises(InputError, match=r"of 2 rows .* 2 have a path that is no file here \(--images copies images\)"):
        fiftyone.write(tmp_path / "out", conversion_of(directory))
    assert not (tmp_path / "out").exists()
    (tmp_path / "pile/x").mkdir(parents=True)
    (tmp_path / "pile/x/1.png").write_bytes(png(0))
    conversion = conversion_of(directory)
    fiftyone.write(tmp_path / "out", conversion)
    assert (conversion.tally.written, conversion.tally.skipped.total()) == (1, 1)
    labels: dict[str, Any] = json.loads((tmp_path / "out/labels.json").read_text())["labels"]
    assert list(labels) == [str(tmp_path / "pile/x/1.png")]
    assert list((tmp_path / "out/data").iterdir()) == []


def test_fiftyone_has_one_sample_for_each_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = write_case(tmp_path / "predictions", Case(["a"], ["1.png", "./1.png", "link.png"]))
    (tmp_path / "pile").mkdir()
    (tmp_path / "pile/1.png").write_bytes(png(0))
    (tmp_path / "pile/link.png").symlink_to("1.png")
    conversion = conversion_of(directory)
    fiftyone.write(tmp_path / "out", conversion)
    assert conversion.tally.written == 2
    assert dict(conversion.tally.skipped) == {"a path that an earlier row has": 1}
    labels: dict[str, Any] = json.loads((tmp_path / "out/labels.json").read_text())["labels"]
    assert list(labels) == [str(tmp_path / "pile/1.png"), str(tmp_path / "pile/link.png")]
