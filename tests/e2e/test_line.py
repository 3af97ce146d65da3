"""The whole line by its commands: train a little -> export -> serve -> pre-label -> read back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prelabel.bundle import load_bundle
from prelabel.table import read_predictions
from support.datasets import squares, write_idx_dataset

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx_dataset(tmp_path_factory.mktemp("line") / "data")


@pytest.fixture(scope="module")
def bundle(data: Path) -> Path:
    directory = data.parent / "run"
    run("training", "--data", data, "--labels", 12, "--steps", 80, "--output", directory, "--progress", "none")
    done = run("export", "--run", directory)
    assert "parity with Keras on 240 real and 1000 random images" in done.stdout
    return directory / "bundle"


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[str]:
    port_file = bundle.parent / "port"
    command = [sys.executable, "-m", "serving", "--model", bundle, "--port", "0", "--port-file", port_file]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if port_file.exists():
                break
            assert process.poll() is None, line
        try:
            yield f"127.0.0.1:{port_file.read_text().strip()}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
    assert process.returncode == 0


def test_every_image_is_prelabelled_and_most_are_right(data: Path, bundle: Path, server: str, tmp_path: Path) -> None:
    images = data / "train-images-idx3-ubyte.gz"
    run("prelabel", "run", "--input", images, "--server", server, "--output", tmp_path / "out", "--progress", "none")
    table = read_predictions(tmp_path / "out")
    _, labels = squares(240)
    assert table["id"].to_pylist() == [f"{i:06d}" for i in range(240)]
    assert set(table["model_id"].to_pylist()) == {load_bundle(bundle).model_id}
    predicted = np.array(table["label"].to_pylist(), int)
    assert (predicted == labels).mean() > 0.7
    probabilities = np.array(table["probabilities"].to_pylist())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), predicted)


def test_a_folder_with_a_broken_image_gives_one_error_row(server: str, tmp_path: Path) -> None:
    pile = tmp_path / "pile"
    pile.mkdir()
    images, _ = squares(5)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).resize((40, 30)).convert("RGB").save(pile / f"{i}.png")
    (pile / "3.png").write_bytes((pile / "3.png").read_bytes()[:60])
    run("prelabel", "run", "--input", pile, "--server", server, "--output", tmp_path / "o", status=3)
    rows = read_predictions(tmp_path / "o").to_pylist()
    assert [row["id"] for row in rows] == [f"{i}.png" for i in range(5)]
    assert [row["error"] is None for row in rows] == [True, True, True, False, True]


def test_training_names_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "train.parquet")
    done = run("training", "--data", tmp_path / "train.parquet", "--output", tmp_path / "run", status=2)
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "'image'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["training", "export"])
def test_an_output_that_cannot_be_written_is_one_line(command: str, data: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    source = ("--data", data) if command == "training" else ("--run", bundle.parent)
    done = run(command, *source, "--output", tmp_path / "file" / "out", status=2)
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
