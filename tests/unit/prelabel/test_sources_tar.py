"""WebDataset shards: what belongs together, where labels come from, and that a damaged tar loses nothing in silence."""

import gzip
import io
import lzma
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.sources import Sample, Source, open_source
from prelabel.sources.tar import parse_label

Members = list[tuple[str, bytes]]

NUMBERED: Members = [member for i in range(5) for member in ((f"{i}.png", bytes([i]) * 700), (f"{i}.cls", b"%d\n" % i))]


def write(path: Path, members: Members, *extra: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def samples(source: Source) -> list[Sample]:
    found = list(source.read(0, len(source)))
    assert len(found) == len(source)
    assert len({one.id for one in found}) == len(found)
    return found


def test_members_of_one_name_are_one_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "train-000.tar", NUMBERED)
    found = samples(open_source(path))
    assert [(one.id, one.label, one.content) for one in found] == [
        (f"train-000/{i}", str(i), bytes([i]) * 700) for i in range(5)
    ]
    assert found[3].path == f"{path}#3"
    assert [one.id for one in open_source(path).read(1, 3)] == ["train-000/1", "train-000/2"]


@pytest.mark.parametrize("where", ["", "*.tar", "part-?.tar"])
def test_folders_and_patterns_of_shards_are_one_collection(tmp_path: Path, where: str) -> None:
    for name in ("part-b", "part-a"):
        write(tmp_path / f"{name}.tar", [(f"{i}.jpg", b"x") for i in range(3)])
    source = open_source(tmp_path / where)
    assert [one.id for one in samples(source)] == [f"part-{name}/{i}" for name in "ab" for i in range(3)]
    for start in range(6):
        for stop in range(start, 7):
            wanted = [one.id for one in samples(source)[start:stop]]
            assert [one.id for one in source.read(start, stop)] == wanted
            section = pickle.loads(pickle.dumps(source.section(start, stop)))  # type: ignore[attr-defined]
            assert [one.id for one in section.read(start, stop)] == wanted


def test_every_image_of_a_sample_is_a_row_but_its_masks_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = [("a.png", b"1"), ("a.mask.png", b"m"), ("b.v1.png", b"2"), ("b.v2.PNG", b"3"), ("b.cls", b"x")]
    members += [("c.png", b"4"), ("c.jpg", b"5"), ("d.txt", b"no image"), ("e/f.left.jpg", b"6"), ("e/f.json", b"7")]
    found = samples(open_source(write(tmp_path / "t.tar", members)))
    assert [(one.id, one.content, one.label) for one in found] == [
        ("t/a", b"1", None),
        ("t/b.v1.png", b"2", "x"),
        ("t/b.v2.PNG", b"3", "x"),
        ("t/c.png", b"4", None),
        ("t/c.jpg", b"5", None),
        ("t/e/f", b"6", "7"),
    ]
    assert "1 images that share their name up to the first dot with another one" in caplog.text
    assert "(a.mask.png)" in caplog.text


def test_names_that_repeat_are_rows_of_their_own(tmp_path: Path) -> None:
    found = samples(open_source(write(tmp_path / "t.tar", [("a.png", b"1"), ("b.png", b"2"), ("a.png", b"3")])))
    assert [(one.id, one.content) for one in found] == [("t/a", b"1"), ("t/b", b"2"), ("t/a@2", b"3")]


def test_what_is_no_image_file_is_left_out_and_links_are_errors(tmp_path: Path) -> None:
    link, folder = tarfile.TarInfo("link.png"), tarfile.TarInfo("folder.png")
    link.type, link.linkname, folder.type = tarfile.SYMTYPE, "a.png", tarfile.DIRTYPE
    members = [("./a.png", b"1"), ("./._a.png", b"x"), ("./.git/b.png", b"x"), ("notes.md", b"x"), ("../up.png", b"2")]
    found = samples(open_source(write(tmp_path / "t.tar", members, link, folder)))
    assert [(one.id, one.content, one.error) for one in found] == [
        ("t/a", b"1", None),
        ("t/../up", b"2", None),
        ("t/link", None, "cannot be read: not a regular file in the tar"),
    ]


