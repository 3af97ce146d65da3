"""Object stores: the promises of `Storage`, over fsspec's memory and over a real S3-compatible server."""

import io
import json
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.errors import InputError, StorageError
from prelabel.sources import open_source
from prelabel.storage import LOCK_FILE, open_storage
from prelabel.storage_remote import READ_AHEAD_BYTES, READ_AT_ONCE, RemoteStorage
from prelabel.table import read_predictions
from support.buckets import bulk, fill, png
from support.object_store import BUCKET


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty bucket."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    yield f"{request.param}://{BUCKET}"
    fsspec.filesystem("memory").store.clear()


def test_a_folder_is_listed_read_written_and_emptied(root: str) -> None:
    objects = {"a/b.png": b"1", "a/c d#%é[1]*.png": b"22", "a/.hidden/x.png": b"", "a.txt": b"333", "b/.x.png": b"4"}
    storage = fill(root, **objects)
    assert storage.names() == ["a.txt", "a/", "b/"]
    assert storage.sizes() == {"a.txt": 3}
    assert storage.names("a") == [".hidden/", "b.png", "c d#%é[1]*.png"]
    assert list(storage.walk()) == [("a.txt", 3), ("a/b.png", 1), ("a/c d#%é[1]*.png", 2)]
    assert [storage.kind(name) for name in ("", "a", "a.txt", "x")] == ["folder", "folder", "file", "nothing"]
    *read, missing = storage.read_many(["a/c d#%é[1]*.png", "a.txt", "b/.x.png", "x"])
    assert read == [b"22", b"333", b"4"]
    assert isinstance(missing, FileNotFoundError)
    assert storage.read("a/.hidden/x.png") == b""
    assert storage.size_bytes("a.txt") == 3
    for ask in (storage.read, storage.open, storage.size_bytes):
        with pytest.raises(FileNotFoundError):
            ask("x")
    storage.delete("a.txt")
    storage.delete("a.txt")
    assert storage.kind("a.txt") == "nothing"
    folder, name = open_storage(f"{root}/a/b.png").split()
    assert (folder.shown(name), folder.read(name)) == (f"{root}/a/b.png", b"1")
    assert pickle.loads(pickle.dumps(folder)).read(name) == b"1"


def test_paths_that_pathlib_took_a_slash_from_are_urls(root: str) -> None:
    fill(root, **{"a.png": png(0)})
    assert str(Path(root)) != root
    assert open_storage(Path(root)).shown() == root
    assert len(open_source(Path(root))) == 1


def test_files_seek_and_are_read_in_pieces(root: str) -> None:
    content = np.random.default_rng(0).bytes(READ_AHEAD_BYTES + 1000)
    with fill(root, x=content).open("x") as file:
        assert file.read(10) == content[:10]
        assert file.seek(-5, io.SEEK_END) == len(content) - 5
        assert file.read() == content[-5:]
        file.seek(100)
        assert file.read() == content[100:]
        assert file.read() == b""


def test_what_fails_while_it_is_written_is_not_written(root: str) -> None:
    class BrokenError(Exception):
        pass

    def break_off(file: IO[bytes]) -> None:
        file.write(b"half")
        raise BrokenError

    storage = fill(root, x=b"old")
    for name in ("x", "y"):
        with pytest.raises(BrokenError):
            storage.write(name, break_off)
    assert storage.read("x") == b"old"
    assert storage.kind("y") == "nothing"


def test_a_folder_is_held_once_and_the_error_says_how_to_break_the_lock(root: str) -> None:
    storage = open_storage(f"{root}/out")
    with storage.lock():
        with (
            pytest.raises(InputError, match=rf"another prelabel run \(process \d+ on .*delete {root}/out/\.lock"),
            open_storage(f"{root}/out").lock(),
        ):
            pass
        assert storage.kind(LOCK_FILE) == "file"
    assert storage.kind(LOCK_FILE) == "nothing"
    with storage.lock():  # broken by hand while it was held, and taken by another
        storage.delete(LOCK_FILE)
        storage.write(LOCK_FILE, lambda file: file.write(b"another's"))
    assert storage.read(LOCK_FILE) == b"another's"
    with pytest.raises(InputError, match=r"another prelabel run \(unknown\)"), storage.lock():
        pass


