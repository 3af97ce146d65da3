"""`prelabel push label-studio`: every image one task, every task one prediction of a model, whatever fails."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel import __main__ as cli
from prelabel.adapters.label_studio.interface import parse_interface
from prelabel.adapters.label_studio.project import list_tasks, open_project
from prelabel.adapters.label_studio.push import LOOKS, PushSummary, push
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.token import TOKEN_VARIABLE, Token
from prelabel.adapters.rows import Conversion, Predictions, Selection
from prelabel.addresses import image_address
from prelabel.bulk import BulkConfig, run_bulk
from prelabel.errors import AccessError, InputError, PrelabelError, RemoteError, ServerUnavailableError
from support.label_studio import LEGACY_TOKEN, PERSONAL_TOKEN, Fault, LabelStudioDouble, config, run_label_studio
from support.samples import ListModel, ListPredictor, ListSource, write_pile

COUNT = 23
BROKEN = frozenset({4})


def predict(directory: Path, count: int = COUNT, model_id: str = "model-1", broken: frozenset[int] = BROKEN) -> Path:
    predictor = ListPredictor(ListModel(model_id))
    run_bulk(BulkConfig(directory, shard_size=10), ListSource(count, broken), "pile", predictor, progress="none")
    return directory


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predict(tmp_path_factory.mktemp("predictions") / "out")


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabelStudioDouble]:
    monkeypatch.setenv(TOKEN_VARIABLE, LEGACY_TOKEN)
    with run_label_studio("low", "high", "none") as double:
        yield double


def session(studio: LabelStudioDouble, token: str = LEGACY_TOKEN, **options: Any) -> Session:
    return Session(studio.url, Token(token), **{"sleep": lambda _: None, **options})


def do_push(
    studio: LabelStudioDouble,
    predictions: Path,
    chunk: int = 5,
    lanes: tuple[str, ...] = (),
    error_rows: bool = True,
    **options: Any,
) -> PushSummary:
    project = open_project(session(studio, **options), 7)
    conversion = Conversion(Predictions(predictions), Selection(lanes), image_url_prefix="/data/local-files/?d=pile/")
    interface = parse_interface(project.label_config)
    return push(project, interface, conversion, error_rows=error_rows, chunk=chunk, progress_mode="none")


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


def test_a_personal_token_buys_access_tokens_and_renews_them(studio: LabelStudioDouble, predictions: Path) -> None:
    now = itertools.count(0, 40)
    project = open_project(Session(studio.url, Token(PERSONAL_TOKEN, lambda: float(next(now)))), 7)
    list(list_tasks(project, ["data"]))
    for _ in range(10):
        open_project(project.session, 7)
    assert 2 <= len(studio.access_tokens) < 10
    studio.access_tokens.append("another")  # the one in use is refused from now on
    assert open_project(project.session, 7).title == "cats"


def test_tokens_do_not_show(studio: LabelStudioDouble, caplog: pytest.LogCaptureFixture) -> None:
    token = Token(PERSONAL_TOKEN)
    assert PERSONAL_TOKEN not in repr(token) + repr(vars(session(studio, PERSONAL_TOKEN)))
    with pytest.raises(AccessError) as error:
        open_project(session(studio, "wrong-token-1"), 7)
    assert "wrong-token-1" not in str(error.value) + caplog.text
    assert TOKEN_VARIABLE in str(error.value)


@pytest.mark.parametrize("token", ["", "two words", "new\nline", "ümlaut"])
def test_what_cannot_be_a_token_is_said_without_it(token: str) -> None:
    with pytest.raises(InputError, match=TOKEN_VARIABLE) as error:
        Token(token)
    assert not token or token not in str(error.value)


@pytest.mark.parametrize("spread", [60, 90, 400, 40_000])
def test_ids_with_gaps_and_many_tasks_are_all_listed(
    studio: LabelStudioDouble, monkeypatch: pytest.MonkeyPatch, spread: int
) -> None:
    monkeypatch.setattr("prelabel.adapters.label_studio.project.PAGE_TASKS", 7)
    made = sorted(np.random.default_rng(0).choice(spread, 60, replace=False).tolist())
    for number in made:
        studio.add_task({"image": "x"})["id"] = 1 + number
    project = open_project(session(studio), 7)
    assert [task["id"] - 1 for task in list_tasks(project, ["data"])] == made
    middle = list_tasks(project, [], after=1 + made[10], until=1 + made[40])
    assert [task["id"] - 1 for task in middle] == made[11:41]
    studio.tasks.clear()
    assert list(list_tasks(project, ["data"])) == []


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


# The command.


def run(studio: LabelStudioDouble, predictions: Path, *more: object) -> int:
    arguments = ("--predictions", predictions, "--url", studio.url, "--project", 7, "--progress", "none")
    return cli.main([str(one) for one in ("push", "label-studio", *arguments, "--retry-for-s", 0, *more)])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    return captured.err


def test_the_command_pushes_a_folder_that_label_studio_serves(
    studio: LabelStudioDouble, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.label_config = config("low", "middle", "high")
    pile = write_pile(tmp_path / "my photos", 5, broken=[3])
    options = ("--device", "cpu", "--threads", 1, "--progress", "none")
    arguments = ("run", "--input", pile, "--model", tiny_bundle, "--output", tmp_path / "out", *options)
    assert cli.main([str(one) for one in arguments]) == 3
    capsys.readouterr()
    assert run(studio, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "project 7 (cats): 5 tasks made, 0 predictions added" in out
    assert "1 tasks have no prediction, because their rows are errors" in out
    assert studio.tasks[0]["data"]["image"] == "/data/local-files/?d=my%20photos/0000.png"
    studio.tasks.clear()
    assert run(studio, tmp_path / "out", "--images", pile) == 0
    first = studio.tasks[0]["data"]["image"]
    assert first.startswith("data:image/png;base64,iVBOR")
    assert len(studio.tasks) == 5
    (pile / "new.png").write_bytes(b"x")
    capsys.readouterr()
    assert run(studio, tmp_path / "out", "--images", pile) == 2
    assert "are of another input (manifest" in error_line(capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--image-url-prefix", "x", "--project", 8], "has no project 8, or the token's owner may not see it"),
        (["--image-url-prefix", "x", "--url", "localhost:8080"], "--url localhost:8080 is no address"),
        (["--image-url-prefix", "x", "--url", "http://me:pw@localhost"], "without user name"),
        (["--image-url-prefix", "x", "--url", "http://[bad"], "is no address"),
        (["--image-url-prefix", "x", "--url", "http://127.0.0.1:1"], "no Label Studio answers at http://127.0.0.1:1"),
        (["--image-url-prefix", "x", "--choices", "kind"], 'has no <Choices name="kind"> about an <Image>'),
        (["--image-url-prefix", "x", "--chunk", 0], "--chunk 0 is not usable"),
        (["--image-url-prefix", "x", "--images", "y"], "give either --images or --image-url-prefix"),
        (["--image-url-prefix", "x", "--lane", "review"], "has no lanes"),
        ([], "where the images of"),
    ],
)
def test_bad_input_is_one_line(
    studio: LabelStudioDouble, predictions: Path, capsys: pytest.CaptureFixture[str], more: list[object], message: str
) -> None:
    assert run(studio, predictions, *more) == 2
    assert message in error_line(capsys)
    assert studio.posts == []


def test_a_page_instead_of_json_is_one_line(
    studio: LabelStudioDouble, predictions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio, "answer", lambda *_: (200, b"<html>please log in</html>"))
    assert run(studio, predictions, "--image-url-prefix", "x") == 2
    assert "answered status 200: text/html instead of JSON; is this the address of a Label Studio" in error_line(capsys)
    monkeypatch.setattr(studio, "answer", lambda *_: (200, {"hello": "world"}))
    assert run(studio, predictions, "--image-url-prefix", "x") == 2
    assert "but not as Label Studio does" in error_line(capsys)
    monkeypatch.setattr(studio, "answer", lambda *_: (302, b""))
    assert run(studio, predictions, "--image-url-prefix", "x") == 2
    assert "redirect" in error_line(capsys)


def test_a_server_that_is_away_is_tried_again_and_named(studio: LabelStudioDouble) -> None:
    pauses: list[float] = []
    ticks = itertools.count()
    gone = Session("http://127.0.0.1:1", Token(LEGACY_TOKEN), sleep=pauses.append, clock=lambda: float(next(ticks)))
    with pytest.raises(ServerUnavailableError, match="Connection refused"):
        gone.ask("/api/projects/7/")
    assert len(pauses) > 3
    assert issubclass(ServerUnavailableError, PrelabelError)
