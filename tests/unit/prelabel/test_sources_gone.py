"""Files of many images on a disk that fails: damaged places are rows, a disk that is gone ends the run."""

import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.errors import StorageError
from prelabel.sources import open_source
from prelabel.storage_local import LocalStorage

IMAGES = [np.random.default_rng(i).bytes(200_000) for i in range(8)]


def tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for i, content in enumerate(IMAGES):
            member = tarfile.TarInfo(f"{i}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def parquet(path: Path) -> Path:
    pq.write_table(pa.table({"image": IMAGES}), path, row_group_size=2, compression="none", use_dictionary=False)
    return path


class Failing(io.BytesIO):
    """A file whose middle cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        if 300_000 < self.tell() < 900_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize(("write", "name"), [(tar, "t.tar"), (parquet, "t.parquet")])
def test_a_damaged_place_is_a_row_but_a_disk_that_is_gone_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path], name: str, is_gone: bool
) -> None:
    path = write(tmp_path / name)
    content = path.read_bytes()
    source = open_source(path)
    monkeypatch.setattr(LocalStorage, "open", lambda *_: Failing(content))
    reading = source.read(0, len(IMAGES))
    if is_gone:
        path.unlink()
        with pytest.raises(StorageError, match=rf"{path.name} is gone: .*is its disk mounted"):
            list(reading)
    else:
        found = list(reading)
        assert [one.content for one in found if one.error is None] == [
            content for content, one in zip(IMAGES, found, strict=True) if one.error is None
        ]
        assert 0 < sum(one.error is not None for one in found) < len(IMAGES)
