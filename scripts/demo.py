"""The whole line on the embedded MNIST, by the commands that a user would give: `make demo`.

Trains on 100 labels, exports, serves on a free loopback port, pre-labels the 60,000 training images through the server,
stops it, and compares with the labels that were hidden from everything before. Results lie in runs/demo; an interrupted
demo goes on where it was, a finished one starts over.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from prelabel.bundle import load_bundle
from prelabel.errors import PrelabelError
from prelabel.files import write_text_atomically
from prelabel.sources import IdxSource
from prelabel.table import read_predictions
from scripts.provenance import provenance

DATA = Path("data/mnist")
RUN = Path("runs/demo")
LABELS = 100
SEED = 0
SERVER_START_S = 60.0


@dataclass(frozen=True)
class Options:
    """Train on 100 labels of MNIST, export, serve, pre-label 60,000 images; results in runs/demo."""

    record: bool = False
    """Keep the figures and pictures for the README."""


def main() -> None:
    """Runs every stage and writes summary.json."""
    options = tyro.cli(Options, prog="python -m scripts.demo")
    if (RUN / "summary.json").exists():
        shutil.rmtree(RUN)
    started = time.monotonic()
    images = DATA / "train-images-idx3-ubyte.gz"
    stage("training", "-m", "training", "--data", DATA, "--labels", LABELS, "--seed", SEED, "--output", RUN)
    stage("export", "-m", "export", "--run", RUN)
    port_file = RUN / "server.port"
    port_file.unlink(missing_ok=True)
    say("serving")
    log = (RUN / "server.log").open("wb")
    command = [sys.executable, "-m", "serving", "--model", RUN / "bundle", "--port", "0", "--port-file", port_file]
    with log, subprocess.Popen([str(part) for part in command], stderr=log, stdout=log) as server:
        try:
            address = f"127.0.0.1:{wait_for_port(port_file, server)}"
            stage(
                "pre-labelling", "-m", "prelabel", "run", "--input", images, "--server", address,
                "--output", RUN / "predictions",
            )  # fmt: skip
        finally:
            server.send_signal(signal.SIGTERM)
    stage(
        "contact sheet", "-m", "prelabel", "sheet", "--predictions", RUN / "predictions", "--input", images,
        "--output", RUN / "contact_sheet.png",
    )  # fmt: skip
    summary = summarise(images, time.monotonic() - started)
    print(json.dumps(summary, indent=2))
    if options.record:
        record(summary)
    print(f"pictures: {RUN}/curves.png, {RUN}/samples.png, {RUN}/contact_sheet.png")


def stage(title: str, *arguments: object) -> None:
    """Runs one command in the foreground; its failure is the demo's."""
    say(title)
    done = subprocess.run([sys.executable, *map(str, arguments)])
    if done.returncode:
        sys.exit(f"demo: {title} failed with exit status {done.returncode}; make demo goes on from here")


def say(title: str) -> None:
    """Prints a stage's title."""
    print(f"--- {title}", flush=True)


def wait_for_port(port_file: Path, server: subprocess.Popen[bytes]) -> int:
    """Returns the port that the server has taken, once it is ready."""
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline:
        if port_file.exists():
            return int(port_file.read_text())
        if server.poll() is not None:
            sys.exit(f"demo: the server ended with exit status {server.returncode}: see {RUN}/server.log")
        time.sleep(0.05)
    sys.exit(f"demo: the server was not ready within {SERVER_START_S:.0f} s: see {RUN}/server.log")


def summarise(images: Path, wall_s: float) -> dict[str, object]:
    """Compares the predictions with the hidden labels and writes summary.json."""
    source = IdxSource(images)
    bundle = load_bundle(RUN / "bundle")
    table = read_predictions(RUN / "predictions")
    index = {name: k for k, name in enumerate(bundle.classes)}
    predicted = np.array([-1 if label is None else index[label] for label in table["label"].to_pylist()], np.int32)
    assert source.labels is not None
    hidden = np.array([index[str(label)] for label in source.labels])
    training = json.loads((RUN / "training.json").read_text())
    bulk = json.loads((RUN / "predictions" / "_summary.json").read_text())
    summary = {
        "test_accuracy": training["test_accuracy"],
        "prelabel_accuracy": float((predicted == hidden).mean()),
        "images": len(predicted),
        "errors": int((predicted < 0).sum()),
        "images_per_s": bulk["images_per_s"],
        "wall_s": wall_s,
        "train_s": training["seconds"],
        "train_memory_above_import_bytes": training["memory_above_import_bytes"],
        "labels": training["labels"],
        "seed": training["seed"],
        "model_id": bundle.model_id,
    }
    write_text_atomically(RUN / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def record(summary: dict[str, object]) -> None:
    """Keeps the figures and pictures for the README."""
    results, pictures = Path("docs/results"), Path("docs/images")
    for folder in (results, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**provenance("make demo"), **summary}, indent=2) + "\n"
    write_text_atomically(results / "demo.json", text)
    for name in ("contact_sheet.png", "curves.png", "samples.png"):
        shutil.copyfile(RUN / name, pictures / name)


if __name__ == "__main__":
    try:
        main()
    except PrelabelError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; make demo goes on where it was")
