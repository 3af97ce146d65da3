"""Lists of paths and URLs: each line one image, whatever it is called."""

import os
import pickle
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.sources import open_source


def write(path: Path, *lines: str) -> Path:
    path.write_bytes(os.fsencode("\n".join(lines) + "\n"))
    return path


def test_lines_are_paths_beside_the_list_elsewhere_or_urls(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b#.png").write_bytes(b"1")
    (tmp_path / "abs.png").write_bytes(b"2")
    (tmp_path / "\udcff.png").write_bytes(b"3")
    fsspec.filesystem("memory").pipe_file("/lists/c.png", b"4")
    lines = ["sub/a b#.png", str(tmp_path / "abs.png"), f"file://{tmp_path}/abs.png", "memory://lists/c.png"]
    source = open_source(write(tmp_path / "list.txt", *lines, "", "\udcff.png", "sub/../abs.png", "gone.png"))
    found = list(source.read(0, len(source)))
    assert [one.id for one in found] == [*lines, "\\xff.png", "sub/../abs.png", "gone.png"]
    assert [one.content for one in found] == [b"1", b"2", b"2", b"4", b"3", b"2", None]
    assert found[-1].error == "cannot be read: No such file or directory"
    assert found[3].path == "memory://lists/c.png"
    for start in range(7):
        assert [one.id for one in source.read(start, start + 2)] == [one.id for one in found[start : start + 2]]
        section = pickle.loads(pickle.dumps(source.section(start, 7)))  # type: ignore[attr-defined]
        assert [one.content for one in section.read(start, 7)] == [one.content for one in found[start:]]


def test_file_urls_are_read_as_pathlib_writes_them(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a b.png", "Äpfel #1 50%.png", "\udcff.png")]
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % i)
    urls = [paths[0].as_uri().replace("file:///", "file:/"), *(path.as_uri() for path in paths[1:])]
    source = open_source(write(tmp_path / "list.txt", *urls))
    found = list(source.read(0, 3))
    assert [one.content for one in found] == [b"0", b"1", b"2"]
    assert [one.id for one in found] == urls
    assert [one.path for one in found[:2]] == [str(path) for path in paths[:2]]
    assert [size for _, size in source.entries()] == [1, 1, 1]


def test_relative_lines_say_labels_however_find_writes_them(tmp_path: Path) -> None:
    name = "labelled/cat/a.png"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"1")
    lines = [name, f"./{name}", name.replace("/", "//"), str(tmp_path / name)]
    source = open_source(write(tmp_path / "list.txt", *lines))
    found = list(source.read(0, 4))
    assert [one.id for one in found] == lines
    assert [one.label for one in found] == ["cat", "cat", "cat", None]


def test_lists_from_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    assert [one.id for one in open_source(tmp_path / "list.txt").read(0, 2)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png", "b.png", "a.png"], "line 3: the same as line 1"),
        (["to do", "buy milk"], "none of its 2 lines ends like an image"),
        ([""], r"holds no images \(0 rows\)"),
        (["a.png", "x\0.png"], "line 2: a zero byte"),
        (["a.png", "ftp://host/b.png"], "line 2: ftp:// is not supported"),
        (["a.png", "file:///b%00.png"], "line 2: a zero byte"),
    ],
)
def test_lists_that_cannot_be_used_name_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(write(tmp_path / "list.txt", *lines))


def test_a_line_that_leads_out_of_a_folder_in_an_object_store_is_refused() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/leads-out/lists/a.png", b"a")
    store.pipe_file("/leads-out/lists/list.txt", b"x/../a.png\n")
    assert [one.content for one in open_source("memory://leads-out/lists/list.txt").read(0, 1)] == [b"a"]
    store.pipe_file("/leads-out/lists/list.txt", b"a.png\n../b.png\n")
    with pytest.raises(InputError, match=r"line 2: \.\./b\.png leads out of the folder .* write the whole URL"):
        open_source("memory://leads-out/lists/list.txt")


def test_credentials_in_a_line_are_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: a s3:// URL holds credentials") as caught:
        open_source(write(tmp_path / "list.txt", "s3://key:hunter2@bucket/a.png"))
    assert "hunter2" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    try:
        source = open_source(tmp_path / "list.txt")
    except InputError as error:
        refused = str(error)
        assert refused.splitlines() == [refused]
        return
    lines = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    assert len(source) == len([line for line in lines if line])
    assert len({one.id for one in source.read(0, len(source))}) == len(source)


@given(names=st.lists(st.from_regex(r"[a-z0-9 é#%]{1,8}\.png", fullmatch=True), min_size=1, unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_the_ids_are_the_lines_in_their_order(tmp_path: Path, names: list[str]) -> None:
    source = open_source(write(tmp_path / "list.txt", *names))
    assert [one.id for one in source.read(0, len(source))] == names


def test_the_manifest_changes_with_lines_order_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    hashes = {open_source(write(tmp_path / "l.txt", *lines)).manifest_hash for lines in (["a.png"], ["a.png", "b.png"])}
    hashes.add(open_source(write(tmp_path / "l.txt", "b.png", "a.png")).manifest_hash)
    (tmp_path / "a.png").write_bytes(b"12")
    hashes.add(open_source(write(tmp_path / "l.txt", "a.png")).manifest_hash)
    assert len(hashes) == 4
