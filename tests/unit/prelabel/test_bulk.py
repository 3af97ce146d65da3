"""Bulk work: every image exactly one row, only what is missing, nothing lost by whatever happens."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prelabel.bulk import BulkConfig, BulkSummary, run_bulk
from prelabel.errors import (
    ImageError,
    InputError,
    OverloadedError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
    StorageError,
)
from prelabel.feed import Cut, decoded_by_threads, pixel_batches
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch
from prelabel.sources import IdxSource
from prelabel.storage import LOCK_FILE, LocalStorage
from prelabel.table import read_predictions
from support.datasets import write_idx
from support.samples import SPEC, ListModel, ListPredictor, ListSource, answer_for, positions_in


def bulk(output: Path, source: ListSource, predictor: Any = None, **options: Any) -> BulkSummary:
    options = {"shard_size": 10, "batch_size": 4, "window": 2, "decode_threads": 2, **options}
    return run_bulk(BulkConfig(output, **options), source, "pile", predictor or ListPredictor(), progress="none")


def rows(output: Path) -> list[dict[str, Any]]:
    return list(read_predictions(output).to_pylist())


def check_rows(output: Path, count: int, broken: frozenset[int] = frozenset()) -> None:
    """Every image has exactly one row, in order, with its own answer."""
    found = rows(output)
    assert [row["id"] for row in found] == [f"{i:05d}" for i in range(count)]
    right = answer_for(range(count), "model-1")
    for i, row in enumerate(found):
        assert row["path"] == f"somewhere/{i}"
        assert row["model_id"] == "model-1"
        if i in broken:
            assert row["error"].startswith("not an image")
            assert row["label"] is row["realness"] is None
            assert row["probabilities"] == [None, None]
        else:
            assert row["error"] is None
            assert row["label"] == ("low", "high")[i % 2]
            assert row["probabilities"] == right.probabilities[i].tolist()
            assert row["confidence"] == 0.75
            assert row["realness"] == right.realness[i]


def parts(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob("part-*.parquet"))


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


@pytest.mark.parametrize("spec", [SPEC, ImageSpec(5, 3, 3)])
def test_pixels_that_need_no_decoding_give_the_batches_of_their_samples(tmp_path: Path, spec: ImageSpec) -> None:
    write_idx(tmp_path / "a-images-idx3-ubyte.gz", np.random.default_rng(0).integers(0, 256, (25, 2, 2), np.uint8))
    source, cut = IdxSource(tmp_path / "a-images-idx3-ubyte.gz"), Cut(spec, shard_size=10, batch_size=4)
    missing = [range(10), range(20, 25)]
    pairs = list(zip(pixel_batches(source, missing, cut), decoded_by_threads(source, missing, cut, 2), strict=True))
    assert len(pairs) == 5
    for fast, plain in pairs:
        assert fast.batch == plain.batch
        np.testing.assert_array_equal(fast.pixels, plain.pixels)
    with pytest.raises(InputError, match="the input ended at image 25, before image 28"):
        list(pixel_batches(source, [range(20, 30)], cut))


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


def test_overwrite_starts_over(tmp_path: Path) -> None:
    output = tmp_path / "out"
    bulk(output, ListSource(33))
    (output / "notes.txt").write_text("mine")
    (output / "part-00000-mine.parquet").write_text("mine too")
    predictor = ListPredictor(ListModel("model-2"))
    summary = bulk(output, ListSource(12, manifest_hash="other"), predictor, overwrite=True, shard_size=7)
    assert predictor.predicted == list(range(12))
    assert (summary.images, summary.model_id) == (12, "model-2")
    assert (output / "notes.txt").read_text() == "mine"
    (output / "part-00000-mine.parquet").unlink()
    assert {row["model_id"] for row in rows(output)} == {"model-2"}


@pytest.mark.parametrize(
    ("source", "predictor", "options", "message"),
    [
        (ListSource(25), ListPredictor(ListModel("model-2")), {}, "predictions of model model-1, not model-2"),
        (ListSource(26, manifest_hash="new"), ListPredictor(), {}, r"pile as it was \(25 .* as it is now \(26 images"),
        (ListSource(25), ListPredictor(), {"shard_size": 20}, "10, not 20: give --shard-size 10 to go on"),
    ],
)  # fmt: skip
def test_an_output_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, source: ListSource, predictor: ListPredictor, options: dict[str, Any], message: str
) -> None:
    bulk(tmp_path / "out", ListSource(25))
    with pytest.raises(InputError, match=f"{message}.*choose another directory, or start over with --overwrite"):
        bulk(tmp_path / "out", source, predictor, **options)
    check_rows(tmp_path / "out", 25)


def test_another_input_is_named_with_the_first(tmp_path: Path) -> None:
    bulk(tmp_path / "out", ListSource(25))
    config = BulkConfig(tmp_path / "out", shard_size=10)
    with pytest.raises(InputError, match="holds predictions for input pile, not other pile"):
        run_bulk(config, ListSource(25, manifest_hash="x"), "other pile", ListPredictor(), progress="none")
    # The same images elsewhere are the same input.
    run_bulk(config, ListSource(25), "moved pile", ListPredictor(fail_at_batch=0), progress="none")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_other_files_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    (tmp_path / "part-00000-0123456789ab.parquet").write_text("not ours: there is no _run.json")
    with pytest.raises(InputError, match=r"holds other files \(holiday\.jpg, part-.* and no _run\.json"):
        bulk(tmp_path, ListSource(25), overwrite=overwrite)
    assert len([path for path in tmp_path.iterdir() if path.name != LOCK_FILE]) == 2


def test_a_damaged_run_file_is_named(tmp_path: Path) -> None:
    bulk(tmp_path / "out", ListSource(5))
    (tmp_path / "out" / "_run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        bulk(tmp_path / "out", ListSource(5))


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output .*file/out cannot be written: Not a directory"):
        bulk(tmp_path / "file" / "out", ListSource(5))


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"

    class Nested(ListPredictor):
        def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
            with pytest.raises(InputError, match=rf"another prelabel run \(process {os.getpid()}\)"):
                bulk(output, ListSource(33), overwrite=True)
            return super().predict_stream(batches, window)

    bulk(output, ListSource(33), Nested())
    check_rows(output, 33)


def test_the_lock_ends_with_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bulk(tmp_path, ListSource(33), ListPredictor(fail_at_batch=3))
    with (tmp_path / LOCK_FILE).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with LocalStorage(tmp_path).lock():
        pass


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        bulk(output, ListSource(33), ListPredictor(fail_at_batch=5))
    names = [f".{parts(output)[0]}.12.tmp", "._run.json.13.tmp", "._summary.json.14.tmp"]
    for name in names:
        (output / name).write_text("half")
    (output / ".mine.tmp").write_text("of others")
    bulk(output, ListSource(33))
    hidden = {path.name for path in output.iterdir() if path.name.startswith(".")}
    assert hidden == {LOCK_FILE, ".mine.tmp"}


@pytest.mark.parametrize(("window", "threads"), [(1, 1), (4, 2)])
def test_reading_ahead_is_bounded(tmp_path: Path, window: int, threads: int) -> None:
    source, ahead = ListSource(400), []

    class Watching(ListPredictor):
        def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
            for answer in super().predict_stream(batches, window):
                ahead.append(source.read_count - len(self.predicted))
                yield answer

    bulk(tmp_path / "out", source, Watching(), window=window, decode_threads=threads)
    assert len(ahead) == 120  # shards of ten are batches of 4, 4 and 2
    # In flight, decoded or being decoded, and the one that is being read.
    assert 0 < max(ahead) <= 4 * (window + 2 * threads + 1)


def test_batches_are_no_larger_than_the_server_and_memory_allow(tmp_path: Path) -> None:
    predictor = ListPredictor(ListModel(max_request_images=3))
    bulk(tmp_path / "small", ListSource(33), predictor)
    assert max(predictor.batch_sizes) == 3

    class Large(ListSource):
        def read(self, start: int, stop: int) -> Iterator[Any]:
            for sample in super().read(start, stop):
                yield dataclasses.replace(sample, content=np.zeros((2000, 1500, 3), np.uint8))

    class Sizes(ListPredictor):
        def _answer(self, batch: Pixels) -> PredictionBatch:
            self.batch_sizes.append(len(batch))
            return answer_for(range(len(batch)), "model-1")

    large = Sizes(ListModel(input=ImageSpec(2000, 1500, 3)))
    bulk(tmp_path / "large", Large(3), large)
    assert large.batch_sizes == [1, 1, 1]  # of 9 MB


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


def test_a_broken_image_is_an_image_error() -> None:
    sample = next(ListSource(1, frozenset({0})).read(0, 1))
    with pytest.raises(ImageError):
        sample.pixels(ListModel().input)
