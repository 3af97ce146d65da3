"""`prelabel pull label-studio`: people's answers -> answers.csv and what training takes."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel import __main__ as cli
from prelabel.adapters.label_studio.answers import decide
from prelabel.adapters.label_studio.interface import parse_interface
from prelabel.adapters.label_studio.token import TOKEN_VARIABLE
from prelabel.errors import InputError
from prelabel.sources import open_source
from support.label_studio import LEGACY_TOKEN, LabelStudioDouble, config, run_label_studio
from support.samples import write_pile
from training.dataset import load_dataset

INTERFACE = parse_interface(config("cat", "dog"))


def annotation(number: int, *choices: str, by: int = 1, **more: Any) -> dict[str, Any]:
    result = [{"from_name": "label", "type": "choices", "value": {"choices": list(choices)}}] if choices else []
    return {"id": number, "result": result, "completed_by": by, "was_cancelled": False, **more}


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ([annotation(1, "cat")], ("cat", "answered")),
        ([annotation(1, "cat"), annotation(2, "dog", by=2)], (None, "a tie")),
        ([annotation(1, "cat"), annotation(2, "dog", by=2), annotation(3, "dog", by=3)], ("dog", "answered")),
        # One annotator has one vote: the latest.
        ([annotation(1, "cat"), annotation(2, "cat"), annotation(3, "dog", by=2)], (None, "a tie")),
        ([annotation(2, "dog", updated_at="2026-02"), annotation(3, "cat", updated_at="2026-01")], ("dog", "answered")),
        ([annotation(1, "cat", was_cancelled=True)], (None, "skipped")),
        ([annotation(1, "cat", was_cancelled=True), annotation(2, "dog", by=2)], ("dog", "answered")),
        ([], (None, "skipped")),
        ([annotation(1)], (None, "no choice")),
        ([annotation(1, "cat", "dog")], (None, "several choices")),
        ([annotation(1, "cat", "dog"), annotation(2, "dog", by=2)], ("dog", "answered")),
        ([annotation(1, "cat"), annotation(2, "dog", by=2, ground_truth=True)], ("dog", "answered")),
    ],
)
def test_annotations_become_one_answer(annotations: list[dict[str, Any]], wanted: tuple[str | None, str]) -> None:
    assert decide(annotations, INTERFACE) == wanted


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["cat", "dog", "bird"]), st.booleans()), max_size=8))
def test_the_answer_is_what_most_annotators_said_last(votes: list[tuple[int, str, bool]]) -> None:
    made = [annotation(i, choice, by=by, was_cancelled=gone) for i, (by, choice, gone) in enumerate(votes)]
    last = {by: choice for by, choice, gone in votes if not gone}
    said = list(last.values())
    choice, _ = decide(made, INTERFACE)
    if choice is None:
        assert not said or sum(said.count(one) == max(map(said.count, said)) for one in set(said)) > 1
    else:
        assert all(said.count(choice) > said.count(other) for other in set(said) - {choice})


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabelStudioDouble]:
    monkeypatch.setenv(TOKEN_VARIABLE, LEGACY_TOKEN)
    with run_label_studio("cat", "dog", "none") as double:
        for i in range(12):
            double.add_task({"image": "x", "uid": f"{i:04d}.png"})
        yield double


def pull(studio: LabelStudioDouble, output: Path, *more: object) -> int:
    arguments = ("pull", "label-studio", "--url", studio.url, "--project", 7, "--output", output, "--retry-for-s", 0)
    return cli.main([str(one) for one in (*arguments, *more)])


def answers_in(folder: Path) -> dict[str, str]:
    with (folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(set(row) == {"id", "answer"} for row in rows)
    return {row["id"]: row["answer"] for row in rows}


def annotate_some(studio: LabelStudioDouble) -> None:
    for i, choice in enumerate(["cat", "dog", "cat", "dog", "none"]):
        studio.annotate(f"{i:04d}.png", choice)
    studio.annotate("0005.png", "cat", cancelled=True)
    studio.annotate("0006.png", "cat")
    studio.annotate("0006.png", "dog", by=2)
    studio.annotate("0007.png", [])


def test_answers_and_what_was_not_counted(
    studio: LabelStudioDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate_some(studio)
    studio.add_task({"image": "not ours"})
    foreign = studio.tasks[-1]
    foreign["annotations"].append(annotation(99, "cat"))
    assert pull(studio, tmp_path / "out") == 0
    assert answers_in(tmp_path / "out") == {
        "0000.png": "cat",
        "0001.png": "dog",
        "0002.png": "cat",
        "0003.png": "dog",
        "0004.png": "none",
    }
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["answers.csv"]
    out = capsys.readouterr().out
    assert "5 answers of project 7 (cats)" in out
    assert "not counted: 1 tasks with a tie, 1 tasks with no choice, 1 skipped, 1 without uid" in out


def test_training_takes_what_was_pulled(studio: LabelStudioDouble, tmp_path: Path) -> None:
    annotate_some(studio)
    studio.tasks = [task for task in studio.tasks if task["data"]["uid"] != "0003.png"]  # deleted
    pile = write_pile(tmp_path / "pile", 12, broken=[8])
    before = write_pile(tmp_path / "data" / "labelled" / "bird", 2).parents[1]
    write_pile(before / "test" / "cat", 1)
    assert pull(studio, tmp_path / "out", "--images", pile, "--labelled", before) == 0
    data = load_dataset(tmp_path / "out", label_count=None, seed=0, image_size=8)
    assert data.training.classes == ("bird", "cat", "dog")
    assert data.training.labels.tolist() == [1, 2, 1, 0, 0]
    for row, i in enumerate((0, 1, 2)):
        np.testing.assert_array_equal(data.training.labelled[row, 0, :2, 0], [i, 255 - i])
    # The others are the pile, without the broken one; "none" is no class.
    assert len(data.training.unlabelled) == 8
    assert data.test_source is None
    samples = list(open_source(tmp_path / "out").read(0, 14))
    assert [sample.id for sample in samples][:2] == ["0000.png", "0001.png"]
    assert samples[-1].id == "before/labelled/bird/0001.png"
    assert samples[0].content == (pile / "0000.png").read_bytes()


def test_pixels_without_files_become_files(studio: LabelStudioDouble, tmp_path: Path) -> None:
    from support.datasets import write_idx_dataset

    data = write_idx_dataset(tmp_path / "idx")
    images = data / "train-images-idx3-ubyte.gz"
    for i, choice in ((0, "cat"), (5, "dog")):
        studio.add_task({"image": "x", "uid": f"{i:06d}"})
        studio.annotate(f"{i:06d}", choice)
    assert pull(studio, tmp_path / "out", "--images", images) == 0
    pulled = load_dataset(tmp_path / "out", label_count=None, seed=0)
    # The labels that lie beside the images are not taken: they may be those that nobody should see.
    assert pulled.training.classes == ("cat", "dog")
    assert len(pulled.training.labels) == 2
    first, sixth = (open_source(images).images[i] for i in (0, 5))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(pulled.training.labelled[:, :, :, 0], [first, sixth])


def test_only_labelled_and_other_words_for_no_class(studio: LabelStudioDouble, tmp_path: Path) -> None:
    annotate_some(studio)
    pile = write_pile(tmp_path / "pile", 12)
    assert pull(studio, tmp_path / "out", "--images", pile, "--only-labelled", "--no-class", "cat,unsure") == 0
    samples = list(open_source(tmp_path / "out").read(0, 12))
    assert [(sample.id, sample.label) for sample in samples] == [
        ("0001.png", "dog"),
        ("0003.png", "dog"),
        ("0004.png", "none"),
    ]


def test_answers_without_an_image_are_told(
    studio: LabelStudioDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate_some(studio)
    assert pull(studio, tmp_path / "out", "--images", write_pile(tmp_path / "pile", 3)) == 0
    out = capsys.readouterr().out
    assert "2 answers are about images that --images does not hold, for example '0003.png'" in out


def test_since_takes_what_changed_later(studio: LabelStudioDouble, tmp_path: Path) -> None:
    studio.annotate("0001.png", "cat", at="2026-11-25T02:00:00.000000Z")
    studio.annotate("0002.png", "dog", at="2026-11-26T02:00:00.000000Z")
    assert pull(studio, tmp_path / "out", "--since", "2026-11-25T12:00:00+01:00") == 0
    assert answers_in(tmp_path / "out") == {"0002.png": "dog"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "has no answers yet: no task that prelabel pushed is annotated"),
        (["--since", "yesterday"], "--since 'yesterday' is no time"),
        (["--since", "2030-01-01"], "has no answers yet since then"),
        (["--images", "nowhere"], "input nowhere does not exist"),
        (["--labelled", "x"], "give --images, too"),
        (["--output", "."], "--output . is there already: name a new folder"),
        (["--project", 0], "--project 0 is not usable"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    studio: LabelStudioDouble,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: Sequence[object],
    message: str,
) -> None:
    assert pull(studio, tmp_path / "out", *more) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_two_tasks_of_one_image_with_different_answers_are_named(
    studio: LabelStudioDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate_some(studio)
    studio.add_task({"image": "x", "uid": "0000.png"})["annotations"].append(annotation(50, "dog"))
    assert pull(studio, tmp_path / "out") == 2
    assert "two tasks of image '0000.png' have different answers ('cat', and 'dog' in task" in capsys.readouterr().err


# The labelling interface.


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "is no XML"),
        ("<View>", "is no XML"),
        ("<View/>", "has no <Choices> about an <Image>"),
        (
            '<View><Text name="t" value="$t"/><Choices name="l" toName="t"><Choice value="a"/></Choices></View>',
            "has no",
        ),
        (
            '<View><Image name="i" value="x"/><Choices name="l" toName="i"><Choice value="a"/></Choices></View>',
            "value 'x'",
        ),
        ('<View><Image name="i" value="$i"/><Choices name="l" toName="i" value="$c"/></View>', "lists no <Choice>"),
        ('<!DOCTYPE v [<!ENTITY a "b">]><View/>', "holds a DOCTYPE"),
        (
            '<View><Image name="i" value="$i"/><Choices name="l" toName="i"/><Choices name="m" toName="i"/></View>',
            "has several <Choices> about an image ('l', 'm'): name one with --choices",
        ),
    ],
)
def test_interfaces_that_ask_for_no_class(xml: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_interface(xml)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_interface_is_found_among_others() -> None:
    interface = parse_interface(
        '<View><Text name="t" value="$t"/><Choices name="kind" toName="t"><Choice value="x"/></Choices>'
        '<View><Image name="pic" value="$photo"/></View><Header value="?"/>'
        '<Choices name="a" toName="pic"><Choice value="Cat" alias="cat"/><Choice value="dog"/></Choices>'
        '<Choices name="b" toName="pic"><Choice value="cat"/></Choices></View>',
        "a",
    )
    assert (interface.from_name, interface.to_name, interface.image_key) == ("a", "pic", "photo")
    assert interface.choices == ("cat", "dog")


@given(st.text(max_size=60) | st.text('<>/"= $aView Image Choices name toName value', max_size=120))
def test_no_text_is_more_than_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_interface(text)