def test_a_member_too_large_to_be_an_image_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = (2 << 30) + 512
    with (tmp_path / "t.tar").open("wb") as file:
        file.write(member.tobuf())
        file.truncate(512 + member.size + 1024)  # takes no room on the disk
    errors = [one.error for one in open_source(tmp_path / "t.tar").read(0, 1)]
    assert errors == ["cannot be read: 2147484160 bytes are over the limit of 2147483648 bytes"]


def test_names_may_be_long_and_not_utf8(tmp_path: Path) -> None:
    long = "x" * 300
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = write(tmp_path / f"{kind}.tar", [(f"{long}/ü.png", b"1"), ("\udcff.png", b"2")], format=kind)
        found = samples(open_source(path))
        assert [one.id for one in found] == [f"{kind}/{long}/ü", f"{kind}/\\xff"]
        assert all(one.path.encode() for one in found)


@pytest.mark.parametrize(
    ("suffix", "content", "label"),
    [
        ("cls", b" 7\n", "7"),
        ("cls", b"cat", "cat"),
        ("cls", b"-1", None),
        ("cls", b"", None),
        ("cls", b"\xff", None),
        ("json", b'{"label": "cat", "x": 1}', "cat"),
        ("json", b'{"label": 3}', "3"),
        ("json", b'{"caption": "a cat"}', None),
        ("json", b'{"label": true}', None),
        ("json", b"[1]", None),
        ("json", b"5", "5"),
        ("json", b"{", None),
        ("json", b"[" * 100_000, None),
        ("txt", b"cat\n", "cat"),
        ("txt", b"two\nlines", None),
        ("txt", b"x" * 101, None),
    ],
)
def test_labels(suffix: str, content: bytes, label: str | None) -> None:
    assert parse_label(suffix, content) == label


def test_the_class_is_taken_from_the_best_member(tmp_path: Path) -> None:
    members = [("a.txt", b"text"), ("a.json", b'{"label": "json"}'), ("a.cls", b"cls"), ("a.png", b"x")]
    labels = [samples(open_source(write(tmp_path / "t.tar", members[i:])))[0].label for i in range(4)]
    assert labels == ["cls", "cls", "cls", None]
    assert samples(open_source(write(tmp_path / "u.tar", [members[0], members[1], members[3]])))[0].label == "json"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(cut=st.integers(0, 20_000))
def test_a_tar_that_is_cut_gives_its_whole_images_and_one_error(tmp_path: Path, cut: int) -> None:
    whole = write(tmp_path / "whole.tar", NUMBERED).read_bytes()
    at = cut % len(whole)
    (tmp_path / "t.tar").write_bytes(whole[:at])
    # Each image is a header and 700 bytes in two blocks, each label a header and one block.
    complete = [i for i in range(5) if i * 2560 + 512 + 700 <= at]
    if not complete:
        with pytest.raises(InputError, match=r"no image can be read: .*t\.tar is (cut short|damaged) at byte"):
            open_source(tmp_path / "t.tar")
        return
    *images, last = samples(open_source(tmp_path / "t.tar"))
    if at >= 5 * 2560 + 512:  # only the filling behind the mark of the end is cut
        images.append(last)
    else:
        assert last.content is None
        assert last.id == "t#damage"
        assert str(tmp_path / "t.tar") in str(last.error)
        assert " at byte " in str(last.error)
    assert [(one.id, one.content) for one in images] == [(f"t/{i}", bytes([i]) * 700) for i in complete]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(at=st.integers(0, 13_000), patch=st.binary(min_size=1, max_size=40))
