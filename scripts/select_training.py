"""Measures what the selected first images are worth to the SGAN: trainings on MNIST, with random choice beside. Hours.

Each run labels so many images, leaves all others unlabelled, and trains the preset `default` for a few hundred steps;
its error is that on 10,000 other images of the training split. The test split is not touched.
A class without any label cannot be learnt, and its images count as wrong. Resumes run by run; the results go to
docs/results/select_training.json.

Usage: python -m scripts.select_training
"""

import io
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import tyro
from numpy.typing import NDArray
from PIL import Image

from prelabel.engine_base import usable_cores
from prelabel.selection.first import FirstConfig, select_first
from prelabel.sources import IdxSource
from prelabel.table import write_shard
from scripts import runs

COMMAND = "python -m scripts.select_training"
RESULTS = Path("docs/results/select_training.json")
RUNS = Path("runs/select")
IMAGES = Path("data/mnist/train-images-idx3-ubyte.gz")
HELD_OUT = 10_000
"""Images that measure the error; they are part of the pile, without their labels."""
CLASSES = 10

Method = Literal["random", "select", "balanced"]
METHODS: tuple[Method, ...] = ("random", "select", "balanced")
Run = tuple[Method, int, int]
"""How images are selected, how many, seed."""
PLAN: list[Run] = [(method, count, seed) for count in (100, 50, 20) for seed in range(10) for method in METHODS]


@dataclass(frozen=True)
class Options:
    """Train what is missing of the plan and write docs/results/select_training.json."""

    counts: tuple[int, ...] = (20, 50, 100)
    """Numbers of labels to run."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Selections to run."""
    steps: int = 600
    """Steps of a training: less than a tenth of the preset's, so that the 90 runs take hours and not days."""
    side_by_side: int = 2
    """Runs at the same time, one thread each; 1 gives a run all cores."""


def main() -> None:
    """Runs what is missing and writes the results after each run."""
    options = tyro.cli(Options, prog=COMMAND)
    known = {key(entry) for entry in runs.load(RESULTS)}
    plan = [run for run in PLAN if run[1] in options.counts and run[2] in options.seeds and run not in known]
    print(f"{len(plan)} runs to do, {len(known)} done", flush=True)
    source = IdxSource(IMAGES)
    files = [png(image) for image in source.images]

    def train(run: Run) -> runs.Entry:
        chosen = select(source, run)
        directory = RUNS / "-".join(map(str, run))
        data = directory.with_name(f"{directory.name}-data")
        held_out = write_data(data, source, files, chosen)
        arguments = ["--data", str(data), "--preset", "default", "--seed", str(run[2]), "--steps", str(options.steps)]
        runs.train(directory, arguments, options.side_by_side)
        shutil.rmtree(data)
        return result(run, directory, labels_of(source)[chosen], labels_of(source)[held_out])

    runs.measure(plan, train, RESULTS, COMMAND, lambda entry: PLAN.index(key(entry)), options.side_by_side)


def key(entry: runs.Entry) -> Run:
    """Returns which run of the plan an entry of the results is."""
    return entry["method"], entry["labels"], entry["seed"]


def labels_of(source: IdxSource) -> NDArray[np.int64]:
    """Returns the labels of a source that has them, int64 [n]."""
    assert source.labels is not None
    return source.labels.astype(np.int64)


def select(source: IdxSource, run: Run) -> NDArray[np.int64]:
    """Returns the positions of the images to label, int64 [count]."""
    method, count, seed = run
    generator = np.random.default_rng([seed, count])
    if method == "select":
        chosen = select_first(source, count, seed, FirstConfig(), None, usable_cores(), "none")
        return np.array(chosen.rows, np.int64)
    if method == "random":
        return generator.choice(len(source), count, replace=False)
    labels = labels_of(source)
    parts = [generator.choice(np.flatnonzero(labels == k), count // CLASSES, replace=False) for k in range(CLASSES)]
    return np.concatenate(parts)


def write_data(folder: Path, source: IdxSource, files: Sequence[bytes], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Writes a data set for training with just these labels, and the held-out images as its test split.

    Returns:
        int64 [HELD_OUT]: the positions of the held-out images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(label) for label in labels_of(source).tolist()]
    shown = set(chosen.tolist())
    others = np.setdiff1d(np.arange(len(source)), chosen)
    held_out = np.sort(np.random.default_rng(0).choice(others, min(HELD_OUT, len(others)), replace=False))
    schema = pa.schema([("image", pa.binary()), ("label", pa.string())])
    given = [name if row in shown else None for row, name in enumerate(names)]
    write_shard(folder / "train.parquet", pa.table([files, given], schema=schema))
    test = [[files[row] for row in held_out.tolist()], [names[row] for row in held_out.tolist()]]
    write_shard(folder / "test.parquet", pa.table(test, schema=schema))
    return held_out


def png(image: NDArray[np.uint8]) -> bytes:
    """Returns uint8 [H, W] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def result(run: Run, directory: Path, chosen: NDArray[np.int64], held_out: NDArray[np.int64]) -> runs.Entry:
    """Returns a finished run's entry in the results.

    Args:
        run: Which.
        directory: Its folder.
        chosen: int64 [n], the labels of the selected images.
        held_out: int64 [m], those of the held-out images. Training leaves out those of unknown classes.
    """
    training = runs.read_json(directory / "training.json")
    known = float(np.isin(held_out, chosen).mean())
    return {
        "method": run[0],
        "labels": run[1],
        "seed": run[2],
        "classes": len(np.unique(chosen)),
        "error": 100.0 * (1.0 - known * training["test_accuracy"]),
        "seconds": training["seconds"],
        "steps": training["steps"],
        "commit": training["commit"],
    }


def table(content: dict[str, Any]) -> str:
    """Returns the mean errors, and by how much selection beats random choice, over the seeds that both have."""
    lines = [
        "| labels | random | `select` | balanced | `select` against random | selections |",
        "|---|---|---|---|---|---|",
    ]
    for count in sorted({entry["labels"] for entry in content["runs"]}):
        errors = {
            method: {e["seed"]: e["error"] for e in content["runs"] if (e["method"], e["labels"]) == (method, count)}
            for method in METHODS
        }
        seeds = sorted(errors["random"].keys() & errors["select"].keys() & errors["balanced"].keys())
        if len(seeds) < 2:
            continue
        means = [f"{statistics.mean(errors[method][seed] for seed in seeds):.2f} %" for method in METHODS]
        gains = [errors["random"][seed] - errors["select"][seed] for seed in seeds]
        gain, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
        verdict = f"{gain:+.2f} ± {error:.2f} points" + ("" if gain > 2 * error else " **not better**")
        lines.append(f"| {count} | {' | '.join(means)} | {verdict} | {len(seeds)} |")
    return "\n".join([*lines, "", f"`{content['command']}`, commit {content['commit'][:12]}."])


if __name__ == "__main__":
    main()
