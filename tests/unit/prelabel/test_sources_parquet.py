"""Parquet files of images: columns, labels, ranges over files and row groups, and damage."""

import io
import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.sources import ParquetSource, Sample, open_source
from prelabel.storage_local import LocalStorage


def write(path: Path, metadata: object = None, row_group_size: int | None = None, **columns: Any) -> Path:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata(
            {"huggingface": metadata if isinstance(metadata, str) else json.dumps(metadata)}
        )
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def names(*classes: str) -> dict[str, Any]:
    return {"info": {"features": {"label": {"names": list(classes), "_type": "ClassLabel"}}}}


def read(path: Path) -> list[Sample]:
    source = open_source(path)
    return list(source.read(0, len(source)))


def labels(path: Path) -> list[str | None]:
    return [sample.label for sample in read(path)]


def test_a_binary_column_with_ids_and_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a", b"b"], label=["cat", None], id=["x", "y"], other=[1, 2])
    assert read(path) == [Sample("x", f"{path}#0", b"a", "cat"), Sample("y", f"{path}#1", b"b", None)]


def test_the_hugging_face_struct_with_class_names(tmp_path: Path) -> None:
    images = [{"bytes": b"a", "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    path = write(tmp_path / "t.parquet", names("cat", "dog"), image=images, label=[1, 0, -1])
    samples = read(path)
    assert [one.id for one in samples] == ["t/000000", "t/000001", "t/000002"]
    assert [one.label for one in samples] == ["dog", "cat", None]
    assert [one.error for one in samples] == [
        None,
        "the row holds no image bytes, only a path ('b.png'): list such paths in a .txt",
        "the row holds no image bytes",
    ]


def test_kinds_of_labels(tmp_path: Path) -> None:
    image = [b"a", b"b", b"c"]
    path = tmp_path / "t.parquet"
    assert labels(write(path, image=image, label=[3, None, -1])) == ["3", None, None]
    assert labels(write(path, image=image, label=pa.array(["b", "a", None]).dictionary_encode())) == ["b", "a", None]
    assert labels(write(path, image=image, label=pa.array(["b", "a", "a"], pa.large_string()))) == ["b", "a", "a"]
    assert labels(write(path, image=image, label=["b", "", "-1"])) == ["b", None, None]
    assert labels(write(path, names("x", "y"), image=image, label=pa.nulls(3, pa.int8()))) == [None] * 3
    assert labels(
        write(path, {"info": {"features": {"label": {"dtype": "int64"}}}}, image=image, label=[0, 1, 2])
    ) == list("012")


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({"label": [2, 0]}, names("cat", "dog"), r"label 2 has no class name: .* names 2 classes \(0\.\.1: cat, dog\)"),
        ({"label": [-2, 0]}, None, r"label -2 is not usable: wanted are -1 \(unlabelled\)"),
        ({"label": [0.5, 0.0]}, None, "'label' is double, wanted are strings or integers"),
        ({"id": [b"x", b"y"]}, None, "'id' is binary"),
        ({"id": ["x", "x"]}, None, "id 'x' occurs 2 times"),
        ({"image": ["a", "b"]}, None, "'image' is string, wanted are binary image files"),
        ({"image": [{"path": "a"}, {"path": "b"}]}, None, "wanted are binary image files"),
        ({}, "{not json", "huggingface metadata is damaged"),
        ({}, "[]", "huggingface metadata is damaged"),
        ({"label": [0, 1]}, {"info": {"features": {"label": {"names": [1, 2]}}}}, "huggingface metadata is damaged"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict[str, Any], metadata: object, message: str) -> None:
    path = write(tmp_path / "t.parquet", metadata, **{"image": [b"a", b"b"], **columns})
    with pytest.raises(InputError, match=message):
        open_source(path)


def test_a_missing_image_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", picture=[b"a"], label=["x"])
    with pytest.raises(InputError, match="no column 'image': it has picture, label; rename the one"):
        open_source(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([b"a"]), pa.array([b"b"])], names=["image", "image"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="several columns 'image'"):
        open_source(tmp_path / "t.parquet")


def test_columns_without_any_value_are_as_good_as_none(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a", b"b"], id=pa.nulls(2), label=pa.nulls(2))
    assert [(one.id, one.label) for one in read(path)] == [("t/000000", None), ("t/000001", None)]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", image=[b"a"])
    (tmp_path / "._t.parquet").write_bytes(b"what macOS knows about t.parquet")
    assert [one.id for one in read(tmp_path)] == ["t/000000"]


def test_images_beside_parquet_files_are_not_left_out_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", image=[b"a"])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.png").touch()
    with pytest.raises(InputError, match=r"holds images and Parquet files: name the Parquet files \(.*\*\.parquet\)"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "*.parquet")) == len(open_source(tmp_path / "more")) == 1


def test_files_in_a_folder_below_are_named(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    write(tmp_path / "set" / "data" / "train-0.parquet", image=[b"a"])
    with pytest.raises(InputError, match=r"set holds no images itself, but .*data holds train-0.parquet: name that"):
        open_source(tmp_path / "set")


def test_a_file_without_rows_holds_no_images(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=pa.array([], pa.binary()))
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=r"holds no images \(0 rows\)"):
            open_source(place)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 and nothing more PAR1", b"x" * 100])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"t\.parquet is not a readable Parquet file"):
        open_source(tmp_path / "t.parquet")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any), st.integers(1, 5), st.data())