def test_a_store_that_ignores_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    put = type(files).pipe_file
    monkeypatch.setattr(type(files), "pipe_file", lambda self, path, value, mode="": put(self, path, value))
    with pytest.raises(StorageError, match="ignores conditional writes"), open_storage("memory://pile/out").lock():
        pass
    assert open_storage("memory://pile/out").kind(LOCK_FILE) == "nothing"


def test_every_reader_reads_from_a_store(root: str, tmp_path: Path) -> None:
    table, archive, shard = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"image": [png(1), png(2)], "label": ["a", "b"]}), table)
    np.savez(archive, images=np.zeros((2, 4, 4), np.uint8), labels=[1, 2])
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for i in range(2):
            member = tarfile.TarInfo(f"{i}.png")
            member.size = len(png(i))
            tar.addfile(member, io.BytesIO(png(i)))
    idx = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8])
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4])
    storage = fill(
        root,
        **{
            "folder/b.png": png(1), "folder/a.png": png(0), "t/x.parquet": table.getvalue(),
            "x.npz": archive.getvalue(),
            "s/p-0.tar": shard.getvalue(), "s/p-1.tar": shard.getvalue(), "x-images-idx3-ubyte": idx,
            "x-labels-idx1-ubyte": labels,
            "list.txt": f"folder/a.png\n./folder/../folder/b.png\n{root}/gone.png\n".encode(),
        },
    )  # fmt: skip
    for name in ("folder/a.png", "folder/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(storage.read(name))
    found = {}
    for where in (
        "folder",
        "t",
        "t/x.parquet",
        "x.npz",
        "s",
        "s/p-?.tar",
        "s/p-1.tar",
        "x-images-idx3-ubyte",
        "list.txt",
    ):
        source = open_source(f"{root}/{where}")
        samples = list(source.read(0, len(source)))
        assert all(one.path.startswith(root) for one in samples)
        assert all(size > 0 for _, size in source.entries()) or where == "list.txt"
        found[where] = [(one.id, one.label, one.content is not None) for one in samples]
    assert found["folder"] == [("a.png", None, True), ("b.png", None, True)]
    assert found["t"] == found["t/x.parquet"] == [("x/000000", "a", True), ("x/000001", "b", True)]
    assert found["x.npz"] == [("000000", "1", True), ("000001", "2", True)]
    assert found["s"] == found["s/p-?.tar"] == [(f"p-{i}/{j}", None, True) for i in range(2) for j in range(2)]
    assert found["x-images-idx3-ubyte"] == [("000000", "3", True), ("000001", "4", True)]
    assert [one[2] for one in found["list.txt"]] == [True, True, False]
    # The same images are the same input, wherever they lie.
    assert open_source(f"{root}/folder").manifest_hash == open_source(tmp_path / "folder").manifest_hash


def test_a_run_from_a_store_into_a_store_is_exact_and_resumes(root: str) -> None:
    storage = fill(root, **{f"pile/{i:02d}.png": b"broken" if i == 7 else png(i) for i in range(25)})
    whole, again = bulk(f"{root}/pile", f"{root}/out"), bulk(f"{root}/pile", f"{root}/out")
    assert (whole.images, whole.errors, whole.shards_written) == (25, 1, 3)
    assert (again.images, again.errors, again.shards_skipped) == (25, 1, 3)
    rows = read_predictions(f"{root}/out").to_pylist()
    assert [row["id"] for row in rows] == [f"{i:02d}.png" for i in range(25)]
    assert [i for i, row in enumerate(rows) if row["error"]] == [7]
    assert rows[3]["path"] == f"{root}/pile/03.png"
    assert storage.kind(f"out/{LOCK_FILE}") == "nothing"
    assert json.loads(storage.read("out/_summary.json"))["images"] == 25
    fill(root, **{"pile/99.png": png(9)})
    with pytest.raises(InputError, match=r"1 added \(99\.png\)"):
        bulk(f"{root}/pile", f"{root}/out")


def test_a_run_that_is_taken_up_asks_for_no_size_one_by_one(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, **{f"pile/{i:02d}.png": png(i) for i in range(25)})
    bulk(f"{root}/pile", f"{root}/out")
    asked: list[str] = []
    size_bytes = RemoteStorage.size_bytes

    def counted(self: RemoteStorage, name: str) -> int:
        asked.append(name)
        return size_bytes(self, name)

    monkeypatch.setattr(RemoteStorage, "size_bytes", counted)
    assert bulk(f"{root}/pile", f"{root}/out").shards_skipped == 3
    assert not [name for name in asked if name.startswith("part-")]


def test_an_object_that_goes_between_listing_and_reading_is_an_error_row(root: str) -> None:
    storage = fill(root, **{f"pile/{i}.png": png(i) for i in range(3)})
    source = open_source(f"{root}/pile")
    storage.delete("pile/1.png")
    found = list(source.read(0, 3))
    assert [one.content is None for one in found] == [False, True, False]
    assert str(found[1].error).startswith("cannot be read: ")


def test_many_objects_come_in_their_order(root: str) -> None:
    count = 2 * READ_AT_ONCE + 3
    fill(root, **{f"{i:04d}.png": b"%d" % i for i in range(count)})
    assert [one.content for one in open_source(root).read(0, count)] == [b"%d" % i for i in range(count)]


def test_large_objects_are_asked_for_in_smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    together: list[int] = []

    def counted(self: object, keys: list[str], *rest: object, **options: object) -> list[bytes]:
        together.append(len(keys))
        return [bytes(20 << 20) if "large" in key else b"1" for key in keys]

    monkeypatch.setattr(type(files), "cat_ranges", counted)
    names = [f"{'large' if 16 <= i < 89 else 'small'}-{i:03d}" for i in range(160)]
    found = [len(one) for one in open_storage("memory://pile").read_many(names) if isinstance(one, bytes)]
    assert found == [20 << 20 if "large" in name else 1 for name in names]
    assert together == [16, 64, 3, 3, 3, 3, 64, 4]


def test_a_path_where_nothing_lies_is_named(root: str) -> None:
    fill(root, x=b"1")
    with pytest.raises(InputError, match=rf"input {root}/nothing does not exist"):
        open_source(f"{root}/nothing")


def test_denied_objects_in_a_row_end_the_reading_wherever_the_row_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"memory://{BUCKET}")
    assert isinstance(storage, RemoteStorage)
    denied = range(20, 20 + READ_AT_ONCE)

    def answers(keys: list[str], *_: object, **__: object) -> list[bytes | Exception]:
        numbers = [int(key.rpartition("/")[2]) for key in keys]
        return [PermissionError(13, "denied") if number in denied else b"1" for number in numbers]

    monkeypatch.setattr(storage._files, "cat_ranges", answers)
    with pytest.raises(StorageError, match=f"access denied to {READ_AT_ONCE} objects in a row"):
        list(storage.read_many(map(str, range(300))))
    denied = range(20, 19 + READ_AT_ONCE)
    assert len(list(storage.read_many(map(str, range(300))))) == 300


@pytest.mark.parametrize(("code", "kind"), [("InvalidRequest", PermissionError), ("KeyTooLongError", OSError)])
def test_what_the_store_says_of_one_object_is_its_error(
    code: str, kind: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"memory://{BUCKET}")
    assert isinstance(storage, RemoteStorage)
    error = OSError(22, "as the store says it")
    error.__cause__ = Exception()
    error.__cause__.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
    monkeypatch.setattr(storage._files, "cat_ranges", lambda *_, **__: [b"1", error, b"3"])
    first, second, third = storage.read_many(["a", "b", "c"])
    assert (first, third) == (b"1", b"3")
    assert isinstance(second, kind)
    assert "as the store says it" in str(second)
