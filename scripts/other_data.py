"""Measures the default preset, unchanged, on data that it was not tuned on: `make other-data`. Resumes run by run.

Each composed set (scripts.composed_sets) is trained with `default` and with the same D on the labels alone under the
same augmentation. Results go to docs/results/other_data.json; `make docs` renders them.
"""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from prelabel.files import write_text_atomically
from scripts.compare import VARIANTS
from scripts.provenance import provenance

RESULTS = Path("docs/results/other_data.json")
SETS = Path("runs/composed")
RUNS = Path("runs/other-data")

LABELS = {
    "letters": (130, 520),
    "colour-digits-32": (100, 500),
    "shapes-64": (60, 300),
    "binary-64": (20, 100),
    "glyphs-100": (500, 2000),
    "unbalanced-digits": (100,),
    "polluted-digits": (100,),
}
"""Numbers of labels for each set: 5 to 50 a class."""

BASELINE = "labels-augmented"
TOLERATED_POINTS = 0.5
"""The default should nowhere be worse than the baseline by more."""

Run = tuple[str, str, int, int]
"""Set, variant, labels, seed."""
PLAN: list[Run] = [
    (name, variant, labels, seed)
    for seed in range(3)
    for name, counts in LABELS.items()
    for labels in counts
    for variant in (BASELINE, "default")
]


@dataclass(frozen=True)
class Options:
    """Train what is missing of the plan and write docs/results/other_data.json."""

    sets: tuple[str, ...] = tuple(LABELS)
    """Sets to run; results of others are kept."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Label draws to run."""
    side_by_side: int = 2
    """Runs at the same time, one thread each."""


def main() -> None:
    """Composes the sets, runs what is missing, writes the results after each run."""
    options = tyro.cli(Options, prog="python -m scripts.other_data")
    known = {key(entry) for entry in load()}
    plan = [run for run in PLAN if run[0] in options.sets and run[3] in options.seeds and run not in known]
    print(f"{len(plan)} runs to do, {len(known)} done", flush=True)
    compose = [sys.executable, "-m", "scripts.composed_sets", "--output", str(SETS), "--sets", *options.sets]
    subprocess.run(compose, check=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.side_by_side) as pool:
        for run in pool.map(train, plan):
            entries = [*(entry for entry in load() if key(entry) != run), result(run)]
            entries.sort(key=lambda entry: PLAN.index(key(entry)))
            content = {**provenance("make other-data"), "runs": entries}
            write_text_atomically(RESULTS, json.dumps(content, indent=1) + "\n")


def train(run: Run) -> Run:
    """Runs one training, or goes on with it."""
    name, variant, labels, seed = run
    changes = VARIANTS[variant].changes
    command = [
        sys.executable, "-m", "training", "--data", str(SETS / name), "--labels", str(labels), "--seed", str(seed),
        "--output", str(directory(run)), "--progress", "none", *(("--change", *changes) if changes else ()),
    ]  # fmt: skip
    log = directory(run).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    with log.open("w") as file:
        done = subprocess.run(command, env=environment, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: see {log}")
    print(f"{directory(run).name}: {result(run)['test_error']:.2f} % test error", flush=True)
    return run


def directory(run: Run) -> Path:
    """Returns the folder of a run."""
    return RUNS / "-".join(map(str, run))


def key(entry: dict[str, Any]) -> Run:
    """Returns which run of the plan an entry of the results is."""
    return entry["dataset"], entry["variant"], entry["labels"], entry["seed"]


def result(run: Run) -> dict[str, Any]:
    """Returns a finished run's entry in the results."""
    training = json.loads((directory(run) / "training.json").read_text())
    config = json.loads((directory(run) / "config.json").read_text())
    return {
        "dataset": run[0],
        "variant": run[1],
        "labels": training["labels"],
        "seed": run[3],
        "test_error": 100.0 * (1.0 - training["test_accuracy"]),
        "seconds": training["seconds"],
        "steps": training["steps"],
        "classes": len(config["classes"]),
        "input": config["input"],
        "augment": config["augment"],
        "commit": training["commit"],
    }


def load() -> list[dict[str, Any]]:
    """Returns the runs measured so far."""
    if not RESULTS.exists():
        return []
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text())["runs"]
    return runs


def table(content: dict[str, Any]) -> str:
    """Returns mean test errors by set and number of labels, and where the default does not pay."""
    lines = [
        "| set | image | classes | labels | augmentation | labels alone | `default` | gain | draws |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    runs = content["runs"]
    for name, counts in LABELS.items():
        for labels in counts:
            here = [run for run in runs if (run["dataset"], run["labels"]) == (name, labels)]
            errors = {
                variant: {run["seed"]: run["test_error"] for run in here if run["variant"] == variant}
                for variant in (BASELINE, "default")
            }
            both = sorted(errors[BASELINE].keys() & errors["default"].keys())
            if not both:
                continue
            alone, ours = (statistics.mean(errors[v][seed] for seed in both) for v in (BASELINE, "default"))
            size = "x".join(str(here[0]["input"][side]) for side in ("height", "width", "channels"))
            mark = " **does not pay**" if ours > alone + TOLERATED_POINTS else ""
            lines.append(
                f"| {name} | {size} | {here[0]['classes']} | {labels:,} "
                f"| {here[0]['augment']} | {alone:.2f} % | {ours:.2f} % | {alone - ours:+.2f}{mark} | {len(both)} |"
            )
    commits = ", ".join(sorted({run["commit"][:12] for run in runs}))
    return "\n".join([*lines, "", f"`{content['command']}`, commits {commits}."])


if __name__ == "__main__":
    main()
