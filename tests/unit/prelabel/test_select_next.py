"""`prelabel select --predictions`: which images to label next."""

import json
from pathlib import Path

import numpy as np
import pytest

from prelabel.table import read_predictions
from support.command_line import error_line
from support.piles import KnownPile, make_pile, write_predictions
from support.samples import write_pile
from support.selections import run, tasks


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Eight rows: sure ones, four that waver between cat and dog, one between dog and owl, and an error."""
    probabilities = np.array(
        [
            [0.98, 0.01, 0.01],
            [0.50, 0.49, 0.01],
            [0.51, 0.48, 0.01],
            [0.52, 0.47, 0.01],
            [0.53, 0.46, 0.01],
            [0.02, 0.55, 0.43],
            [0.40, 0.30, 0.30],
            [0, 0, 0],
        ],
        np.float32,
    )
    write_predictions(tmp_path / "predictions", probabilities, failed={7: "broken"}, shard_size=3)
    return tmp_path / "predictions"


@pytest.mark.parametrize(
    ("by", "order", "reason"),
    [
        # The second row of a confusion counts half, the third a third.
        ("entropy", [6, 5, 1, 2], "entropy 1.09 nats, between 'cat' and 'dog'"),
        ("margin", [1, 5, 2, 3], "margin 0.01, between 'cat' and 'dog'"),
    ],
)
def test_the_next_images_are_uncertain_and_of_different_confusions(
    predictions: Path, tmp_path: Path, by: str, order: list[int], reason: str
) -> None:
    output = tmp_path / "next"
    assert run("select", "--predictions", predictions, "--by", by, "--count", 4, "--output", output) == 0
    rows = tasks(output)
    assert [int(Path(row["id"]).stem) for row in rows] == order
    assert rows[0]["reason"] == reason
    assert rows[0]["path"] == f"p/{rows[0]['id']}"
    assert "owl" in (output / "label_studio_config.xml").read_text()
    record = json.loads((output / "_select.json").read_text())
    assert (record["manifest_hash"], record["model_id"], record["candidates"]) == ("hash", "m1", 7)


def test_what_is_labelled_is_not_asked_for_again(
    predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answers.csv").write_text("id,answer\nset/00001.png,cat\nset/00002.png,\nset/00005.png,none of these\n")
    select = ("select", "--predictions", predictions, "--labelled", tmp_path / "answers.csv", "--output")
    assert run(*select, tmp_path / "next", "--count", 5) == 0
    assert {int(Path(row["id"]).stem) for row in tasks(tmp_path / "next")} == {0, 2, 3, 4, 6}
    capsys.readouterr()
    assert run(*select, tmp_path / "more", "--count", 6) == 2
    assert "5 of 8 rows can be selected (1 have no prediction" in (line := error_line(capsys))
    assert "2 are labelled" in line
    (tmp_path / "answers.csv").write_text("id,answer\nset/99999.png,cat\n")
    assert run(*select, tmp_path / "more", "--count", 1) == 2
    assert "names ids that are not in the predictions: set/99999.png" in error_line(capsys)


def test_of_lanes_only_those_for_review_are_asked_for_and_in_their_order(tmp_path: Path) -> None:
    known: KnownPile = make_pile(tmp_path / "predictions", 3000)
    assert run("audit", "draw", "--predictions", known.directory, "--output", tmp_path / "a", "--alpha", 0.05) == 0
    names = ("cat", "dog", "owl")
    right = {one: names[label] for one, label in zip(known.ids, known.truth, strict=True)}
    lines = [f"{row['id']},{right[row['id']]}" for row in tasks(tmp_path / "a")]
    (tmp_path / "answers.csv").write_text("\n".join(["id,answer", *lines]) + "\n")
    audit = ("--audit", tmp_path / "a", "--answers", tmp_path / "answers.csv", "--predictions", known.directory)
    assert run("audit", "apply", *audit, "--output", tmp_path / "lanes") in (0, 4)
    lane = dict(zip(*read_predictions(tmp_path / "lanes", ["id", "lane"]).to_pydict().values(), strict=True))
    in_review = [one for one in known.ids if lane[one] == "review"]
    assert 0 < len(in_review) < 3000
    select = ("select", "--predictions", tmp_path / "lanes", "--output", tmp_path / "next", "--count", len(in_review))
    assert run(*select) == 0
    rank = dict(zip(*read_predictions(tmp_path / "lanes", ["id", "review_rank"]).to_pydict().values(), strict=True))
    assert [row["id"] for row in tasks(tmp_path / "next")] == sorted(in_review, key=lambda one: rank[one])


def test_images_of_another_input_are_not_copied(
    predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pile = write_pile(tmp_path / "pile", 3)
    select = ("select", "--predictions", predictions, "--output", tmp_path / "next", "--count", 2, "--input", pile)
    assert run(*select) == 2
    assert "--input and --copy-images go together" in error_line(capsys)
    assert run(*select, "--copy-images") == 2
    assert "the images are another input" in error_line(capsys)
    assert not (tmp_path / "next").exists()
