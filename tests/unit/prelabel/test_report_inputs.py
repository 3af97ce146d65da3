"""What `prelabel report` does with images, labels and files that are large, broken, gone or of something else."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prelabel import __main__ as cli
from prelabel.errors import InputError
from prelabel.report.labels import read_labels
from prelabel.report.rows import read_rows
from prelabel.report.thumbnails import make_thumbnails
from prelabel.sources import FolderSource
from support.piles import write_predictions
from support.reports import HOSTILE, NOTHING, PredictedFolder, page_of, predicted_folder


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> PredictedFolder:
    return predicted_folder(tmp_path_factory.mktemp("known"), 40, HOSTILE)


def test_images_keep_within_their_budget_and_their_shape(tmp_path: Path) -> None:
    known = predicted_folder(tmp_path / "large", 4, ("a", "b"), side_px=300)
    source = FolderSource(known.images)
    large = make_thumbnails(source, [0, 1, 2, 3])
    small = make_thumbnails(source, [0, 1, 2, 3], budget_bytes=4 * 2500)
    assert set(large) == set(small) == {0, 1, 2, 3}
    assert all(len(uri) <= 2500 < len(large[row]) for row, uri in small.items())
    content = base64.b64decode(large[0].split(",")[1])
    (tmp_path / "thumbnail").write_bytes(content)
    with Image.open(tmp_path / "thumbnail") as image:
        assert image.size == (96, 95)


def test_an_image_that_is_gone_is_a_name(known: PredictedFolder, tmp_path: Path) -> None:
    source = FolderSource(known.images)
    assert make_thumbnails(_Broken(source), [0, 1]).keys() == {1}


class _Broken(FolderSource):
    """Its first image is no image."""

    def __init__(self, source: FolderSource) -> None:
        self.source = source

    def read(self, start: int, stop: int) -> Any:
        for sample in self.source.read(start, stop):
            yield replace(sample, content=b"gone") if start == 0 else sample


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\nnowhere.png,a\n", "names ids that are not in the predictions: nowhere.png"),
        ("id,label\n{0},a\n{0},a\n", "labels more than once"),
        ("id,label\n{0},zebra\n", "'zebra', which is no class"),
        ("id,label\n{0},\n", "holds no labels for these predictions"),
        ("id,class\n{0},a\n", "has no column 'label'"),
    ],
)
def test_bad_labels_are_errors_that_say_which(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_predictions(tmp_path / "p", np.array([[0.9, 0.1]], np.float32), classes=("a", "b"))
    (tmp_path / "labels.csv").write_text(content.format("set/00000.png"))
    output = tmp_path / "report.html"
    options = ("--predictions", tmp_path / "p", "--labels", tmp_path / "labels.csv", "--output", output)
    assert cli.main(["report", *map(str, options)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_labels_by_numbers_whose_zeros_a_spreadsheet_took_away(tmp_path: Path) -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]] * 2, np.float32)
    write_predictions(tmp_path / "p", probabilities, classes=("a", "b"), ids=["000", "001", "002", "x"])
    (tmp_path / "labels.csv").write_text("id;label\n2;b\n0;a\nx;b\n")
    assert read_labels(str(tmp_path / "labels.csv"), read_rows(tmp_path / "p")).index.tolist() == [0, -2, 1, 1]


def test_what_does_not_belong_together_is_an_error(known: PredictedFolder, tmp_path: Path) -> None:
    other = predicted_folder(tmp_path / "other", 2, ("a", "b"))
    inputs = replace(NOTHING, predictions=known.predictions)
    with pytest.raises(InputError, match="is another input"):
        page_of(replace(inputs, images=str(other.images)), tmp_path)
    with pytest.raises(InputError, match="is another input"):
        page_of(replace(inputs, labels=str(other.images)), tmp_path)
    with pytest.raises(InputError, match=r"holds no _run\.json"):
        page_of(replace(inputs, run=tmp_path), tmp_path)
    (tmp_path / "_summary.json").write_text('{"model_id": "m2", "manifest_hash": "hash"}')
    with pytest.raises(InputError, match="is of another run than the predictions"):
        page_of(replace(inputs, run=tmp_path), tmp_path)
    (tmp_path / "_summary.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        page_of(replace(inputs, run=tmp_path), tmp_path)
    with pytest.raises(InputError, match="is no table of duplicates"):
        page_of(replace(inputs, duplicates=tmp_path / "_summary.json"), tmp_path)
    with pytest.raises(InputError, match="--sample 1"):
        page_of(inputs, tmp_path, sample=1)
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_the_page(
    known: PredictedFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    arguments = ["report", "--predictions", str(known.predictions), "--output"]
    assert cli.main([*arguments, str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 40 rows, 0 images, {output.stat().st_size:,} bytes\n"
    assert cli.main([*arguments, str(tmp_path / "nowhere/report.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
