"""`prelabel push label-studio`: every image one task, every task one prediction of a model, whatever fails."""

import itertools
import logging
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.adapters.label_studio.push import LOOKS
from prelabel.addresses import image_address
from prelabel.errors import InputError, RemoteError
from support.label_studio import Fault, LabelStudioDouble, config, run_label_studio
from support.label_studio_push import BROKEN, COUNT, do_push, predict


def check_all_there(studio: LabelStudioDouble, versions: dict[str, int], broken: frozenset[int] = BROKEN) -> None:
    """Each image has one task, and each of these models has one prediction for each of its first n images."""
    uids = [task["data"]["uid"] for task in studio.tasks]
    assert sorted(uids) == [f"{i:05d}" for i in range(max(versions.values()))]
    for task in studio.tasks:
        i = int(task["data"]["uid"])
        made = Counter(one["model_version"] for one in task["predictions"])
        assert made == ({} if i in broken else {name: 1 for name, count in versions.items() if i < count})
        for one in task["predictions"]:
            (result,) = one["result"]
            assert result["value"] == {"choices": ["low" if i % 2 == 0 else "high"]}
            assert (result["from_name"], result["to_name"], result["type"]) == ("label", "image", "choices")
            assert one["score"] == 0.75


def test_tasks_carry_their_prediction_and_what_is_known_as_columns(
    studio: LabelStudioDouble, predictions: Path
) -> None:
    summary = do_push(studio, predictions)
    assert (summary.tasks, summary.predictions, summary.there) == (COUNT, 0, 0)
    check_all_there(studio, {"model-1": COUNT})
    assert studio.tasks[1]["data"] == {
        "image": "/data/local-files/?d=pile/00001",
        "uid": "00001",
        "model_id": "model-1",
        "label": "high",
        "confidence": 0.75,
        "realness": 1.5258789e-05,
        "p_low": 0.25,
        "p_high": 0.75,
    }
    broken = studio.tasks[4]
    assert broken["data"]["error"].startswith("not an image")
    assert broken["predictions"] == []


def test_again_does_nothing_and_a_new_model_adds_predictions(
    studio: LabelStudioDouble, predictions: Path, tmp_path: Path
) -> None:
    do_push(studio, predictions)
    posts = len(studio.posts)
    summary = do_push(studio, predictions)
    assert (summary.tasks, summary.predictions, summary.there) == (0, 0, COUNT)
    assert len(studio.posts) == posts
    summary = do_push(studio, predict(tmp_path / "out", COUNT + 4, "model-2"))
    assert (summary.tasks, summary.predictions, summary.there) == (4, COUNT - 1, 1)
    for task in studio.tasks[:COUNT]:
        assert task["data"]["model_id"] == "model-1"
    uids = [task["data"]["uid"] for task in studio.tasks]
    assert len(set(uids)) == len(uids) == COUNT + 4
    assert Counter(one["model_version"] for task in studio.tasks for one in task["predictions"]) == {
        "model-1": COUNT - 1,
        "model-2": COUNT + 3,
    }


FAULTS: list[Fault] = ["refuse", "drop", "lose", "late", "busy", "proxy"]


@settings(max_examples=12)
@given(faults=st.lists(st.sampled_from([*FAULTS, None]), max_size=8), chunk=st.integers(1, 30))
def test_nothing_is_lost_or_doubled_whatever_happens_to_requests(
    predictions: Path, faults: list[Fault | None], chunk: int
) -> None:
    with run_label_studio("low", "high") as studio:
        studio.faults.extend(faults)
        do_push(studio, predictions, chunk, clock=lambda: 0.0)
        check_all_there(studio, {"model-1": COUNT})


@settings(max_examples=6)
@given(faults=st.lists(st.sampled_from([*FAULTS, None]), max_size=6))
def test_predictions_for_tasks_that_are_there_are_not_doubled_either(
    predictions: Path, faults: list[Fault | None]
) -> None:
    with run_label_studio("low", "high") as studio:
        do_push(studio, predictions)
        for task in studio.tasks:
            task["predictions"] = []
        studio.faults.extend(faults)
        do_push(studio, predictions, clock=lambda: 0.0)
        check_all_there(studio, {"model-1": COUNT})


