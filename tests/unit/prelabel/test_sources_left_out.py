"""What lies in an input and is not read is told: nothing is left out without a word."""

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.sources import open_source


def write_tar(path: Path, *names: str) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))


def test_what_is_not_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tar(tmp_path / "a.tar", "0.png", "0.heic", "1.HEIC", "1.cls", "2.jfif")
    write_tar(tmp_path / "b.tar", "3.png", "4.heic", "._5.heic")
    for name in ("c.tar.gz", "d.tgz", "._e.tar.gz"):
        (tmp_path / name).touch()
    assert [one.id for one in open_source(tmp_path).read(0, 9)] == ["a/0", "b/3"]
    assert caplog.messages == [
        f"left out of {tmp_path}, since they are not read: 2 packed tar files (c.tar.gz, d.tgz); unpack them to .tar",
        f"left out of {tmp_path}, since they are not read: 2 .heic, 1 .jfif; convert them to .png or .jpg",
    ]
    caplog.clear()
    open_source(tmp_path / "a.tar")
    (told,) = caplog.messages
    assert told.startswith(f"left out of {tmp_path}/a.tar, since they are not read: 1 .heic, 1 .jfif;")


@pytest.mark.parametrize("beside", ["t.parquet", "a.png"])
def test_packed_tars_beside_other_kinds_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, beside: str) -> None:
    for i in range(4):
        (tmp_path / f"{i}.tar.gz").touch()
    if beside == "a.png":
        (tmp_path / beside).touch()
    else:
        pq.write_table(pa.table({"image": [b"a"]}), tmp_path / beside)
    assert len(open_source(tmp_path)) == 1
    (told,) = caplog.messages
    assert "4 packed tar files (0.tar.gz, 1.tar.gz, 2.tar.gz, ...); unpack them to .tar" in told
