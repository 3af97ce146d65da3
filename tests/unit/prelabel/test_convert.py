"""`prelabel convert` as a user sees it: what is chosen, what is counted, what is refused."""

import csv
import json
import typing
from pathlib import Path

import numpy as np
import pytest

from prelabel import __main__ as cli
from prelabel.adapters.pictures import folder_name, image_file, image_name
from prelabel.commands.convert import FORMATS, Convert
from prelabel.sources import Sample, open_source
from support.command_line import error_line
from support.conversions import Case, odd_case, png, rows_of, write_case, write_images
from support.samples import write_pile


def convert(predictions: Path, to: str, output: Path, *more: object) -> int:
    words = ["convert", "--predictions", predictions, "--to", to, "--output", output, *more]
    return cli.main([str(word) for word in words])


def csv_ids(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [line["id"].removeprefix("'") for line in csv.DictReader(file)]


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """Rows 0, 2, 4, 6, 8 are in the lane `review`, 1, 5, 7 in `accept`, and 3, an error, is a suspect."""
    return write_case(tmp_path / "predictions", odd_case())


def test_the_options_name_every_format() -> None:
    assert set(typing.get_args(typing.get_type_hints(Convert)["to"])) == set(FORMATS)


def test_what_prelabel_run_wrote_can_be_converted_to_everything(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pile, predictions = write_pile(tmp_path / "pile", 9, broken=[4]), tmp_path / "predictions"
    options = ["--device", "cpu", "--threads", "1", "--progress", "none", "--shard-size", "4"]
    words = ["run", "--input", str(pile), "--model", str(tiny_bundle), "--output", str(predictions), *options]
    assert cli.main(words) == 3
    capsys.readouterr()
    skipping = {"folders", "webdataset", "cvat"}
    for name, one in FORMATS.items():
        more = [] if one.images == "unused" else ["--images", pile]
        output = tmp_path / f"out-{name}"
        assert convert(predictions, name, output, *more) == (3 if name in skipping else 0)
        shown = capsys.readouterr().out
        if name in skipping:
            assert shown == f"8 images in {output}; 1 skipped, which have an error instead of a prediction\n"
        else:
            assert shown == f"9 images in {output}; 1 of them without a label, because their rows are errors\n"
        assert output.is_dir() == (one.output == "folder")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        ["pile", "predictions", *(f"out-{name}" for name in FORMATS)]
    )


def test_the_rest_of_a_run_that_is_not_finished_is_told(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pile, predictions = write_pile(tmp_path / "pile", 9), tmp_path / "predictions"
    options = ["--device", "cpu", "--threads", "1", "--progress", "none", "--limit", "4"]
    words = ["run", "--input", str(pile), "--model", str(tiny_bundle), "--output", str(predictions), *options]
    assert cli.main(words) == 0
    capsys.readouterr()
    assert convert(predictions, "csv", tmp_path / "out.csv") == 0
    assert "has 4 of the 9 images: the same `prelabel run`, without --limit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--lane", "accept"], [1, 5, 7]),
        (["--lane", "accept,suspect"], [1, 3, 5, 7]),
        (["--min-confidence", "0.5"], [0, 1, 2, 4, 5, 6, 7, 8]),
        (["--lane", "review", "--min-confidence", "0"], [0, 2, 4, 6, 8]),
        ([], list(range(9))),
    ],
)
def test_rows_are_chosen_by_lane_and_confidence(
    audited: Path, tmp_path: Path, options: list[str], wanted: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(audited, "csv", tmp_path / "out.csv", *options) == 0
    assert csv_ids(tmp_path / "out.csv") == [rows_of(audited)[i].id for i in wanted]
    left_out = f"; {9 - len(wanted)} left out by --lane or --min-confidence"
    assert (left_out in capsys.readouterr().out) == (len(wanted) < 9)


def test_min_confidence_includes_its_own_value(tmp_path: Path) -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    directory = write_case(tmp_path / "predictions", Case(["a", "b"], ["x", "y", "z"], probabilities=probabilities))
    assert convert(directory, "csv", tmp_path / "out.csv", "--min-confidence", 0.8) == 0
    assert csv_ids(tmp_path / "out.csv") == ["x", "y"]


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("csv", ["--lane", "accept", "--min-confidence", "1"], "nothing to write: of 9 rows in"),
        ("csv", ["--lane", "sure"], "--lane 'sure' is not known: wanted are accept, review, suspect"),
        ("csv", ["--min-confidence", "80"], "--min-confidence 80.0 is not usable: wanted is a number from 0 to 1"),
        ("csv", ["--min-confidence", "nan"], "--min-confidence nan is not usable"),
        ("csv", ["--images", "pile"], "--to csv holds no images: leave --images out"),
        ("csv", ["--image-url-prefix", "s3://x/"], "it is for ground-truth, label-studio"),
        ("webdataset", [], "--to webdataset needs the images: give --images"),
        ("folders", [], "--to folders needs the images: give --images"),
        ("cvat", ["--images", "nowhere"], "input nowhere does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    audited: Path, tmp_path: Path, to: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(audited, to, tmp_path / "out", *options) == 2
    assert message in error_line(capsys)
    assert list(tmp_path.iterdir()) == [audited]


def test_lanes_need_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_case(tmp_path / "predictions", odd_case(lanes=False))
    assert convert(directory, "csv", tmp_path / "out", "--lane", "accept") == 2
    assert "has no lanes: `prelabel audit apply` makes them" in error_line(capsys)


def test_images_of_another_input_are_refused(audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images.parquet", odd_case())
    assert convert(audited, "cvat", tmp_path / "out", "--images", images) == 2
    assert "are of another input (manifest manifest, not" in error_line(capsys)


def test_files_are_replaced_and_folders_are_not(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "out.csv", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "a file").touch()
    assert convert(audited, "csv", file) == 0
    assert file.read_text().startswith("id,path,")
    capsys.readouterr()
    assert convert(audited, "huggingface", folder) == 2
    assert "is there already: choose a new or empty directory" in error_line(capsys)
    assert convert(audited, "csv", folder) == 2
    assert "is a folder, and a file is written" in error_line(capsys)
    assert convert(audited, "csv", tmp_path / "no" / "where.csv") == 2
    assert f"there is no folder {tmp_path / 'no'}" in error_line(capsys)


def test_an_image_that_is_gone_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "image": [png(0), None]}), path)
    directory = write_case(tmp_path / "predictions", Case(["x"], ["a", "b"]), open_source(path).manifest_hash)
    assert convert(directory, "webdataset", tmp_path / "out", "--images", path) == 3
    assert "1 images in" in (shown := capsys.readouterr().out)
    assert "1 skipped, which have an image that cannot be read" in shown


