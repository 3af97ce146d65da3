"""Folders of images: which files count, in which order, and what cannot be read."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.adapters.pictures import folder_name
from prelabel.errors import ImageError, InputError, StorageError
from prelabel.images import ImageSpec
from prelabel.sources import FolderSource, open_source
from prelabel.sources.folder import label_of


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def ids(source: FolderSource) -> list[str]:
    return [sample.id for sample in source.read(0, len(source))]


@pytest.mark.parametrize("in_its_place", [False, True])
def test_a_folder_that_goes_away_ends_the_reading(tmp_path: Path, in_its_place: bool) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(name.encode())
    source = open_source(folder)
    (folder / "b.png").unlink()
    samples = pickle.loads(pickle.dumps(source)).read(0, 3)
    assert next(samples).content == b"a.png"
    assert next(samples).error == "cannot be read: No such file or directory"  # one file alone is an error row
    folder.rename(tmp_path / "elsewhere")
    if in_its_place:
        folder.mkdir()  # a mount point whose disk is gone
    with pytest.raises(StorageError, match="disk is not the one that was listed any more: is its disk mounted"):
        next(samples)


def test_images_come_in_the_order_of_their_paths_and_nothing_else_comes(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a/z.JPG", "a/b/c.jpeg", "a.tiff", "notes.txt", "a/table.csv", "B.webp")
    source = FolderSource(tmp_path)
    assert ids(source) == ["B.webp", "a.tiff", "a/b/c.jpeg", "a/z.JPG", "b.png"]
    samples = list(source.read(1, 3))
    assert [(one.id, one.content) for one in samples] == [("a.tiff", b"a.tiff"), ("a/b/c.jpeg", b"a/b/c.jpeg")]
    assert samples[0].path == str(tmp_path / "a.tiff")


def test_images_of_formats_that_are_not_read_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "a.png", "b.HEIC", "c/d.heic", "e.jp2", "notes.txt", ".f.heic")
    assert ids(FolderSource(tmp_path)) == ["a.png"]
    open_source(tmp_path)
    assert caplog.messages == [
        f"left out of {tmp_path}, since they are not read: 2 .heic, 1 .jp2; convert them to .png or .jpg"
    ]
    caplog.clear()
    open_source(fill(tmp_path / "usual", "a.png", "a.json", "b"))
    assert not caplog.messages


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", ".a.png", ".ipynb_checkpoints/a.png", "b/.git/c.png")
    assert ids(FolderSource(tmp_path)) == ["a.png"]


def test_linked_folders_are_read_and_loops_end(tmp_path: Path) -> None:
    pile = fill(tmp_path / "pile", "a/1.png")
    fill(tmp_path / "elsewhere", "2.png")
    (pile / "a" / "up").symlink_to(pile)
    (pile / "b").symlink_to(tmp_path / "elsewhere")
    assert ids(FolderSource(pile)) == ["a/1.png", "b/2.png"]


def test_what_cannot_be_read_is_a_sample_with_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    samples = list(FolderSource(tmp_path).read(0, 3))
    assert [one.error for one in samples] == [
        None,
        "cannot be read: No such file or directory",
        "cannot be read: not a regular file",
    ]
    with pytest.raises(ImageError, match="No such file"):
        samples[1].pixels(ImageSpec(8, 8, 1))


def test_a_file_too_large_to_be_an_image_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    with (tmp_path / "b.png").open("wb") as file:
        file.truncate((2 << 30) + 1)  # takes no room on the disk
    found = [(one.error, one.content_bytes) for one in open_source(tmp_path).read(0, 2)]
    assert found == [(None, 1), ("cannot be read: 2147483649 bytes are over the limit of 2147483648 bytes", 0)]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"closed cannot be listed: Permission denied"):
        FolderSource(tmp_path)


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    source = FolderSource(tmp_path)
    samples = list(source.read(0, 2))
    assert [one.id for one in samples] == ["a.png", "\\xff.png"]
    assert samples[1].content == b"x"
    assert all(one.path.encode() for one in samples)
    (tmp_path / "\\xff.png").write_bytes(b"y")
    with pytest.raises(InputError, match="rename one of them"):
        FolderSource(tmp_path)


def test_labels_come_from_the_training_layout(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "labelled/cat/a.png",
        "labelled/dog/deep/b.png",
        "test/cat/c.png",
        "unlabelled/d.png",
        "labelled/e.png",
    )
    source = FolderSource(tmp_path)
    labels = {sample.id: sample.label for sample in source.read(0, len(source))}
    assert labels == {
        "labelled/cat/a.png": "cat",
        "labelled/dog/deep/b.png": "dog",
        "labelled/e.png": None,
        "test/cat/c.png": "cat",
        "unlabelled/d.png": None,
    }
    assert ids(FolderSource(tmp_path, only=("test",))) == ["test/cat/c.png"]


def test_the_manifest_changes_with_names_and_sizes_only(tmp_path: Path) -> None:
    first = FolderSource(fill(tmp_path / "one", "a.png", "b/c.png")).manifest_hash
    assert FolderSource(fill(tmp_path / "two", "a.png", "b/c.png", "notes.txt")).manifest_hash == first
    assert FolderSource(fill(tmp_path / "three", "a.png", "b/d.png")).manifest_hash != first
    (tmp_path / "one" / "a.png").write_bytes(b"longer than before")
    assert FolderSource(tmp_path / "one").manifest_hash != first


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    return fill(tmp_path, "notes.txt")


def test_a_folder_without_images_names_what_would_count(nothing: Path) -> None:
    with pytest.raises(InputError, match=r"holds no images .*\.png"):
        open_source(nothing)


def test_a_folder_of_idx_files_names_one_of_them(nothing: Path) -> None:
    (nothing / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(InputError, match=r"for example .*train-images-idx3-ubyte.gz"):
        open_source(nothing)


def test_paths_that_are_no_collection_are_named(nothing: Path) -> None:
    with pytest.raises(InputError, match=r"missing does not exist"):
        open_source(nothing / "missing")
    (nothing / "notes.md").touch()
    with pytest.raises(InputError, match=r"notes\.md is not a folder of images"):
        open_source(nothing / "notes.md")
    os.mkfifo(nothing / "pipe")
    with pytest.raises(InputError, match=r"pipe is not a folder of images"):
        open_source(nothing / "pipe")


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_a_class_keeps_its_name_through_a_folder_of_ours(name: str) -> None:
    assert label_of(f"labelled/{folder_name(name)}/1.png") == name


def test_other_percent_signs_in_a_class_folder_stay() -> None:
    assert label_of("labelled/50%20off%zz/1.png") == "50%20off%zz"
