"""Files are written whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path
from typing import IO

import pytest

from prelabel.errors import InputError
from prelabel.files import check_output, new_directory, sha256_file, write_atomically, write_text_atomically


class BrokenError(Exception):
    pass


def break_off(file: IO[bytes]) -> None:
    file.write(b"half of it")
    raise BrokenError


@pytest.mark.parametrize("before", [None, "old"])
def test_a_failure_while_writing_changes_nothing(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)
    with pytest.raises(BrokenError):
        write_atomically(path, break_off)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == ({} if before is None else {"file": before})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_text_atomically(path, "new")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_atomically(path, "old")
    seen = []

    def write(file: IO[bytes]) -> None:
        file.write(b"ne")
        seen.append(path.read_text())
        file.write("w ü".encode())

    write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text() == "new ü"


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("replace"), replace(*names)))
    write_text_atomically(tmp_path / "file", "x")
    assert steps == ["fsync", "replace", "fsync"]


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_a_new_directory_is_there_whole(tmp_path: Path) -> None:
    with new_directory(tmp_path / "deep/new") as directory:
        (directory / "file").write_text("content")
        assert not (tmp_path / "deep/new").exists()
    assert [str(one.relative_to(tmp_path)) for one in sorted(tmp_path.rglob("*"))] == [
        "deep",
        "deep/new",
        "deep/new/file",
    ]


def test_a_failure_leaves_no_directory(tmp_path: Path) -> None:
    def fill() -> None:
        with new_directory(tmp_path / "new") as directory:
            (directory / "file").write_text("half of it")
            raise BrokenError

    with pytest.raises(BrokenError):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_directory(tmp_path / "empty") as directory:
        (directory / "file").write_text("content")
    with pytest.raises(InputError, match="empty is there already"), new_directory(tmp_path / "empty"):
        pass
    with pytest.raises(InputError, match="file is there already"), new_directory(tmp_path / "empty/file"):
        pass
    assert (tmp_path / "empty/file").read_text() == "content"


def test_a_link_to_an_empty_directory_is_filled_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk/empty").mkdir(parents=True)
    for name, target in (("link", "disk/empty"), ("dangling", "disk/new")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with new_directory(tmp_path / name) as directory:
            (directory / "file").write_text("content")
        assert (tmp_path / name).is_symlink()
        assert [one.name for one in (tmp_path / target).iterdir()] == ["file"]
    assert sorted(one.name for one in tmp_path.rglob("*")) == sorted(
        ["disk", "empty", "file", "new", "file", "link", "dangling"]
    )


def test_what_a_killed_process_of_this_number_left_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / f".new.{os.getpid()}.tmp").mkdir()
    with new_directory(tmp_path / "new") as directory:
        (directory / "file").write_text("content")
    assert (tmp_path / "new/file").read_text() == "content"


def test_a_mount_point_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(Path, "replace", busy)
    with (
        pytest.raises(InputError, match=r"mounted cannot be replaced \(Device or resource busy\), as a mount point"),
        new_directory(tmp_path / "mounted"),
    ):
        pytest.fail("this is the work")
    assert [one.name for one in tmp_path.iterdir()] == ["mounted"]


def test_a_link_stays_one_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for there in (True, False):
        file, link = tmp_path / "data" / f"{there}.csv", tmp_path / f"{there}.csv"
        if there:
            file.write_text("old")
        link.symlink_to(file)
        write_text_atomically(link, "new")
        assert link.is_symlink()
        assert file.read_text() == "new"


def test_a_pipe_is_refused_before_the_work_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for act in (check_output, lambda path: write_text_atomically(path, "x")):
        with pytest.raises(InputError, match=r"is a device or a pipe.*name a file"):
            act(path)
    assert path.is_fifo()


def test_an_output_that_cannot_be_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "is a folder, and a file is written"),
        (tmp_path / "a" / "b", "there is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            check_output(path)
    check_output(tmp_path / "new.csv")
