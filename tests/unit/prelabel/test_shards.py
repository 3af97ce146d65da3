"""The plan of bulk work and the statistics of a shard."""

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.output import finished_shards, read_run
from prelabel.shards import Counts, Run, ShardStatistics, cause_of, confidence_histogram, count_causes
from prelabel.storage_local import LocalStorage
from prelabel.table import read_predictions
from support.samples import ListPredictor, ListSource

RUN = Run("pile", "hash", 1000, "m1", ("cat", "dog"), shard_size=30)


@given(st.integers(1, 300), st.integers(1, 50), st.frozensets(st.integers(0, 20)), st.integers(1, 300))
def test_missing_and_finished_shards_are_all_images_once(
    images: int, shard_size: int, finished: frozenset[int], limit: int
) -> None:
    run, wanted = dataclasses.replace(RUN, images=images, shard_size=shard_size), min(images, limit)
    missing = run.missing(wanted, finished)
    done = [run.shard_rows(shard, wanted) for shard in sorted(finished) if shard < run.shards]
    assert sorted(i for rows in [*missing, *done] for i in rows) == list(range(wanted))
    assert all(run.shard_of(i) == run.shard_of(rows.start) for rows in missing for i in rows)


@given(
    st.dictionaries(st.text(), st.integers(1, 9)),
    st.dictionaries(st.sampled_from(RUN.classes), st.integers(1, 9)),
    st.floats(0, 1e6),
)
def test_statistics_come_back_as_they_were(errors: dict[str, int], labels: dict[str, int], wall_s: float) -> None:
    counts = Counts(sum(errors.values()) + sum(labels.values()), Counter(errors), Counter(labels), (*range(20),))
    statistics = ShardStatistics(3, counts, round(wall_s, 6), 1234)
    assert ShardStatistics.from_json(statistics.to_json(RUN).encode(), RUN) == statistics


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 4}, {"labels": {"cat": 9}}, {"confidence": [1]}, {"model_id": "m2"}, {"manifest_hash": "other"},
        {"classes": ["dog", "cat"]}, {"start": 0}, {"errors": 3}, {"file_bytes": None},
    ],
)  # fmt: skip
def test_statistics_that_are_wrong_or_of_another_run_tell_nothing(changes: dict[str, Any]) -> None:
    content = ShardStatistics(3, Counts(3, Counter(), Counter(cat=3)), 1.0, 9).to_json(RUN)
    assert ShardStatistics.from_json(content.encode(), RUN) is not None
    fields = json.loads(content)
    assert set(changes) <= set(fields)
    assert ShardStatistics.from_json(json.dumps({**fields, **changes}).encode(), RUN) is None
    assert ShardStatistics.from_json(content[:-9].encode(), RUN) is None


def test_causes_leave_out_what_differs_from_image_to_image() -> None:
    assert cause_of("the file is empty (0 bytes)") == "the file is empty"
    assert (
        cause_of("9000 x 8000 pixels are over the limit of 64000000 pixels")
        == "N x N pixels are over the limit of N pixels"
    )
    causes = count_causes([f"broken {'x' * (i % 30)}" for i in range(100)])
    assert causes.total() == 100
    assert len(causes) == 21
    assert causes["other causes"] == 30


def test_confidences_are_counted_in_bins_of_a_twentieth() -> None:
    found = confidence_histogram(np.array([0, 0.049, 0.5, 0.99, 1], np.float32))
    assert (found[0], found[10], found[19], sum(found)) == (2, 1, 2, 5)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    work(tmp_path / "out")
    return tmp_path / "out"


def work(output: Path, broken: frozenset[int] = frozenset([4, 15])) -> ListPredictor:
    predictor = ListPredictor()
    config = BulkConfig(output, shard_size=10, batch_size=4)
    run_bulk(config, ListSource(25, broken), "pile", predictor, progress="none")
    return predictor


def statistics_of(output: Path) -> list[Path]:
    return sorted(output.glob("_part-*.json"))


def test_statistics_say_what_the_rows_say(output: Path) -> None:
    run = read_run(LocalStorage(output))
    assert run is not None
    rows = read_predictions(output)
    for shard, path in enumerate(statistics_of(output)):
        said = json.loads(path.read_text())
        those = rows.slice(said["start"], said["rows"])
        labels = Counter(those["label"].drop_null().to_pylist())
        assert said["labels"] == {name: labels[name] for name in run.classes}
        assert sum(said["errors"].values()) == said["rows"] - those["error"].null_count
        assert (said["confidence"][15], sum(said["confidence"])) == (labels.total(), labels.total())  # all are 0.75
        assert said["file_bytes"] == (output / run.shard_name(shard)).stat().st_size
        assert said["wall_s"] > 0
    assert [json.loads(path.read_text())["errors"] for path in statistics_of(output)] == [
        {"not an image in a known format, or cut off in its header": 1},
        {"not an image in a known format, or cut off in its header": 1},
        {},
    ]


def test_resuming_reads_no_rows_where_there_are_statistics(output: Path) -> None:
    for path in output.glob("part-*"):
        path.write_bytes(bytes(path.stat().st_size))
    assert work(output).predicted == []


@pytest.mark.parametrize("damage", [None, "", "{}", "of another shard"])
def test_statistics_that_a_kill_took_are_made_from_the_rows(output: Path, damage: str | None) -> None:
    before = [json.loads(path.read_text()) for path in statistics_of(output)]
    first, second, _ = statistics_of(output)
    if damage is None:
        first.unlink()
    else:
        first.write_text(second.read_text() if damage == "of another shard" else damage)
    assert work(output).predicted == []
    after = [json.loads(path.read_text()) for path in statistics_of(output)]
    assert after == [{**before[0], "wall_s": 0.0}, *before[1:]]


def test_rows_of_another_shard_are_not_taken_for_those_of_a_shard(output: Path) -> None:
    run = read_run(LocalStorage(output))
    assert run is not None
    (output / run.shard_name(2)).write_bytes((output / run.shard_name(1)).read_bytes())
    assert [one.shard for one in finished_shards(LocalStorage(output), run, 25)] == [0, 1]


def test_statistics_without_rows_are_nothing(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in output.glob("part-*"):
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert len(work(output).predicted) == 25
    assert not caplog.records