def test_the_function_file_is_python_and_names_the_predictions(tmp_path: Path) -> None:
    directory = write_case(tmp_path / 'it\'s "odd" {x}', odd_case())
    output = tmp_path / "function.py"
    assert convert(directory, "cvat-function", output, "--lane", "accept", "--min-confidence", "0.5") == 0
    code = compile(output.read_text(), "function.py", "exec")
    assert repr(str(directory)) in output.read_text()
    assert "('accept',), 0.5, server, model" in output.read_text()
    assert "create" in code.co_names


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cat", "cat"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("50%", "50%25"),
        ("", "%"),
        ("é", "é"),
    ],
)
def test_class_names_as_folders(name: str, wanted: str) -> None:
    assert folder_name(name) == wanted


def test_the_suffix_of_an_image_is_that_of_its_bytes() -> None:
    assert image_file(Sample("a.jpg", "", png(1)))[1] == ".png"
    assert image_file(Sample("a", "", b"\xff\xd8\xff\xe0"))[1] == ".jpg"
    assert image_file(Sample("a", "", b"RIFF1234WEBPVP8 "))[1] == ".webp"
    assert image_file(Sample("a.tiff", "", b"broken"))[1] == ".tiff"
    content, suffix = image_file(Sample("a", "", np.full((3, 4), 7, np.uint8)))
    assert (content, suffix) == (png(7), ".png")
    assert image_file(Sample("a", "", np.full((3, 4, 1), 7, np.uint8)))[0] == png(7)
    assert [image_name(one) for one in ("a.JPG", "a", "v1.2")] == ["a.JPG", "a.png", "v1.2.png"]


def test_the_manifest_of_label_studio_can_be_loaded_without_a_prefix(audited: Path, tmp_path: Path) -> None:
    assert convert(audited, "label-studio", tmp_path / "tasks.json") == 0
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [row.path for row in rows_of(audited)]
