"""`prelabel labels`: answers of several rounds become training data."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel import training_data
from support.selections import answer, run, write_shapes


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "pile")


def test_a_corrected_answer_takes_the_place_of_the_label_from_before(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def labels(round_number: int, answers: str, *more: object) -> list[dict[str, object]]:
        (tmp_path / "answers.csv").write_text(f"id,answer\n{answers}")
        output = tmp_path / f"round-{round_number}"
        given = ("--answers", tmp_path / "answers.csv", "--input", pile, *more)
        assert run("labels", *given, "--only-labelled", "--output", output) == 0
        return pq.read_table(output).to_pylist()

    labels(1, "bar-01.png,beam\nbar-02.png,bar\n")
    labels(2, "bar-03.png,bar\nbar-04.png,beam\n", "--labelled", tmp_path / "round-1")
    capsys.readouterr()
    rows = labels(3, "bar-01.png,bar\nbar-04.png,none of these\nbar-05.png,bar\n", "--labelled", tmp_path / "round-2")
    shown = capsys.readouterr().out
    assert "2 images had a label from before and have an answer now" in shown
    assert "1 answers 'none of these' say that an image is of no class" in shown
    found = {str(row["id"]).rsplit("/", 1)[-1]: row["label"] for row in rows}
    assert len(rows) == len(found)
    assert found == {f"bar-0{number}.png": "bar" for number in (1, 2, 3, 5)}


def test_answers_about_another_input_are_noticed(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run("select", "--input", pile, "--count", 9, "--output", tmp_path / "first") == 0
    answers = answer(tmp_path / "first")
    shutil.copy(pile / "bar-01.png", pile / "one-more.png")
    assert run("labels", "--answers", answers, "--input", pile, "--output", tmp_path / "grown") == 0
    assert "go to the images of the same names" in caplog.text
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", images=generator.integers(0, 256, (30, 8, 8)).astype(np.uint8))
    assert run("select", "--input", tmp_path / "one.npz", "--count", 9, "--output", tmp_path / "numbers") == 0
    capsys.readouterr()
    given = ("--answers", answer(tmp_path / "numbers"), "--input", tmp_path / "two.npz")
    assert run("labels", *given, "--output", tmp_path / "wrong") == 2
    assert "its ids are numbers of images there: give that input" in capsys.readouterr().err


def test_a_class_that_labels_from_before_do_not_have_is_told(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labelled/00003").mkdir(parents=True)
    (tmp_path / "labelled/Beam").mkdir()
    shutil.copy(pile / "bar-01.png", tmp_path / "labelled/00003/a.png")
    shutil.copy(pile / "beam-01.png", tmp_path / "labelled/Beam/b.png")
    (tmp_path / "a.csv").write_text("id,answer\nbar-02.png,3\nbeam-02.png,beam\nspot-02.png,spot\n")
    given = ("--answers", tmp_path / "a.csv", "--input", pile, "--labelled", tmp_path)
    assert run("labels", *given, "--output", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "new classes, which --labelled has not: '3' (is it '00003'?), 'beam' (is it 'Beam'?), 'spot'\n" in shown


def test_answers_that_differ_in_their_spelling_alone_are_told(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ("bar-01.png,bar", "bar-02.png,Bar ", "beam-01.png,beam", "beam-02.png,None of these")
    (tmp_path / "a.csv").write_text("\n".join(("id,answer", *answers)))
    assert run("labels", "--answers", tmp_path / "a.csv", "--input", pile, "--output", tmp_path / "out") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "may mean the same" in line]
    assert [line.partition(": ")[2] for line in told] == ["'none of these', 'None of these'", "'Bar', 'bar'"]


def test_the_same_id_of_other_images_is_no_answer_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", images=generator.integers(0, 256, (4, 4, 4)).astype(np.uint8))
    for name, label in (("one", "bar"), ("two", "beam")):
        (tmp_path / "a.csv").write_text(f"id,answer\n000001,{label}\n")
        more = ("--labelled", tmp_path / "from-one") if name == "two" else ()
        given = ("--answers", tmp_path / "a.csv", "--input", tmp_path / f"{name}.npz", "--only-labelled", *more)
        assert run("labels", *given, "--output", tmp_path / f"from-{name}") == 0
    assert sorted(row["label"] for row in pq.read_table(tmp_path / "from-two").to_pylist()) == ["bar", "beam"]


def test_training_data_is_cut_into_files_by_bytes_too(
    pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "FILE_BYTES", 500)
    (tmp_path / "a.csv").write_text("id,answer\nbar-01.png,bar\nbar-02.png,beam\n")
    assert run("labels", "--answers", tmp_path / "a.csv", "--input", pile, "--output", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.parquet"))) > 1
    assert pq.read_table(tmp_path / "out").num_rows == 56


def test_answers_by_numbers_whose_zeros_a_spreadsheet_took_away(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "pile.npz", images=images)
    (tmp_path / "a.csv").write_text("id;answer\n3;bar\n000011;beam\n")
    (tmp_path / "b.csv").write_text("id,answer\n000003,bar\n11,beam\n")
    answers = ("--answers", tmp_path / "a.csv", tmp_path / "b.csv")
    assert run("labels", *answers, "--input", tmp_path / "pile.npz", "--output", tmp_path / "round") == 0
    rows = pq.read_table(tmp_path / "round").to_pylist()
    assert {row["id"]: row["label"] for row in rows if row["label"]} == {"000003": "bar", "000011": "beam"}


def write_table(path: Path, *rows: tuple[bytes | None, str | None], ids: bool = True) -> None:
    path.parent.mkdir(exist_ok=True)
    columns = {"image": [image for image, _ in rows], "label": [label for _, label in rows]}
    more = {"id": [f"{path.stem}-{i}" for i in range(len(rows))]} if ids else {}
    pq.write_table(pa.table(columns | more), path)


@pytest.mark.parametrize("as_url", [False, True])
def test_test_images_are_no_labels_from_before(pile: Path, tmp_path: Path, as_url: bool) -> None:
    bar, beam, spot = ((pile / f"{name}-01.png").read_bytes() for name in ("bar", "beam", "spot"))
    write_table(tmp_path / "tables/train-0.parquet", (bar, "bar"))
    write_table(tmp_path / "tables/test.parquet", (beam, "beam"))
    for name, label, content in (("labeled", "bar", bar), ("test", "beam", beam), ("unlabeled", ".", spot)):
        (tmp_path / "layout" / name / label).mkdir(parents=True)
        (tmp_path / "layout" / name / label / "a.png").write_bytes(content)
    (tmp_path / "a.csv").write_text("id,answer\nspot-01.png,spot\n")
    for before in ("tables", "layout"):
        where = (tmp_path / before).as_uri() if as_url else tmp_path / before
        given = ("--answers", tmp_path / "a.csv", "--input", pile, "--labelled", where, "--only-labelled")
        assert run("labels", *given, "--output", tmp_path / f"from-{before}") == 0
        assert pq.read_table(tmp_path / f"from-{before}")["label"].to_pylist() == ["spot", "bar"]


def test_a_folder_without_labels_from_before_is_named(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "tables/test.parquet", ((pile / "bar-01.png").read_bytes(), "bar"))
    (tmp_path / "a.csv").write_text("id,answer\nspot-01.png,spot\n")
    for where, message in (
        (tmp_path / "tables", "holds files for the test or validation only (test.parquet"),
        (pile, "holds no labels"),
    ):
        given = ("--answers", tmp_path / "a.csv", "--input", pile, "--labelled", where)
        assert run("labels", *given, "--output", tmp_path / "out") == 2
        assert message in capsys.readouterr().err


def test_answers_by_rows_of_another_table_are_refused(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content = [(path.read_bytes(), None) for path in sorted(pile.iterdir())]
    for ids, status in ((False, 2), (True, 0)):
        table, selected = tmp_path / f"tables-{ids}/pile.parquet", tmp_path / f"selected-{ids}"
        write_table(table, *content, ids=ids)
        assert run("select", "--input", table, "--count", 9, "--output", selected) == 0
        answers = answer(selected)
        write_table(table, *content[:1], *content, ids=ids)
        capsys.readouterr()
        given = ("--answers", answers, "--input", table)
        assert run("labels", *given, "--output", tmp_path / f"out-{ids}") == status
        shown = capsys.readouterr().err
        assert ("its ids are numbers of images there: give that input" in shown) == (not ids)
    assert "go to the images of the same names" in caplog.text


def test_other_words_for_no_class_come_beside_that_of_the_tasks(pile: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id,answer\nbar-01.png,bar\nbar-02.png,none of these\nbar-03.png,unsure\nbar-04.png,blurred\n"
    )
    given = ("--answers", tmp_path / "a.csv", "--input", pile, "--no-class", "unsure, blurred,")
    assert run("labels", *given, "--output", tmp_path / "out") == 0
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["id"]: row["label"] for row in rows if row["label"]} == {"bar-01.png": "bar"}
    assert len(rows) == 56


def test_images_that_cannot_be_read_are_left_out_and_named(
    pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (pile / "bar-01.png").read_bytes()
    write_table(tmp_path / "tables/pile.parquet", (good, None), (None, None), (b"", None))
    write_table(tmp_path / "before/train.parquet", (b"", "beam"))
    text = "id,answer\npile-0,bar\npile-1,bar\npile-2,bar\n"
    for answers, status in ((text, 0), ("id,answer\npile-1,bar\n", 2)):
        (tmp_path / "a.csv").write_text(answers)
        given = ("--answers", tmp_path / "a.csv", "--input", tmp_path / "tables", "--labelled", tmp_path / "before")
        assert run("labels", *given, "--output", tmp_path / f"out-{status}") == status
        shown = capsys.readouterr()
        if status == 0:
            assert "1 images in" in shown.out
            assert "3 images with a label cannot be read and are left out: pile-1, pile-2, before/train-0" in shown.out
        else:
            assert "the images with an answer cannot be read (pile-1, before/train-0)" in shown.err
    assert pq.read_table(tmp_path / "out-0").to_pylist() == [{"id": "pile-0", "image": good, "label": "bar"}]
