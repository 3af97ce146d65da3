"""Measures what the next selected images are worth: a second round of labels on MNIST, with random choice beside.

For each seed `prelabel select` chooses 20 first images and a training learns from them. Its model pre-labels the whole
training split; then 20 more images are labelled, those that `prelabel select --predictions` asks for or random ones,
and a training learns from all 40. Steps, held-out images and unknown classes as in `scripts.select_training`.
Resumes run by run; the results go to docs/results/select_rounds.json. About an hour.

Usage: python -m scripts.select_rounds
"""

import csv
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from prelabel.files import write_text_atomically
from prelabel.selection.next import NextConfig, select_next
from prelabel.sources import IdxSource
from prelabel.table import read_predictions
from scripts import runs
from scripts.provenance import provenance
from scripts.select_training import IMAGES, labels_of, png, result, select, write_data

COMMAND = "python -m scripts.select_rounds"
RESULTS = Path("docs/results/select_rounds.json")
RUNS = Path("runs/select-rounds")
COUNT = 20
"""Images that are labelled in a round."""

Method = Literal["first", "entropy", "margin", "random"]
METHODS: tuple[Method, ...] = ("first", "random", "entropy", "margin")
"""The first round, and how images are chosen for the second."""
NAMES: dict[Method, str] = {
    "first": "first round alone",
    "random": "20 random ones more",
    "entropy": "20 more `--by entropy`",
    "margin": "20 more `--by margin`",
}


@dataclass(frozen=True)
class Options:
    """Train what is missing and write docs/results/select_rounds.json."""

    seeds: tuple[int, ...] = tuple(range(10))
    """First rounds to run, each with every way to choose the second."""
    steps: int = 600
    """Steps of a training."""
    side_by_side: int = 2
    """Seeds at the same time, one thread each; 1 gives a run all cores."""


def main() -> None:
    """Runs what is missing and writes the results after each seed."""
    options = tyro.cli(Options, prog=COMMAND)
    done = {entry["seed"] for entry in runs.load(RESULTS)}
    source = IdxSource(IMAGES)
    files = [png(image) for image in source.images]

    def both_rounds(seed: int) -> list[runs.Entry]:
        return _measure(seed, source, files, options)

    with ThreadPoolExecutor(options.side_by_side) as pool:
        for entries in pool.map(both_rounds, [seed for seed in options.seeds if seed not in done]):
            known = sorted([*runs.load(RESULTS), *entries], key=lambda one: (one["seed"], METHODS.index(one["method"])))
            write_text_atomically(RESULTS, runs.to_json({**provenance(COMMAND), "runs": known}))


def _measure(seed: int, source: IdxSource, files: Sequence[bytes], options: Options) -> list[runs.Entry]:
    first = select(source, ("select", COUNT, seed))
    labels = labels_of(source)
    entries = []
    for method in METHODS:
        chosen = first if method == "first" else np.concatenate([first, second_round(seed, method, first, source)])
        directory = RUNS / f"{method}-{seed}"
        data = directory.with_name(f"{directory.name}-data")
        held_out = write_data(data, source, files, chosen)
        arguments = ["--data", str(data), "--preset", "default", "--seed", str(seed), "--steps", str(options.steps)]
        runs.train(directory, arguments, options.side_by_side)
        if method == "first":
            pre_label(directory, data / "train.parquet")
        shutil.rmtree(data)
        about = result(("select", len(chosen), seed), directory, labels[chosen], labels[held_out])
        news = news_of(RUNS / f"first-{seed}", chosen[COUNT:], labels) if method != "first" else None
        entries.append({**about, "method": method, "news": news})
    return entries


def pre_label(directory: Path, images: Path) -> None:
    """Exports a finished run and predicts all images with it, into `predictions` beside its bundle."""
    predictions = directory / "predictions"
    words = ["--input", str(images), "--model", str(directory / "bundle"), "--output", str(predictions)]
    options = ["--device", "cpu", "--threads", "1", "--progress", "none"]
    for command in (["export", "--run", str(directory), "--no-precisions"], ["prelabel", "run", *words, *options]):
        with directory.with_suffix(".log").open("a") as log:
            done = subprocess.run([sys.executable, "-m", *command], stdout=log, stderr=log)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: see {directory.with_suffix('.log')}")


def second_round(seed: int, method: Method, first: NDArray[np.int64], source: IdxSource) -> NDArray[np.int64]:
    """Returns the positions of the images to label next, int64 [COUNT], none of them among the first."""
    if method == "random":
        others = np.setdiff1d(np.arange(len(source)), first)
        return np.random.default_rng([seed, COUNT, 2]).choice(others, COUNT, replace=False)
    predictions = RUNS / f"first-{seed}" / "predictions"
    ids = read_predictions(predictions, ["id"])["id"].to_pylist()
    answers = RUNS / f"{method}-{seed}-answers.csv"
    with answers.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "answer"])
        writer.writerows((ids[row], str(labels_of(source)[row])) for row in first.tolist())
    assert method != "first"
    chosen = select_next(predictions, COUNT, NextConfig(method, (answers,)), None)
    return np.array(chosen.rows, np.int64)


def news_of(first_run: Path, chosen: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Returns the share of chosen images that the first round's model has wrong, 0..1."""
    predicted = read_predictions(first_run / "predictions", ["label"])["label"].to_pylist()
    return statistics.mean(predicted[row] != str(labels[row]) for row in chosen.tolist())


def table(content: dict[str, Any]) -> str:
    """Returns the mean errors after each round, against 20 random ones more, over all seeds."""
    lines = [
        "| labels | mean error | worst | wrong before | against random | seeds |",
        "|---|---|---|---|---|---|",
    ]
    errors = {
        method: {one["seed"]: one["error"] for one in content["runs"] if one["method"] == method} for method in METHODS
    }
    for method in METHODS:
        found = errors[method]
        news = [one["news"] for one in content["runs"] if one["method"] == method and one["news"] is not None]
        wrong = f"{100.0 * statistics.mean(news):.0f} %" if news else ""
        verdict = ""
        if method in ("entropy", "margin") and len(found) > 1:
            gains = [errors["random"][seed] - found[seed] for seed in found]
            gain, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
            verdict = f"{gain:+.2f} ± {error:.2f} points" + ("" if gain > 2 * error else " **not better**")
        mean, worst = statistics.mean(found.values()), max(found.values())
        lines.append(f"| {NAMES[method]} | {mean:.2f} % | {worst:.2f} % | {wrong} | {verdict} | {len(found)} |")
    return "\n".join([*lines, "", f"`{content['command']}`, commit {content['commit'][:12]}."])


if __name__ == "__main__":
    main()