def test_a_damaged_tar_never_loses_images_in_silence(tmp_path: Path, at: int, patch: bytes) -> None:
    whole = write(tmp_path / "whole.tar", NUMBERED).read_bytes()
    (tmp_path / "t.tar").write_bytes(whole[:at] + patch + whole[at + len(patch) :])
    try:
        found = samples(open_source(tmp_path / "t.tar"))
    except InputError as error:
        refused = str(error)
        assert "no image can be read" in refused
        return
    assert len([one for one in found if one.content]) == 5 or any(one.error for one in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(InputError):
        open_source(tmp_path / "t.tar")


def test_a_size_that_leads_backwards_ends(tmp_path: Path) -> None:
    whole = bytearray(write(tmp_path / "whole.tar", NUMBERED).read_bytes())
    header = whole[2560:3072]
    header[124:136] = b"\xff" * 10 + (-1024 & 0xFFFF).to_bytes(2, "big")  # base 256, negative
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[2560:3072] = header
    (tmp_path / "t.tar").write_bytes(whole)
    found = samples(open_source(tmp_path / "t.tar"))
    assert [one.id for one in found] == ["t/0", "t#damage"]


def test_two_tars_in_one_file_are_an_error_row(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.tar", NUMBERED).read_bytes()
    (tmp_path / "t.tar").write_bytes(content + content)
    assert "more data behind the mark" in str(samples(open_source(tmp_path / "t.tar"))[-1].error)


def test_a_tar_without_its_end_among_others_keeps_positions(tmp_path: Path) -> None:
    content = write(tmp_path / "a.tar", NUMBERED).read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:3000])
    write(tmp_path / "b.tar", NUMBERED[:4])
    source = open_source(tmp_path)
    ids = ["a/0", "a#damage", "b/0", "b/1"]
    assert [one.id for one in samples(source)] == ids
    assert [one.id for i in range(4) for one in source.read(i, i + 1)] == ids


def test_a_tar_that_is_gone_or_another_one_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tar", NUMBERED)
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"t\.tar is another file than it was when it was opened: start again"):
        samples(source)
    path.unlink()
    with pytest.raises(InputError, match=r"t\.tar cannot be read any more: No such file"):
        samples(source)


def test_the_manifest_changes_with_names_places_and_sizes(tmp_path: Path) -> None:
    hashes = {
        open_source(write(tmp_path / "t.tar", members)).manifest_hash
        for members in (NUMBERED, NUMBERED[:8], [("x.png", b"")], [("x.png", b"1")], [("y.png", b"1")])
    }
    assert len(hashes) == 5
    path = write(tmp_path / "t.tar", NUMBERED)
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "t.tar").write_bytes(path.read_bytes())
    assert open_source(path).manifest_hash == open_source(tmp_path / "moved" / "t.tar").manifest_hash
    assert list(open_source(path).entries()) == [("t.tar", path.stat().st_size)]


@pytest.mark.parametrize(
    ("content", "how"),
    [(gzip.compress(b"x"), "gzip"), (lzma.compress(b"x"), "xz"), (b"\x28\xb5\x2f\xfd\x00", "zstd")],
    ids=["gzip", "xz", "zstd"],  # gzip writes the time
)
def test_a_packed_tar_under_a_plain_name_says_so(tmp_path: Path, content: bytes, how: str) -> None:
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(InputError, match=rf"t\.tar is packed by {how}: unpack it to a plain \.tar"):
        open_source(tmp_path / "t.tar")


def test_mixtures_are_refused_and_not_half_read(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", NUMBERED)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(InputError, match=r"holds Parquet files .* and tar files"):
        open_source(tmp_path)
    (tmp_path / "x.parquet").unlink()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.png").touch()
    with pytest.raises(InputError, match="holds images and tar files"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "*.tar")) == 5
    with pytest.raises(InputError, match=r"x\*\.tar stands for no \.tar or \.parquet file"):
        open_source(tmp_path / "x*.tar")
    with pytest.raises(InputError, match=r"x\.png is not a folder .*: name the folder that it lies in, .*sub"):
        open_source(tmp_path / "sub" / "x.png")
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(InputError, match=r"unpack it to a \.tar"):
        open_source(tmp_path / "a.tar.gz")