def test_ranges_equal_the_whole(tmp_path: Path, sizes: list[int], row_group_size: int, data: st.DataObject) -> None:
    paths, total = [], 0
    for number, size in enumerate(sizes):
        rows = pa.array([f"{total + i}".encode() for i in range(size)], pa.binary())
        paths.append(write(tmp_path / f"{number}.parquet", None, row_group_size, image=rows))
        total += size
    source = ParquetSource(LocalStorage(paths[0].parent), [path.name for path in paths])
    whole = list(source.read(0, len(source)))
    assert [one.content for one in whole] == [f"{i}".encode() for i in range(total)]
    assert len({one.id for one in whole}) == total == len(source)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total + 3))
    assert list(source.read(start, stop)) == whole[start:stop]


def test_one_row_is_read_without_the_rest_of_its_row_group(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table = pa.table({"image": [generator.bytes(2 << 10) for _ in range(8192)]})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, use_dictionary=False)
    read_bytes = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            read_bytes.append(len(content))
            return content

    class CountedStorage(LocalStorage):
        def open(self, name: str) -> IO[bytes]:
            return Counted(self.path / name)  # type: ignore[return-value]

    source = ParquetSource(CountedStorage(tmp_path), ["t.parquet"])
    read_bytes.clear()
    (first,) = source.read(0, 1)
    assert first.content == table["image"][0].as_py()
    assert sum(read_bytes) < path.stat().st_size / 2


def test_more_than_two_gibibytes_in_a_row_group_are_read_in_pieces(tmp_path: Path) -> None:
    photo = bytes(17 << 19)
    piece = pa.array([{"bytes": photo, "path": "p.png"}] * 16)
    table = pa.table({"image": pa.chunked_array([piece] * 16)})  # the pieces share their memory
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
    found = [
        (sample.error, sample.content == photo, pa.total_allocated_bytes() < 512 << 20)
        for sample in open_source(tmp_path / "t.parquet").read(0, 256)
    ]
    assert found == [(None, True, True)] * 256


def refuse_batches(monkeypatch: pytest.MonkeyPatch, of_more_rows_than: int) -> None:
    """Lets pyarrow refuse to unpack more rows at a time, as it does where they hold over 2 GiB."""
    iter_batches = pq.ParquetFile.iter_batches

    def refusing(self: pq.ParquetFile, batch_size: int, *rest: Any) -> Any:
        for number, batch in enumerate(iter_batches(self, batch_size, *rest)):
            if number == 1 and batch_size > of_more_rows_than:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refusing)


