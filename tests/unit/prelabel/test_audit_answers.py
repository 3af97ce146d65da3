"""People's answers: read from both formats, and refused where they are not whole."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.audit.answers import read_answers
from prelabel.audit.plan import Plan, Stratum
from prelabel.errors import InputError

PLAN = Plan(
    predictions_sha256="s",
    model_id="m1",
    manifest_hash="hash",
    classes=("cat", "dog"),
    alpha=0.01,
    confidence=0.95,
    stratify="none",
    seed=0,
    strata=(Stratum("all", 10, 3),),
    rows=(4, 0, 7),
    ids=("a", "b", "c"),
    stratum=(0, 0, 0),
    drawn_at="2026-01-01T00:00:00+00:00",
)


def answers(path: Path, content: str | bytes, plan: Plan = PLAN) -> list[int]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_answers(path, plan).tolist()


def test_a_csv_in_any_order_with_more_columns(tmp_path: Path) -> None:
    text = "\ufeffanswer,path,id\r\n dog ,x,c\r\nnone of these,x,a\r\ncat,x,b\r\n"
    assert answers(tmp_path / "a.csv", text) == [-1, 0, 1]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_that_a_spreadsheet_saved(tmp_path: Path, delimiter: str, encoding: str) -> None:
    """Zeros in front of numbers are gone, and there are empty lines."""
    plan = dataclasses.replace(PLAN, ids=("000123", "ü,1", "=9.png"), classes=("07", "8"))
    lines = [["id", "path", "answer"], ["123", "x", "7"], ['"ü,1"', "x", "8"], [], ["", "", ""], ["'=9.png", "", "07"]]
    text = "\r\n".join(map(delimiter.join, lines))
    assert answers(tmp_path / "a.csv", text.encode(encoding), plan) == [0, 1, 0]


def test_a_number_that_may_be_either_of_two_ids_is_not_guessed(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, ids=("01", "001", "2"))
    with pytest.raises(InputError, match="ids that were not drawn: 1;"):
        answers(tmp_path / "a.csv", "id,answer\n1,cat\n001,cat\n2,cat\n", plan)
    assert answers(tmp_path / "a.csv", "id,answer\n01,cat\n001,dog\n2,cat\n", plan) == [0, 1, 0]


def test_an_image_under_two_spellings_is_answered_twice(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, ids=("01", "b", "c"))
    with pytest.raises(InputError, match="answers more than once: 01"):
        answers(tmp_path / "a.csv", "id,answer\n1,cat\n01,dog\nb,cat\nc,cat\n", plan)


def test_a_class_may_be_called_none_of_these(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, classes=("cat", "none of these"))
    assert answers(tmp_path / "a.csv", "id,answer\na,cat\nb,none of these\nc,cat\n", plan) == [0, 1, 0]


def test_blanks_around_a_class_s_name_are_not_needed(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, classes=(" cat", "dog "))
    assert answers(tmp_path / "a.csv", "id,answer\na, cat\nb,cat\nc,dog\n", plan) == [0, 0, 1]
    alike = dataclasses.replace(PLAN, classes=(" cat", "cat "))
    with pytest.raises(InputError, match="calls a 'cat', which is no class"):
        answers(tmp_path / "a.csv", "id,answer\na,cat\nb,cat\nc,cat\n", alike)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,answer\na,cat\nb,\n", "lacks 2 of 3 answers: b, c"),
        ("id,answer\na,cat\nb,cat\nc,cat\nd,dog\n", "ids that were not drawn: d; it is of another audit"),
        ("id,answer\na,cat\nb,cat\nc,cow\n", "calls c 'cow', which is no class \\(cat, dog\\) and not 'none of these'"),
        ("id,answer\na,cat\nb,cat\nc,Dog\n", "calls c 'Dog'"),
        ("id,answer\na,cat\na,dog\nb,cat\nc,cat\n", "answers more than once: a \\(a: 'cat', 'dog'\\)"),
        ("id,label\na,cat\n", "has no column 'answer' \\(its header: id, label\\)"),
        ("", "has no column 'id' \\(its header: empty\\)"),
        (b"id,answer\n\xff,cat\n", "is not in UTF-8: save it from the spreadsheet as 'CSV UTF-8'"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        answers(tmp_path / "a.csv", text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv does not exist"):
        read_answers(tmp_path / "nothing.csv", PLAN)
    with pytest.raises(InputError, match=r"nothing\.json is no export"):
        read_answers(tmp_path / "nothing.json", PLAN)


def task(uid: str, *choices: str, cancelled: bool = False) -> dict[str, Any]:
    """A task as Label Studio 1.23 exports it, shortened; one annotation for each choice."""
    return {
        "id": 1,
        "data": {"image": "/data/local-files/?d=images/00000.png", "uid": uid},
        "annotations": [
            {
                "id": i,
                "was_cancelled": cancelled,
                "ground_truth": False,
                "result": []
                if cancelled
                else [
                    {
                        "from_name": "label",
                        "to_name": "image",
                        "type": "choices",
                        "origin": "manual",
                        "value": {"choices": [choice]},
                    }
                ],
            }
            for i, choice in enumerate(choices)
        ],
        "predictions": [],
    }


def test_label_studio_s_export(tmp_path: Path) -> None:
    tasks = [task("c", "dog"), task("a", "cat", "cat"), task("b", "none of these")]
    assert answers(tmp_path / "export.json", json.dumps(tasks)) == [0, -1, 1]


def asked(uid: str, **answers: list[str]) -> dict[str, Any]:
    """A task with one annotation that answers several questions."""
    made = task(uid, "x")
    made["annotations"][0]["result"] = [
        {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": choices}}
        for name, choices in answers.items()
    ]
    return made


def test_a_second_question_is_not_about_the_class(tmp_path: Path) -> None:
    tasks = [asked(uid, quality=["blurred"], label=["dog"]) for uid in "ab"] + [asked("c", label=["cat"])]
    assert answers(tmp_path / "export.json", json.dumps(tasks)) == [1, 1, 0]
    only = [asked(uid, animal=["dog"]) for uid in "abc"]
    assert answers(tmp_path / "only.json", json.dumps(only)) == [1, 1, 1]
    tasks = [asked(uid, quality=["blurred"], animal=["dog"]) for uid in "abc"]
    with pytest.raises(
        InputError, match="answers to 2 questions \\('animal', 'quality'\\), and none is called 'label'"
    ):
        answers(tmp_path / "two.json", json.dumps(tasks))


def test_several_choices_are_no_answer_as_in_a_pull(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [asked("a", label=["dog", "cat"]), asked("b", label=["dog"]), asked("c", label=["cat"])]
    with pytest.raises(InputError, match="lacks 1 of 3 answers: a"):
        answers(tmp_path / "e.json", json.dumps(tasks))
    assert "several choices at a time are no answer: a" in caplog.text
    tasks[0]["annotations"] += task("a", "cat")["annotations"]  # of another annotator
    assert answers(tmp_path / "e.json", json.dumps(tasks)) == [0, 1, 0]


def test_ids_that_are_numbers_are_unknown_ids(tmp_path: Path) -> None:
    tasks = [task("a", "cat"), task(5, "cat"), task("z", "cat")]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ids that were not drawn: 5, z"):
        answers(tmp_path / "export.json", json.dumps(tasks))


def test_annotators_who_disagree_and_skipped_tasks_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than once: a \\(a: 'cat', 'dog'\\)"):
        answers(tmp_path / "e.json", json.dumps([task("a", "cat", "dog"), task("b", "cat"), task("c", "cat")]))
    skipped = [task("a", "cat"), task("b", "cat", cancelled=True), task("c", "cat")]
    with pytest.raises(InputError, match="lacks 1 of 3 answers: b"):
        answers(tmp_path / "e.json", json.dumps(skipped))


@pytest.mark.parametrize(
    "content", ["", "{}x", "3", "[3]", '[{"data": {}}]', '[{"data": {"uid": "a"}, "annotations": 3}]', '[{"uid": "a"}]']
)
def test_other_json_is_no_export(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="no export of Label Studio"):
        answers(tmp_path / "e.json", content)


@given(content=st.binary(max_size=60), suffix=st.sampled_from([".csv", ".json"]))
def test_no_content_is_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"noise{suffix}"
    with pytest.raises(InputError):
        answers(path, content)
