"""Label Studio's double, and what is pushed to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prelabel.adapters.label_studio.token import TOKEN_VARIABLE
from support.label_studio import LEGACY_TOKEN, LabelStudioDouble, run_label_studio
from support.label_studio_push import predict
from support.samples import write_pile


@pytest.fixture(scope="package")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predict(tmp_path_factory.mktemp("predictions") / "out")


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabelStudioDouble]:
    monkeypatch.setenv(TOKEN_VARIABLE, LEGACY_TOKEN)
    with run_label_studio("low", "high", "none") as double:
        yield double


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that Label Studio serves as local files."""
    return write_pile(tmp_path_factory.mktemp("served") / "pile", 4, broken=[2])