def test_rows_much_larger_than_the_others_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = [b"%d" % i for i in range(600)]
    path = write(tmp_path / "t.parquet", image=content)
    refuse_batches(monkeypatch, of_more_rows_than=1)
    assert [one.content for one in read(path)] == content
    assert [one.content for one in open_source(path).read(250, 300)] == content[250:300]


def test_what_pyarrow_cannot_read_ends_the_run_and_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a"] * 300)
    refuse_batches(monkeypatch, of_more_rows_than=0)
    with pytest.raises(InputError, match=r"t\.parquet, row group 0: pyarrow cannot read it: Nested data"):
        read(path)


def test_a_damaged_row_group_is_error_rows_and_the_rest_is_read(tmp_path: Path) -> None:
    content = [bytes([i]) * 400 for i in range(9)]
    path = write(tmp_path / "t.parquet", None, 3, image=content, id=[f"i{i}" for i in range(9)])
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    samples = read(path)
    assert [one.id for one in samples] == [f"i{i}" for i in range(9)]
    assert [one.content for one in samples] == content[:3] + [None] * 3 + content[6:]
    assert all("row group 1 is damaged" in str(one.error) for one in samples[3:6])
    assert [one.id for one in open_source(path).read(4, 7)] == ["i4", "i5", "i6"]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a"])
    source = open_source(path)
    path.unlink()
    with pytest.raises(InputError, match=r"t\.parquet is not a readable"):
        list(source.read(0, 1))


def test_a_file_that_is_another_one_now_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a", b"b"])
    source = open_source(path)
    write(path, image=[b"a"])
    with pytest.raises(InputError, match=r"t\.parquet is another file than it was"):
        list(source.read(1, 2))


def test_a_file_of_as_many_rows_is_another_one_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"a", b"b"])
    source = open_source(path)
    write(path, image=[b"c", b"d"])
    with pytest.raises(InputError, match=r"t\.parquet is another file than it was"):
        list(source.read(0, 2))


def not_utf8(*texts: bytes) -> pa.Array:
    """Texts as a writer leaves them that does not look."""
    return pa.array(texts, pa.binary()).view(pa.string())


def test_a_path_that_is_not_utf8_costs_nothing(tmp_path: Path) -> None:
    """Hugging Face's struct has the name of the file, which nobody needs where its bytes are."""
    image = pa.StructArray.from_arrays(
        [pa.array([b"a", None, None], pa.binary()), not_utf8(b"B\xe4ume.png", b"B\xe4ume.png", b"")], ["bytes", "path"]
    )
    pq.write_table(pa.table({"image": image}), tmp_path / "t.parquet")
    first, second, third = open_source(tmp_path / "t.parquet").read(0, 3)
    assert (first.content, first.error) == (b"a", None)
    assert second.error == "the row holds no image bytes, only a path ('B\\\\xe4ume.png'): list such paths in a .txt"
    assert third.error == "the row holds no image bytes"


@pytest.mark.parametrize("name", ["id", "label"])
def test_ids_and_labels_that_are_not_utf8_are_refused_at_once(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"image": [b"a"], name: not_utf8(b"B\xe4ume")}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=rf"t\.parquet: column '{name}' is not text in UTF-8 .*: write it anew"):
        open_source(tmp_path / "t.parquet")


def test_the_manifest_changes_with_the_images(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    first = open_source(write(tmp_path / "t.parquet", image=[b"a", b"b"])).manifest_hash
    assert open_source(write(tmp_path / "two" / "t.parquet", image=[b"a", b"b"])).manifest_hash == first
    assert open_source(write(tmp_path / "t.parquet", image=[b"a", b"c"])).manifest_hash != first
