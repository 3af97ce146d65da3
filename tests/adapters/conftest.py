"""Settings of the tests that read the formats back with the libraries that they are for."""

from pathlib import Path

import pytest

from prelabel.sources import Source, open_source
from support.conversions import Case, odd_case, write_case, write_images


@pytest.fixture
def case() -> Case:
    return odd_case()


@pytest.fixture
def images(tmp_path: Path, case: Case) -> Path:
    return write_images(tmp_path / "images.parquet", case)


@pytest.fixture
def source(images: Path) -> Source:
    return open_source(images)


@pytest.fixture
def predictions(tmp_path: Path, case: Case, source: Source) -> Path:
    return write_case(tmp_path / "predictions", case, source.manifest_hash)
