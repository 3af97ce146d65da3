"""Prediction rows in Parquet: written, read back, and refused where files do not belong together."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.predictions import PredictionBatch, with_failures
from prelabel.table import ShardInfo, read_info, read_predictions, schema, table_info, to_table, write_shard

INFO = ShardInfo("0.1.0", "m1", ("cat", "dog"), "hash", 0, 0)


def batch_of(count: int, failed: dict[int, str], seed: int = 0) -> PredictionBatch:
    generator = np.random.default_rng(seed)
    good = count - len(failed)
    probabilities = generator.dirichlet(np.ones(2), good).astype(np.float32).reshape(good, 2)
    return with_failures(PredictionBatch(probabilities, generator.random(good, np.float32), "m1"), failed, count)


def rows(count: int, info: ShardInfo = INFO, failed: dict[int, str] | None = None) -> Any:
    names = [f"{info.start + i}" for i in range(count)]
    return to_table(names, [f"p/{name}" for name in names], batch_of(count, failed or {}), info)


@given(st.lists(st.booleans(), max_size=20))
def test_rows_say_what_the_batch_says(good: list[bool]) -> None:
    failed = {i: f"broken {i}" for i, ok in enumerate(good) if not ok}
    batch = batch_of(len(good), failed)
    names = [f"é{i}" for i in range(len(good))]
    buffer = pa.BufferOutputStream()
    pq.write_table(to_table(names, [f"p/{name}" for name in names], batch, INFO), buffer)
    table = pq.read_table(pa.BufferReader(buffer.getvalue()))
    assert table.schema.equals(schema(INFO))
    table.validate(full=True)
    for i, (row, wanted) in enumerate(zip(table.to_pylist(), batch.rows(INFO.classes), strict=True)):
        assert (row["id"], row["path"], row["model_id"]) == (f"é{i}", f"p/é{i}", "m1")
        assert (row["label"], row["error"]) == (wanted.label, wanted.error)
        if wanted.error is None:
            assert row["probabilities"] == list(wanted.probabilities.values())
            assert (row["confidence"], row["realness"]) == (wanted.confidence, wanted.realness)
        else:
            assert (row["probabilities"], row["confidence"], row["realness"]) == ([None, None], None, None)


def test_the_columns_have_the_promised_types() -> None:
    found = {field.name: str(field.type) for field in schema(INFO)}
    assert found == {
        "id": "string",
        "path": "string",
        "label": "string",
        "confidence": "float",
        "probabilities": "fixed_size_list<element: float>[2]",
        "realness": "float",
        "model_id": "string",
        "error": "string",
    }


def test_hugging_face_finds_its_feature_types() -> None:
    features = json.loads(schema(INFO).metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema(INFO).names
    assert features["probabilities"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 2,
        "_type": "List",
    }


@pytest.mark.parametrize("count", [1, 3])
def test_other_lengths_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} ids"):
        to_table(["x"] * count, ["x"] * count, batch_of(2, {}), INFO)


def write(directory: Path, count: int, failed: dict[int, str] | None = None, **changes: Any) -> Path:
    info = dataclasses.replace(INFO, **changes)
    path = directory / f"part-{info.shard:05d}-{info.model_id}.parquet"
    write_shard(path, rows(count, info, failed))
    return path


def test_shards_are_read_as_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "set=1"  # not a column
    folder.mkdir()
    write(folder, 2, shard=1, start=3)
    path = write(folder, 3, {1: "broken"})
    (folder / ".part-00002-m1.parquet.7.tmp").write_bytes(b"left over")
    table = read_predictions(folder)
    assert table.schema.names == schema(INFO).names
    assert table["id"].to_pylist() == ["0", "1", "2", "3", "4"]
    assert table["error"].to_pylist() == [None, "broken", None, None, None]
    assert table_info(table) == INFO
    assert read_info(path) == (INFO, 3)
    assert read_predictions(folder, ["label"]).schema.names == ["label"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_id": "m2"}, "its model_id is m2, not m1"),
        ({"manifest_hash": "other"}, "its manifest_hash is other, not hash"),
        ({"classes": ("dog", "cat")}, "its classes is"),
        ({"start": 4}, "starts at row 4, wanted is 3"),
        ({"start": 2}, "starts at row 2, wanted is 3"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, 3)
    write(tmp_path, 2, **{"shard": 1, "start": 3, **changes})
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, 2, shard=1, start=3)
    with pytest.raises(InputError, match=r"gap or an overlap before part-00001-m1.parquet"):
        read_predictions(tmp_path)


def test_a_directory_without_predictions_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no predictions .*`prelabel run`"):
        read_predictions(tmp_path)


def test_files_of_others_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "part-00000-x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InputError, match="is no prediction file"):
        read_predictions(tmp_path)
    path.write_bytes(write(tmp_path, 3).read_bytes()[:-9])
    with pytest.raises(InputError, match=r"part-00000-x\.parquet is not a readable Parquet file"):
        read_predictions(tmp_path)


def test_damage_inside_a_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 300)
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(0).column(3)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"part-00000-m1\.parquet is damaged.*run again"):
        read_predictions(tmp_path)
