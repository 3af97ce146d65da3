"""The measurement of `prelabel select` on a small set, and its tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from prelabel.sources import IdxSource
from scripts import select_bench
from support.piles import write_predictions


@pytest.fixture
def pile() -> select_bench.Pile:
    """Two classes that are two groups in both kinds of features, one of them small."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [180, 20])
    features = (labels[:, None] * 9.0 + generator.normal(size=(200, 4))).astype(np.float32)
    return select_bench.Pile(features, features, labels)


@pytest.mark.parametrize("method", select_bench.METHODS)
def test_every_method_selects_different_images(pile: select_bench.Pile, method: str) -> None:
    chosen = select_bench.METHODS[method](pile, 6, np.random.default_rng(0))
    assert len(set(chosen)) == 6
    if method != "random":
        assert select_bench.measured(pile, chosen) == {"classes": 2, "features": 1.0, "pixels": 1.0}


def test_balanced_is_balanced(pile: select_bench.Pile) -> None:
    chosen = select_bench.balanced(pile, 7, np.random.default_rng(0))
    assert np.bincount(pile.labels[chosen]).tolist() == [4, 3]


def test_it_measures_and_its_tables_say_where_it_is_no_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_bench, "OUTPUT", tmp_path / "select.json")
    monkeypatch.setattr(select_bench, "SETS", {"letters": 300})
    probabilities = np.zeros((60_000, 10), np.float32)
    # The first thousand, a tenth of them by chance, are called 7; all others are surely 3.
    probabilities[1000:, 3], probabilities[:1000, 3], probabilities[:1000, 7] = 1.0, 0.49, 0.51
    classes = tuple(str(digit) for digit in range(10))
    write_predictions(tmp_path / "predictions", probabilities, classes=classes, shard_size=60_000)
    options = ["--seeds", "2", "--sets", "letters", "--predictions", str(tmp_path / "predictions")]
    monkeypatch.setattr("sys.argv", ["select_bench", *options])
    select_bench.main()
    result = json.loads(select_bench.OUTPUT.read_text())
    assert len(result["results"]) == len(select_bench.METHODS) * len(select_bench.COUNTS)
    for entry in result["results"]:
        value = {"select": 0.75, "random": 0.5}.get(entry["method"], 0.6)
        for seed, one in enumerate(entry["selections"]):
            one["pixels"] = 0.5 if entry["count"] == 50 else value + seed / 100
    rows = select_bench.first_table(result).splitlines()[2:5]
    assert rows[0].endswith("| 50.5 % | 60.5 % | 75.5 % | +25.0 ± 0.0 |")
    assert rows[1].endswith("| +0.0 ± 0.0 **not better** |")
    assert "| random | " in select_bench.methods_table(result)
    for one in result["next"]:
        assert one["entropy"] == one["margin"]  # one confusion only, in the order of the pile
        assert one["margin"] == np.mean(IdxSource(select_bench.MNIST).labels[: one["count"]] != 7)
    assert select_bench.next_table({"next": [{"count": 50, "random": 0.01, "entropy": 0.3, "margin": 0.25}]}).endswith(
        "\n| 50 | 1.0 % | 30.0 % | 25.0 % |"
    )
