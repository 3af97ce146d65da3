"""Files that change while the server runs, and readings that fail for a while."""

import logging
from pathlib import Path

import pytest

from serving.watched import Watched


class Reader:
    """Reads a file, unless it is told to fail."""

    def __init__(self, file: Path) -> None:
        self.file, self.error, self.readings = file, "", 0

    def __call__(self) -> str:
        self.readings += 1
        if self.error:
            raise OSError(self.error)
        return self.file.read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("old")
    return path


def test_a_change_that_could_not_be_read_is_read_a_second_later(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    read, now_s = Reader(file), [0.0]
    watched = Watched([file], read, lambda: now_s[0])
    file.write_text("new and longer")
    read.error = "Too many open files"
    assert [watched.get() for _ in range(3)] == ["old"] * 3
    assert read.readings == 2, "not with every call"
    now_s[0] = 1.0
    assert watched.get() == "old"
    assert read.readings == 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "the same error is told once"
    read.error, now_s[0] = "", 2.0
    assert watched.get() == "new and longer"
    assert watched.get() == "new and longer"
    assert read.readings == 4


def test_a_file_that_changes_again_is_read_at_once(file: Path) -> None:
    read = Reader(file)
    watched = Watched([file], read, lambda: 0.0)
    file.write_text("half of")
    read.error = "not whole"
    assert watched.get() == "old"
    read.error = ""
    file.write_text("the whole")
    assert watched.get() == "the whole"
