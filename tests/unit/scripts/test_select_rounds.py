"""The second round of selected labels: what is chosen, and what the table says of it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from prelabel.sources import IdxSource
from scripts import select_rounds
from scripts.select_training import labels_of
from support.datasets import write_idx_dataset
from support.piles import write_predictions


@pytest.fixture
def source(tmp_path: Path) -> IdxSource:
    return IdxSource(write_idx_dataset(tmp_path / "digits") / "train-images-idx3-ubyte.gz")


@pytest.fixture
def rounds(tmp_path: Path, source: IdxSource, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the runs, with predictions of the first round, surer from image to image."""
    monkeypatch.setattr(select_rounds, "RUNS", tmp_path / "rounds")
    sure = np.linspace(0.55, 0.98, len(source), dtype=np.float32)
    probabilities = np.stack([sure, 0.9 - 0.9 * sure, 0.1 - 0.1 * sure], axis=1)
    write_predictions(tmp_path / "rounds/first-0/predictions", probabilities, classes=("0", "1", "2"))
    return tmp_path / "rounds"


@pytest.mark.parametrize("method", ["random", "entropy", "margin"])
def test_the_second_round_leaves_the_first_out(method: select_rounds.Method, source: IdxSource, rounds: Path) -> None:
    first = np.arange(0, 40, 2)
    chosen = select_rounds.second_round(0, method, first, source)
    assert len(set(chosen.tolist())) == select_rounds.COUNT
    assert not set(chosen.tolist()) & set(first.tolist())
    if method != "random":
        assert sorted(chosen.tolist()) == list(range(1, 40, 2)), "the least sure of what is left"
        with (rounds / f"{method}-0-answers.csv").open(newline="") as file:
            answers = [row["answer"] for row in csv.DictReader(file)]
        assert answers == [str(label) for label in labels_of(source)[first]]


def test_news_are_images_that_the_model_has_wrong(source: IdxSource, rounds: Path) -> None:
    labels = labels_of(source)
    chosen = np.array([0, 1, 2, 3])  # of classes 0, 1, 2, 0; all are taken for 0
    assert labels[chosen].tolist() == [0, 1, 2, 0]
    assert select_rounds.news_of(rounds / "first-0", chosen, labels) == 0.5


def test_the_table_compares_with_random_choice() -> None:
    errors = {"first": [5.0, 6.0], "random": [4.0, 4.2], "entropy": [2.0, 2.2], "margin": [4.1, 3.9]}
    entries = [
        {"method": method, "seed": seed, "error": error, "news": None if method == "first" else 0.5}
        for method, some in errors.items()
        for seed, error in enumerate(some)
    ]
    lines = select_rounds.table({"runs": entries, "command": "c", "commit": "0" * 40}).splitlines()
    assert lines[2] == "| first round alone | 5.50 % | 6.00 % |  |  | 2 |"
    assert lines[4] == "| 20 more `--by entropy` | 2.10 % | 2.20 % | 50 % | +2.00 ± 0.00 points | 2 |"
    assert lines[5].endswith("| 50 % | +0.10 ± 0.20 points **not better** | 2 |")
