"""An output directory is of one input and one model, locked while it is written, and never somebody else's files."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.errors import (
    InputError,
)
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch
from prelabel.storage import LOCK_FILE
from prelabel.storage_local import LocalStorage
from support.bulk_runs import bulk, check_rows, parts, rows
from support.samples import ListModel, ListPredictor, ListSource


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
    (tmp_path / "out" / LOCK_FILE).unlink()  # as in a copy
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match=f"{message}.*choose another directory, or start over with --overwrite"):
        bulk(tmp_path / "out", source, predictor, **options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
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
    assert len(list(tmp_path.iterdir())) == 2  # not even a lock is left in it


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


def test_another_run_that_was_faster_is_noticed_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, lock = tmp_path / "out", LocalStorage.lock

    def too_late(storage: LocalStorage) -> Any:
        monkeypatch.undo()
        bulk(output, ListSource(25))
        return lock(storage)

    monkeypatch.setattr(LocalStorage, "lock", too_late)
    with pytest.raises(InputError, match="holds predictions of model model-1, not model-2"):
        bulk(output, ListSource(25), ListPredictor(ListModel("model-2")))
    check_rows(output, 25)


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
