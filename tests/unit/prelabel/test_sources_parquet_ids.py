"""Rows of Parquet files have an id each, in all files together."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.errors import InputError
from prelabel.sources import open_source


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def ids_of(path: Path) -> list[str]:
    source = open_source(path)
    return [one.id for one in source.read(0, len(source))]


def test_ids_are_unique_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", image=[b"a", b"b"], id=[1, 2])
    write(tmp_path / "b.parquet", image=[b"c", b"d"], id=["3", "1"])
    with pytest.raises(InputError, match="id '1' occurs 2 times"):
        open_source(tmp_path)


def test_files_whose_rows_would_be_numbered_alike_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.PARQUET", image=[b"a"])
    write(tmp_path / "t.parquet", image=[b"b"])
    with pytest.raises(InputError, match=r"t\.PARQUET and t\.parquet in .* would give the same ids: rename one"):
        open_source(tmp_path)
    write(tmp_path / "t.PARQUET", image=[b"a"], id=["x"])
    with pytest.raises(InputError, match="would give the same ids"):
        open_source(tmp_path)
    write(tmp_path / "t.parquet", image=[b"b"], id=["y"])
    assert ids_of(tmp_path) == ["x", "y"]


def test_rows_without_an_id_are_numbered_and_unique_too(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a", b"b", b"c"], id=["x", None, "t/000002"])
    assert ids_of(path) == ["x", "t/000001", "t/000002"]
    write(path, image=[b"a", b"b", b"c"], id=["t/000001", None, "x"])
    with pytest.raises(InputError, match="id 't/000001' occurs 2 times"):
        open_source(path)


def test_an_id_that_a_row_of_another_file_has_by_its_number_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pile.parquet", image=[b"a", b"b"])
    ids = ["pile/000002", "pile/0000001", "other/000001"]
    write(tmp_path / "a.parquet", image=[b"c"] * 3, id=ids)
    assert ids_of(tmp_path) == [*ids, "pile/000000", "pile/000001"]
    write(tmp_path / "a.parquet", image=[b"c"], id=["pile/000001"])
    with pytest.raises(InputError, match="id 'pile/000001' is also that of row 1 in the file 'pile'"):
        open_source(tmp_path)
