"""Where inputs and outputs lie: the same promises of a folder on a disk and one in an object store."""

import os
from pathlib import Path
from typing import IO

import pytest

from prelabel.errors import InputError
from prelabel.storage import LOCK_FILE, is_url, open_storage
from prelabel.storage_local import LocalStorage


class BrokenError(Exception):
    pass


def break_off(file: IO[bytes]) -> None:
    file.write(b"half of it")
    raise BrokenError


def test_paths_and_file_urls_are_local(tmp_path: Path) -> None:
    for where in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"file://localhost{tmp_path}"):
        storage = open_storage(where)
        assert isinstance(storage, LocalStorage)
        assert storage.path == tmp_path
    spaced = open_storage("file:///a%20b")
    assert isinstance(spaced, LocalStorage)
    assert spaced.path == Path("/a b")
    assert [is_url(one) for one in ("a/b", "/a", "c:x", "s3://b", Path("a"))] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("url", "message"),
    [("ftp://host/x", r"ftp:// is not supported"), ("file://host/x", "names the host 'host'")],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_storage(url)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="come from the environment") as caught:
        open_storage("s3://AKIDEXAMPLE:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)
    assert "AKIDEXAMPLE" not in str(caught.value)


def test_a_local_folder_is_listed_read_written_and_emptied(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    (tmp_path / "sub").mkdir()
    storage.write("b", lambda file: file.write(b"12"))
    storage.write("sub/a", lambda file: file.write(b"3"))
    (tmp_path / "broken").symlink_to("nothing")
    assert storage.sizes() == {"b": 2}
    (tmp_path / "broken").unlink()
    assert storage.names() == ["b", "sub/"]
    assert [storage.kind(name) for name in ("", "b", "sub", "sub/a", "x")] == [
        "folder", "file", "folder", "file", "nothing",
    ]  # fmt: skip
    assert storage.size_bytes("b") == 2
    assert storage.read("sub/a") == b"3"
    with storage.open("b") as file:
        file.seek(1)
        assert file.read() == b"2"
    first, missing = storage.read_many(["b", "x"])
    assert first == b"12"
    assert isinstance(missing, FileNotFoundError)
    with pytest.raises(BrokenError):
        storage.write("b", break_off)
    assert storage.read("b") == b"12"
    storage.delete("b")
    storage.delete("b")
    assert storage.names() == ["sub/"]


def test_a_local_folder_is_held_by_one_process(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "new" / "folder")
    with storage.lock():
        assert (storage.path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
        with pytest.raises(InputError, match=rf"another prelabel run \(process {os.getpid()}\)"), storage.lock():
            pass
    with storage.lock():
        pass


def test_a_local_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out cannot be written"), LocalStorage(tmp_path / "file" / "out").lock():
        pass


def test_names_that_are_not_utf8_are_shown_escaped() -> None:
    assert LocalStorage(Path("/x")).shown(os.fsdecode(b"\xff.png")) == "/x/\\xff.png"
