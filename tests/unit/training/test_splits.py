"""Which folders and files of a data set are read, and what is told of the others."""

import io
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prelabel.errors import InputError
from training.splits import find_splits


def write(root: Path, *names: str) -> Path:
    file = io.BytesIO()
    Image.new("L", (12, 10), 200).save(file, "PNG")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(file.getvalue())
    return root


def ids(path: Path | str) -> list[str]:
    train, _ = find_splits(path)
    return [sample.id for sample in train.read(0, len(train))]


def test_both_spellings_are_read(tmp_path: Path) -> None:
    names = ["labeled/a/1.png", "labeled/b/2.png", "unlabeled/3.png"]
    train, test = find_splits(write(tmp_path, *names, "test/a/4.png"))
    assert [(one.id, one.label) for one in train.read(0, 3)] == list(zip(names, ("a", "b", None), strict=True))
    assert test is not None
    assert [one.label for one in test.read(0, 1)] == ["a"]


def test_a_folder_may_be_a_link_to_one_that_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "all/1.png", "all/2.png", "labelled/a/3.png", "labelled/b/4.png")
    (tmp_path / "unlabelled").symlink_to(tmp_path / "all")
    assert ids(tmp_path) == ["labelled/a/3.png", "labelled/b/4.png", "unlabelled/1.png", "unlabelled/2.png"]


def test_an_object_store_is_asked_for_the_same_folders() -> None:
    store = fsspec.filesystem("memory")
    for name in ("labelled/a/1.png", "labelled/b/2.png", "unlabelled/3.png", "unlabelled-old/4.png", "5.png"):
        store.pipe_file(f"/splits/{name}", b"x")
    assert ids("memory://splits") == ["labelled/a/1.png", "labelled/b/2.png", "unlabelled/3.png"]


def test_a_pile_of_another_name_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "labelled/a/1.png", "labelled/b/2.png", "to_label/deeper/3.png", ".cache/4.png")
    (tmp_path / "notes").mkdir()
    assert ids(tmp_path) == ["labelled/a/1.png", "labelled/b/2.png"]
    assert f"{tmp_path / 'to_label'} with 1 images is not read" in caplog.text


def test_the_largest_of_other_folders_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "labelled/a/1.png", "labelled/b/2.png", "a/3.png", "raw/4.png", "raw/5.png")
    ids(tmp_path)
    assert f"{tmp_path / 'raw'} with 2 images is not read" in caplog.text


@pytest.mark.parametrize("pile", ["unlabelled", "Unlabelled"])
def test_a_folder_in_capitals_is_told_with_its_name(
    pile: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "labelled/a/1.png", "labelled/b/2.png", f"{pile}/3.png", "Test/4.png", "Test/5.png")
    train, test = find_splits(tmp_path)
    assert (len(train), test) == (3 if pile == "unlabelled" else 2, None)
    assert f"{tmp_path / 'Test'} is not read: rename it to test" in caplog.text
    told = pile == "Unlabelled"
    assert (f"{tmp_path / 'Unlabelled'} is not read: rename it to unlabelled" in caplog.text) == told
    assert (f"{tmp_path / 'Unlabelled'} with 1 images is not read" in caplog.text) == told


def loose_images(root: Path) -> None:
    write(root, "labelled/5.png")


def a_pile(root: Path) -> None:
    write(root, "unlabelled/5.png")


@pytest.mark.parametrize("pile", [loose_images, a_pile])
def test_where_there_is_a_pile_other_folders_are_nobody_s_business(
    pile: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "labelled/a/1.png", "labelled/b/2.png", "raw/3.png")
    pile(tmp_path)
    assert len(ids(tmp_path)) == 3
    assert "raw" not in caplog.text


@pytest.mark.parametrize(
    "name", ["predictions.parquet", "photos.tar", "train.npz", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"]
)
def test_other_data_sets_beside_the_folders_are_not_read(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "labelled/a/1.png", "labelled/b/2.png", "unlabelled/3.png", name)
    assert len(ids(tmp_path)) == 3
    assert f"not read, since {tmp_path} holds folders of images: {name}" in caplog.text


def test_a_folder_called_as_idx_files_are_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "labelled/a/1.png", "labelled/b/2.png", "unlabelled/3.png", "train-images/4.png")
    assert len(ids(tmp_path)) == 3


def test_lines_of_a_list_below_test_are_the_test_split(tmp_path: Path) -> None:
    names = ["labelled/a/1.png", "test/a/2.png", "unlabelled/3.png", "./test/b/4.png", "labelled/b/5.png"]
    write(tmp_path, *names)
    (tmp_path / "all.txt").write_text("\n".join(names))
    train, test = find_splits(tmp_path / "all.txt")
    assert [(one.id, one.label) for one in train.read(0, 9)] == [(names[0], "a"), (names[2], None), (names[4], "b")]
    assert test is not None
    assert [(one.id, one.label) for one in test.read(0, 9)] == [(names[1], "a"), (names[3], "b")]
    assert train.manifest_hash != test.manifest_hash


@pytest.mark.parametrize("path", ["", "*.parquet"])
def test_files_for_test_and_validation_are_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    for name in ("train-0", "test-0", "validation-0", "val", "dev_1", "valley-0"):
        pq.write_table(pa.table({"image": [name.encode()]}), tmp_path / f"{name}.parquet")
    train, test = find_splits(tmp_path / path)
    assert [one.content for one in train.read(0, 9)] == [b"train-0", b"valley-0"]
    assert test is not None
    assert [one.content for one in test.read(0, 9)] == [b"test-0"]
    assert "for validation by their names: dev_1.parquet, val.parquet, validation-0.parquet in" in caplog.text


def test_files_for_validation_alone_are_no_data_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "validation-0.parquet")
    with pytest.raises(InputError, match=r"test or validation only \(validation-0\.parquet, \.\.\.\): rename those"):
        find_splits(tmp_path)
