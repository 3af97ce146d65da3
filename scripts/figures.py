"""Measures the accuracy figures of the README: `make figures`. Resumes run by run.

Each run is `python -m training` on the embedded MNIST, two side by side with one thread each, which is faster on two
cores than one after the other. Results go to docs/results/training.json; `make docs` renders them.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from prelabel.files import write_text_atomically
from scripts.provenance import provenance

RESULTS = Path("docs/results/training.json")
RUNS = Path("runs/figures")

PLAN = [
    *(("supervised", 100, seed) for seed in range(5)),
    *(("supervised", 10_000, seed) for seed in range(5)),
    *(("book", 100, seed) for seed in range(5)),
    *(("default", 100, seed) for seed in range(3)),
]
"""(preset, labels, seed) of every run."""


@dataclass(frozen=True)
class Options:
    """Train every run of the README's table and write docs/results/training.json."""

    presets: tuple[str, ...] = ("supervised", "book", "default")
    """Presets to run; results of others are kept."""
    side_by_side: int = 2
    """Runs at the same time, one thread each; 1 gives a run all cores."""


def main() -> None:
    """Runs what is missing and writes the results after each run."""
    options = tyro.cli(Options, prog="python -m scripts.figures")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    plan = [run for run in PLAN if run[0] in options.presets]
    with ThreadPoolExecutor(options.side_by_side) as pool:
        for _ in pool.map(lambda run: train(run, options.side_by_side), plan):
            write_text_atomically(RESULTS, json.dumps(collect(), indent=1) + "\n")


def train(run: tuple[str, int, int], side_by_side: int) -> None:
    """Runs one training; a finished one returns at once."""
    preset, labels, seed = run
    command = [
        sys.executable, "-m", "training", "--data", "data/mnist", "--preset", preset, "--labels", str(labels),
        "--seed", str(seed), "--output", str(directory(run)), "--progress", "none",
    ]  # fmt: skip
    threads = {} if side_by_side == 1 else {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    log = directory(run).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        done = subprocess.run(command, env={**os.environ, **threads}, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: see {log}")
    print(f"{directory(run).name}: {result(run)['test_error']:.2f} % test error", flush=True)


def directory(run: tuple[str, int, int]) -> Path:
    """Returns the folder of a run."""
    return RUNS / "-".join(map(str, run))


def result(run: tuple[str, int, int]) -> dict[str, Any]:
    """Returns a finished run's entry in the results."""
    training = json.loads((directory(run) / "training.json").read_text())
    return {
        "dataset": "mnist",
        "preset": training["preset"],
        "labels": training["labels"],
        "seed": training["seed"],
        "test_error": 100.0 * (1.0 - training["test_accuracy"]),
        "hidden_error": 100.0 * (1.0 - training["hidden_accuracy"]),
        "seconds": training["seconds"],
        "steps": training["steps"],
        "peak_memory_bytes": training["peak_memory_bytes"],
        "commit": training["commit"],
    }


def collect() -> dict[str, Any]:
    """Returns all finished runs with where they come from; runs that others have measured are kept."""
    known = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    finished = [result(run) for run in PLAN if (directory(run) / "training.json").exists()]
    keys = {(run["preset"], run["labels"], run["seed"]) for run in finished}
    runs = finished + [run for run in known if (run["preset"], run["labels"], run["seed"]) not in keys]
    order = {run: position for position, run in enumerate(PLAN)}
    runs.sort(key=lambda run: order.get((run["preset"], run["labels"], run["seed"]), len(order)))
    return {**provenance("make figures"), "runs": runs}


if __name__ == "__main__":
    main()
