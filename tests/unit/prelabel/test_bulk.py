"""Bulk work: every image exactly one row, only what is missing, nothing lost by whatever happens."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prelabel.bulk import WORTH_PROCESSES, BulkConfig
from prelabel.engine_base import usable_cores
from prelabel.errors import (
    ImageError,
    InputError,
    OverloadedError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
    StorageError,
)
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch
from support.bulk_runs import bulk, check_rows, parts, rows
from support.samples import SPEC, ListPredictor, ListSource, answer_for, positions_in


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    count=st.integers(1, 60),
    broken=st.frozensets(st.integers(0, 60)),
    shard_size=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    window=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_every_image_is_exactly_one_row_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    broken: frozenset[int],
    shard_size: int,
    batch_size: int,
    window: int,
    threads: int,
) -> None:
    output = tmp_path_factory.mktemp("bulk") / "out"
    predictor = ListPredictor()
    options = {"shard_size": shard_size, "batch_size": batch_size, "window": window, "decode_threads": threads}
    summary = bulk(output, ListSource(count, broken), predictor, **options)
    errors = len([i for i in broken if i < count])
    check_rows(output, count, broken)
    assert (summary.images, summary.errors, summary.predicted) == (count, errors, count)
    assert sum(summary.labels.values()) == count - errors
    assert predictor.predicted == [0 if i in broken else i for i in range(count)]  # black in the place of broken ones
    assert summary.shards_written == len(parts(output)) == -(-count // shard_size)


def test_broken_images_do_not_change_the_batches_of_the_others(tmp_path: Path) -> None:
    predictor, broken = ListPredictor(), frozenset([0, 5, *range(12, 25)])
    summary = bulk(tmp_path / "out", ListSource(25, broken), predictor)
    assert (summary.images, summary.errors) == (25, 15)
    assert predictor.batch_sizes == [4, 4, 2, 4, 4, 2, 4, 1]
    check_rows(tmp_path / "out", 25, broken)


def test_the_stream_is_not_drained_between_shards(tmp_path: Path) -> None:
    predictor = ListPredictor()
    bulk(tmp_path / "out", ListSource(50), predictor)
    assert predictor.streams == 1


def test_the_output_opens_as_a_parquet_data_set(tmp_path: Path) -> None:
    bulk(tmp_path / "out", ListSource(25, frozenset({3})))
    assert pq.read_table(tmp_path / "out").num_rows == 25


def test_the_summary_is_written_and_says_it_all(tmp_path: Path) -> None:
    summary = bulk(tmp_path / "out", ListSource(25, frozenset({3})))
    written = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert written == {**dataclasses.asdict(summary), "input": "pile"}
    assert written["labels"] == {"low": 13, "high": 11}
    assert (written["model_id"], written["manifest_hash"]) == ("model-1", "manifest")
    assert written["images_per_s"] > 0


def test_run_again_does_nothing_when_nothing_is_missing(tmp_path: Path) -> None:
    bulk(tmp_path / "out", ListSource(25))
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in parts(tmp_path / "out")}
    predictor, source = ListPredictor(), ListSource(25)
    summary = bulk(tmp_path / "out", source, predictor)
    assert (predictor.predicted, source.read_count) == ([], 0)
    assert (summary.images, summary.predicted, summary.shards_written, summary.shards_skipped) == (25, 0, 0, 3)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in parts(tmp_path / "out")} == before


@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 2], [1, 2]])
def test_run_again_does_what_is_missing_and_nothing_else(tmp_path: Path, gone: list[int]) -> None:
    output = tmp_path / "out"
    bulk(output, ListSource(25))
    names = parts(output)
    for shard in gone:
        (output / names[shard]).unlink()
    predictor = ListPredictor()
    summary = bulk(output, ListSource(25), predictor)
    assert predictor.predicted == [i for i in range(25) if i // 10 in gone]
    assert (summary.shards_written, summary.shards_skipped) == (len(gone), 3 - len(gone))
    check_rows(output, 25)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"", lambda data: b"x" + data])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    output = tmp_path / "out"
    bulk(output, ListSource(25))
    path = output / parts(output)[1]
    path.write_bytes(damage(path.read_bytes()))
    predictor = ListPredictor()
    bulk(output, ListSource(25), predictor)
    assert predictor.predicted == list(range(10, 20))
    check_rows(output, 25)


@pytest.mark.parametrize("batch", range(0, 9, 2))
def test_a_run_that_broke_off_is_taken_up_behind_its_last_file(tmp_path: Path, batch: int) -> None:
    output = tmp_path / "out"
    first = ListPredictor(fail_at_batch=batch)
    with pytest.raises(KeyboardInterrupt):
        bulk(output, ListSource(33), first)
    assert not (output / "_summary.json").exists()
    kept = len(parts(output)) * 10
    # Every whole shard is kept: shards are batches of 4, 4 and 2.
    assert kept == batch // 3 * 10
    second = ListPredictor()
    bulk(output, ListSource(33), second)
    assert second.predicted == list(range(kept, 33))
    check_rows(output, 33)


@pytest.mark.parametrize("kind", [ServerUnavailableError, OverloadedError, RemoteError])
def test_a_server_that_goes_away_keeps_what_is_done(tmp_path: Path, kind: type[PrelabelError]) -> None:
    output = tmp_path / "out"
    with pytest.raises(kind, match=r"it is gone; 20 of 33 images are done and kept in .*run the same command again"):
        bulk(output, ListSource(33), ListPredictor(fail_at_batch=7, error=lambda: kind("it is gone")))
    assert len(parts(output)) == 2
    bulk(output, ListSource(33))
    check_rows(output, 33)


def test_an_input_that_cannot_be_read_any_more_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Input/output error; \d+ of 33 images are done and kept in .*out: run the"):
        bulk(tmp_path / "out", ListSource(33, fail_at=25))
    bulk(tmp_path / "out", ListSource(33))
    check_rows(tmp_path / "out", 33)


def test_an_input_that_became_shorter_while_it_was_read_is_an_error(tmp_path: Path) -> None:
    class Shrinking(ListSource):
        def __len__(self) -> int:
            return 33

    with pytest.raises(InputError, match=r"the input ended at image 25, before image"):
        bulk(tmp_path / "out", Shrinking(25))


def test_the_first_images_then_the_rest(tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = bulk(output, ListSource(33), limit=14)
    assert (summary.images, summary.shards_written) == (14, 2)
    check_rows(output, 14)
    same = ListPredictor()
    bulk(output, ListSource(33), same, limit=14)
    assert same.predicted == []
    predictor = ListPredictor()
    summary = bulk(output, ListSource(33), predictor)
    # The file that ended at the limit is made again; the one before it is kept.
    assert predictor.predicted == list(range(10, 33))
    assert (summary.images, summary.shards_skipped) == (33, 1)
    check_rows(output, 33)


def test_a_smaller_limit_takes_nothing_away(tmp_path: Path) -> None:
    output, predictor = tmp_path / "out", ListPredictor()
    bulk(output, ListSource(33))
    summary = bulk(output, ListSource(33), predictor, limit=5)
    assert (summary.images, predictor.predicted) == (33, [])
    check_rows(output, 33)


class Lying(ListPredictor):
    """Answers otherwise than it should."""

    def __init__(self, change: Callable[[list[int]], PredictionBatch], batches: int = 99) -> None:
        super().__init__()
        self.change, self.batches = change, batches

    def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
        for number, batch in enumerate(batches):
            if number < self.batches:
                yield self.change(positions_in(batch))


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        (Lying(lambda positions: answer_for(positions[:1], "model-1")), r"answered \[1, 2\], wanted is \[4, 2\]"),
        (Lying(lambda positions: answer_for(positions, "model-2")), "changed its model from model-1 to model-2"),
        (Lying(lambda positions: answer_for(positions, "model-1"), batches=2), "without an answer"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path: Path, predictor: Lying, message: str) -> None:
    with pytest.raises(RemoteError, match=message):
        bulk(tmp_path / "out", ListSource(33), predictor)
    bulk(tmp_path / "out", ListSource(33))
    check_rows(tmp_path / "out", 33)


def test_errors_of_the_server_become_rows(tmp_path: Path) -> None:
    def refuse_odd(positions: list[int]) -> PredictionBatch:
        answer = answer_for(positions, "model-1")
        return dataclasses.replace(answer, errors={i: "odd" for i, one in enumerate(positions) if one % 2})

    summary = bulk(tmp_path / "out", ListSource(20, frozenset({4})), Lying(refuse_odd))
    assert summary.errors == 11
    assert [row["error"] for row in rows(tmp_path / "out")[:3]] == [None, "odd", None]


@pytest.mark.parametrize("name", ["limit", "shard_size", "batch_size", "window", "decode_threads"])
def test_options_that_cannot_be_are_named(name: str) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} -1 is not usable"):
        BulkConfig(Path("out"), **{name: -1})


@pytest.mark.parametrize(
    ("options", "images", "processes"),
    [
        ({}, WORTH_PROCESSES - 1, 0),
        ({}, WORTH_PROCESSES, usable_cores()),
        ({"decode_threads": 4}, WORTH_PROCESSES, 0),
        ({"decode_threads": 4, "decode_processes": 3}, 10, 3),
        ({"decode_processes": 0}, WORTH_PROCESSES, 0),
    ],
)
def test_processes_decode_large_piles_unless_something_else_was_asked_for(
    options: dict[str, int], images: int, processes: int
) -> None:
    assert BulkConfig(Path("out"), **options).processes_for(ListSource(images), images) == processes  # type: ignore[arg-type]


def test_a_broken_image_is_an_image_error() -> None:
    sample = next(ListSource(1, frozenset({0})).read(0, 1))
    with pytest.raises(ImageError):
        sample.pixels(SPEC)
