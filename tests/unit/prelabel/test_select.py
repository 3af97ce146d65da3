"""`prelabel select` and `prelabel labels` as a user types them, on real folders."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prelabel.errors import InputError
from prelabel.sources import open_source
from prelabel.table import ordered_files
from support.command_line import error_line
from support.selections import SHAPES, answer, run, tasks, write_shapes
from training.dataset import load_dataset


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "pile")


def test_the_first_images_are_one_of_each_kind(pile: Path, tmp_path: Path) -> None:
    output = tmp_path / "first"
    select = ("select", "--input", pile, "--count", 3, "--copy-images", "--classes", *SHAPES)
    assert run(*select, "--output", output) == 0
    rows = tasks(output)
    assert [row["id"].split("-")[0] for row in rows] == ["bar", "beam", "spot"]
    assert [row["reason"] for row in rows] == [
        "stands for 40 of 56 images (71.4 %)",
        "stands for 12 of 56 images (21.4 %)",
        "stands for 4 of 56 images (7.14 %)",
    ]
    assert list(rows[0]) == ["id", "path", "image", "reason", "answer"]
    assert {row["answer"] for row in rows} == {""}
    for i, row in enumerate(rows):
        assert (output / f"images/{i:05d}.png").read_bytes() == (pile / row["id"]).read_bytes()
    assert json.loads((output / "label_studio.json").read_text())[1]["data"] == {
        "image": "/data/local-files/?d=images/00001.png",
        "uid": rows[1]["id"],
    }
    assert "spot" in (output / "label_studio_config.xml").read_text()
    record = json.loads((output / "_select.json").read_text())
    assert record["manifest_hash"] == open_source(pile).manifest_hash
    assert (record["seed"], record["count"], record["looked_at"]) == (0, 3, 56)
    assert record["method"].startswith("k-means")
    assert record["ids"] == [row["id"] for row in rows]


def test_the_seed_decides(pile: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("select", "--input", pile, "--count", 12, "--seed", seed, "--output", tmp_path / name) == 0
    a, b, c = ((tmp_path / name / "tasks.csv").read_text() for name in "abc")
    assert a == b != c
    assert not (tmp_path / "a/label_studio_config.xml").exists()


def test_duplicates_are_not_selected_and_broken_images_are_named(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(20):
        shutil.copy(pile / "bar-00.png", pile / f"zz-copy-{i:02d}.png")
    (pile / "bar-01.png").write_bytes((pile / "bar-01.png").read_bytes()[:50])
    (pile / "beam-03.png").write_bytes(b"")
    found = tmp_path / "duplicates.parquet"
    assert run("duplicates", "--input", pile, "--output", found, "--exact-only") == 0
    capsys.readouterr()
    select = ("select", "--input", pile, "--duplicates", found, "--output", tmp_path / "all", "--count")
    assert run(*select, 54) == 0
    assert {row["id"] for row in tasks(tmp_path / "all")} == {
        path.name for path in pile.iterdir() if not path.name.startswith(("zz", "bar-01", "beam-03"))
    }
    out = capsys.readouterr().out
    assert "2 images cannot be decoded and were left out: " in out
    assert "bar-01.png" in out
    assert "beam-03.png: the file is empty (0 bytes)" in out
    record = json.loads((tmp_path / "all/_select.json").read_text())
    assert record["duplicates_left_out"] == 20
    assert [one["id"] for one in record["unreadable"]] == ["bar-01.png", "beam-03.png"]

    shutil.rmtree(tmp_path / "all")
    assert run(*select, 55) == 2
    assert "of the 76 images looked at, 54 can be selected (20 are duplicates, 2 cannot be decoded)" in error_line(
        capsys
    )
    assert not (tmp_path / "all").exists()


def test_duplicates_of_another_input_are_refused(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "duplicates.parquet"
    assert run("duplicates", "--input", pile, "--output", found) == 0
    shutil.copy(pile / "bar-00.png", pile / "new.png")
    capsys.readouterr()
    assert run("select", "--input", pile, "--duplicates", found, "--count", 3, "--output", tmp_path / "out") == 2
    assert "is about another input" in error_line(capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--count", 57), "--count 57 is not usable: the input has 56 images"),
        (("--count", 0), "--count 0 is not usable"),
        (("--count", 20, "--sample", 19), "--sample 19 is not usable: at least --count 20 wanted"),
        (("--by", "margin"), "--by and --labelled are about predictions"),
        (("--seed", -1), "--seed and --decode-threads must be 0 or more"),
    ],
)
def test_wrong_options_are_one_line(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: tuple[object, ...], message: str
) -> None:
    assert run("select", "--input", pile, "--output", tmp_path / "out", *changes) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_large_pile_is_sampled(pile: Path, tmp_path: Path) -> None:
    for i in range(200):
        shutil.copy(pile / "bar-00.png", pile / f"more-{i:03d}.png")
    assert run("select", "--input", pile, "--count", 5, "--sample", 64, "--output", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out/_select.json").read_text())
    assert (record["images"], record["looked_at"]) == (256, 64)


def test_selected_and_answered_images_train(pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("select", "--input", pile, "--count", 9, "--output", tmp_path / "first") == 0
    answers = answer(tmp_path / "first", blank=1)
    selected = {row["id"] for row in tasks(tmp_path / "first")}
    other = next(f"bar-{i:02d}.png" for i in range(40) if f"bar-{i:02d}.png" not in selected)
    with answers.open("a") as file:
        file.write(f"{other},,,none of these\n")
    capsys.readouterr()
    assert run("labels", "--answers", answers, "--input", pile, "--output", tmp_path / "round") == 0
    assert "56 images in" in (out := capsys.readouterr().out)
    assert "8 labelled: " in out
    rows = {row["id"]: row["label"] for row in pq.read_table(tmp_path / "round").to_pylist()}
    named = {row["id"]: row["answer"] for row in tasks(tmp_path / "first") if row["answer"] in SHAPES}
    assert {identity: label for identity, label in rows.items() if label is not None} == named
    data = load_dataset(tmp_path / "round", label_count=None, seed=0)
    assert data.training.classes == tuple(sorted(SHAPES))
    assert (len(data.training.labels), len(data.training.unlabelled)) == (8, 48)

    # The next round keeps what was labelled before.
    (tmp_path / "more.csv").write_text(f"id,answer\n{other},bar\n")
    more = ("--answers", tmp_path / "more.csv", "--labelled", tmp_path / "round", "--only-labelled")
    assert run("labels", *more, "--input", pile, "--output", tmp_path / "second") == 0
    second = pq.read_table(tmp_path / "second").to_pylist()
    assert {row["label"] for row in second} == set(SHAPES)
    assert len(second) == 9


def test_predictions_in_an_object_store_are_refused_where_they_are_read_from_a_disk(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="lies in an object store"):
        ordered_files(Path("memory://bucket/predictions"))


def test_the_working_directory_is_no_new_folder(
    pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("select", "--input", pile, "--count", 9, "--output", ".") == 2
    assert "name a new folder in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["nobody.png,bar"], "does not hold images that the answers are about: nobody.png"),
        (["bar-00.png,", "bar-01.png,"], "the column `answer` is empty"),
        (["bar-00.png,bar", "bar-00.png,beam"], "answers more than once: bar-00.png"),
        (["bar-00.png,none of these"], "nothing to learn from"),
    ],
)
def test_answers_that_make_no_training_data(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], message: str
) -> None:
    (tmp_path / "answers.csv").write_text("\n".join(["id,answer", *lines]) + "\n")
    labels = ("labels", "--answers", tmp_path / "answers.csv", "--input", pile, "--output", tmp_path / "out")
    assert run(*labels) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_files_that_contradict_each_other_are_refused(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, label in (("one", "bar"), ("two", "beam")):
        (tmp_path / name).write_text(f"id,answer\nbar-00.png,{label}\n")
    files = ("--answers", tmp_path / "one", tmp_path / "two")
    assert run("labels", *files, "--input", pile, "--output", tmp_path / "out") == 2
    assert "calls bar-00.png 'beam', and a file before it 'bar'" in error_line(capsys)
