"""The data sets that the trainings of selected images get, and what is made of their results."""

import json
from pathlib import Path

import numpy as np
import pytest

from prelabel.sources import IdxSource
from scripts import select_training
from support.datasets import write_idx_dataset
from training.dataset import load_dataset, load_test


@pytest.fixture
def source(tmp_path: Path) -> IdxSource:
    return IdxSource(write_idx_dataset(tmp_path / "digits") / "train-images-idx3-ubyte.gz")


def test_training_sees_the_selected_labels_and_is_judged_on_others(source: IdxSource, tmp_path: Path) -> None:
    chosen = np.array([0, 1, 3, 4, 200])  # of classes 0, 1, 0, 1, 2
    files = [select_training.png(image) for image in source.images]
    held_out = select_training.write_data(tmp_path / "data", source, files, chosen)
    assert not set(held_out) & set(chosen)
    data = load_dataset(tmp_path / "data", label_count=None, seed=0)
    assert data.training.labels.tolist() == [0, 1, 0, 1, 2]
    assert np.array_equal(data.training.labelled[..., 0], source.images[chosen])
    assert len(data.training.unlabelled) == len(source) - 5
    assert data.test_source is not None
    test, skipped = load_test(data.test_source, data.training)
    assert test is not None
    assert not skipped
    assert np.array_equal(test.images[..., 0], source.images[held_out])
    assert test.labels.tolist() == select_training.labels_of(source)[held_out].tolist()


@pytest.mark.parametrize("method", ["random", "select"])
def test_selections_differ_by_seed_and_are_the_same_again(source: IdxSource, method: select_training.Method) -> None:
    first, again, other = (select_training.select(source, (method, 20, seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 20


def test_images_of_classes_without_a_label_count_as_wrong(tmp_path: Path) -> None:
    summary = {"test_accuracy": 0.9, "seconds": 1.0, "steps": 600, "commit": "c"}
    (tmp_path / "training.json").write_text(json.dumps(summary))
    labels = np.array([0, 0, 1, 1, 2])
    found = select_training.result(("random", 20, 3), tmp_path, np.array([0, 1, 1]), labels)
    assert found["error"] == pytest.approx(100 * (1 - 0.8 * 0.9))
    assert (found["classes"], found["seed"]) == (2, 3)


def test_the_table_compares_the_seeds_that_all_have() -> None:
    errors = {"random": [5.0, 7.0, 90.0], "select": [3.0, 5.5], "balanced": [4.0, 4.0, 4.0]}
    entries = [
        {"method": method, "labels": 20, "seed": seed, "error": error}
        for method, some in errors.items()
        for seed, error in enumerate(some)
    ]
    text = select_training.table({"runs": entries, "command": "c", "commit": "0" * 40})
    assert text.splitlines()[2] == "| 20 | 6.00 % | 4.25 % | 4.00 % | +1.75 ± 0.25 points | 2 |"