def test_a_push_that_was_interrupted_goes_on(studio: LabelStudioDouble, predictions: Path) -> None:
    studio.faults.extend([None, None, "refuse"])
    ticks = itertools.count(0, 1000)
    with pytest.raises(RemoteError, match="database is locked"):
        do_push(studio, predictions, clock=lambda: float(next(ticks)), retry_for_s=1.0)
    assert len(studio.tasks) == 10
    assert do_push(studio, predictions).tasks == COUNT - 10
    check_all_there(studio, {"model-1": COUNT})


def test_requests_that_are_too_large_become_smaller(studio: LabelStudioDouble, predictions: Path) -> None:
    studio.most_items = 3
    do_push(studio, predictions, chunk=20)
    check_all_there(studio, {"model-1": COUNT})
    assert [count for _, count in studio.posts][:4] == [20, 10, 5, 2]
    studio.most_items = 0
    studio.tasks.clear()
    with pytest.raises(InputError, match="takes no request as large as one task"):
        do_push(studio, predictions)


def test_a_request_that_was_done_after_all_is_told(
    studio: LabelStudioDouble, predictions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can know how long Label Studio goes on with what its proxy gave up; at the end it is seen."""
    studio.faults.append("lose")
    do_push(studio, predictions, chunk=30)
    assert "two tasks" not in caplog.text
    studio.tasks.clear()
    studio.add_task({"image": "not ours"})
    studio.faults.append("late")
    studio.late_looks = 1 + LOOKS  # all of its looks see nothing
    with caplog.at_level(logging.WARNING):
        do_push(studio, predictions, chunk=3)
    assert "3 images have two tasks; delete the later ones" in caplog.text


def test_lanes_and_errors_choose(studio: LabelStudioDouble, predictions: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in predictions.glob("part-*.parquet"):
        table = pq.read_table(path)
        errors = table["error"].to_pylist()
        lanes = ["suspect" if error else ("accept", "review")[i % 2] for i, error in enumerate(errors)]
        table = table.append_column("lane", pa.array(lanes)).append_column(
            "lane_reason", pa.array(["why"] * len(lanes))
        )
        table = table.append_column("review_rank", pa.array([None if lane == "accept" else 5 for lane in lanes]))
        confidence = pa.array([None if error else 0.7 for error in errors], pa.float32())
        pq.write_table(table.append_column("calibrated_confidence", confidence), tmp_path / path.name)
    assert do_push(studio, tmp_path, lanes=("review", "suspect"), error_rows=False).tasks == 11
    for task in studio.tasks:
        lane = {"lane": "review", "lane_reason": "why", "review_rank": 5, "calibrated_confidence": 0.7}
        assert lane.items() <= task["data"].items()
    with pytest.raises(InputError, match="has no lanes"):
        do_push(studio, predictions, lanes=("review",))


def test_classes_are_checked_before_anything_is_sent(studio: LabelStudioDouble, predictions: Path) -> None:
    studio.label_config = config("low", "hihg")
    with pytest.raises(InputError, match="lack 'high' of the model's classes"):
        do_push(studio, predictions)
    assert studio.posts == []


def test_nothing_to_push_is_said(studio: LabelStudioDouble, tmp_path: Path) -> None:
    directory = predict(tmp_path / "out", 2, broken=frozenset({0, 1}))
    with pytest.raises(InputError, match="nothing to write: of 2 rows"):
        do_push(studio, directory, error_rows=False)


def test_an_id_that_occurs_twice_is_named(studio: LabelStudioDouble, predictions: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in predictions.glob("part-*.parquet"):
        table = pq.read_table(path)
        pq.write_table(
            table.set_column(0, table.schema.field("id"), pa.array(["same"] * len(table))), tmp_path / path.name
        )
    with pytest.raises(InputError, match="the id 'same' twice"):
        do_push(studio, tmp_path)
    assert studio.posts == []


def test_addresses() -> None:
    assert (
        image_address("/data/local-files/?d=photos/", "a b/ü#1.png")
        == "/data/local-files/?d=photos/a%20b/%C3%BC%231.png"
    )
    assert image_address("https://h/", "a&b.png") == "https://h/a%26b.png"
    assert image_address("s3://bucket/", "a b.png") == "s3://bucket/a b.png"
