"""Fixtures of the training tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prelabel.images import ImageSpec
from support.datasets import squares, write_idx_dataset
from support.short_runs import options
from training.dataset import TrainingSet
from training.train import train


@pytest.fixture
def idx_dataset(tmp_path: Path) -> Path:
    return write_idx_dataset(tmp_path / "data")


@pytest.fixture
def make_training_set() -> Callable[..., TrainingSet]:
    def make(labelled: int = 12, unlabelled: int = 48) -> TrainingSet:
        images, labels = squares(labelled + unlabelled)
        return TrainingSet(
            classes=("a", "b", "c"),
            spec=ImageSpec(16, 16, 1),
            labelled=images[:labelled, :, :, None],
            labels=labels[:labelled].astype(np.int32),
            unlabelled=images[labelled:, :, :, None],
        )

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set and an uninterrupted run on it, which no test changes."""
    root = tmp_path_factory.mktemp("finished")
    data = write_idx_dataset(root / "data")
    train(options(data, root / "run"))
    return data, root / "run"
