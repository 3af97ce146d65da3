"""Measures the default preset, unchanged, on data other than MNIST: `make other-data`. Resumes run by run.

Each composed set (scripts.composed_sets) is trained with `default` and with the same D on the labels alone under the
same augmentation. Results go to docs/results/other_data.json; `make docs` renders them.
"""

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from scripts import runs
from scripts.compare import VARIANTS

RESULTS = Path("docs/results/other_data.json")
SETS = Path("runs/composed")
RUNS = Path("runs/other-data")

LABELS = {
    "letters": (130, 520),
    "colour-letters-32": (100, 500),
    "colour-digits-32": (100, 200, 500),
    "shapes-64": (60, 300),
    "binary-64": (20, 100),
    "glyphs-100": (500, 2000),
    "digit-halves": (20, 100),
    "unbalanced-digits": (100,),
    "polluted-digits": (100,),
    "optical-digits-8": (50, 100),
}
"""Numbers of labels for each set: 5 to 50 a class."""

BASELINE = "labels-augmented"
TOLERATED_POINTS = 0.5
"""The default should nowhere be worse than the baseline by more."""

Run = tuple[str, str, int, int]
"""Set, variant, labels, seed."""
PLAN: list[Run] = [
    (name, variant, counts[rank], seed)
    for seed in range(3)
    for rank in range(max(map(len, LABELS.values())))
    for name, counts in LABELS.items()
    if rank < len(counts)
    for variant in (BASELINE, "default")
]
"""Every run: each set with few labels first, then with more, then the next draw."""


@dataclass(frozen=True)
class Options:
    """Train what is missing of the plan and write docs/results/other_data.json."""

    sets: tuple[str, ...] = tuple(LABELS)
    """Sets to run; results of others are kept."""
    labels: tuple[int, ...] = tuple(sorted({count for counts in LABELS.values() for count in counts}))
    """Numbers of labels to run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Label draws to run."""
    side_by_side: int = 2
    """Runs at the same time, one thread each; 1 gives a run all cores."""


def main() -> None:
    """Composes the sets, runs what is missing, writes the results after each run."""
    options = tyro.cli(Options, prog="python -m scripts.other_data")
    known = {key(entry) for entry in runs.load(RESULTS)}
    plan = [
        run
        for run in PLAN
        if run[0] in options.sets and run[2] in options.labels and run[3] in options.seeds and run not in known
    ]
    print(f"{len(plan)} runs to do, {len(known)} done", flush=True)
    compose = [sys.executable, "-m", "scripts.composed_sets", "--output", str(SETS), "--sets", *options.sets]
    subprocess.run(compose, check=True)

    def train(run: Run) -> runs.Entry:
        name, variant, labels, seed = run
        arguments = ["--data", str(SETS / name), "--labels", str(labels), "--seed", str(seed)]
        changes = ["--change", *VARIANTS[variant].changes] if VARIANTS[variant].changes else []
        runs.train(directory(run), [*arguments, *changes], options.side_by_side)
        return result(run)

    runs.measure(plan, train, RESULTS, "make other-data", lambda entry: PLAN.index(key(entry)), options.side_by_side)


def directory(run: Run) -> Path:
    """Returns the folder of a run."""
    return RUNS / "-".join(map(str, run))


def key(entry: runs.Entry) -> Run:
    """Returns which run of the plan an entry of the results is."""
    return entry["dataset"], entry["variant"], entry["labels"], entry["seed"]


def result(run: Run) -> runs.Entry:
    """Returns a finished run's entry in the results."""
    training = runs.read_json(directory(run) / "training.json")
    config = runs.read_json(directory(run) / "config.json")
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
        "pile_weight": training["pile_weight"],
        "commit": training["commit"],
    }


def table(content: dict[str, Any]) -> str:
    """Returns mean test errors by set and number of labels, and where the default does not pay."""
    lines = [
        "| set | image | classes | labels | views | pile weight | steps | labels alone | `default` | gain | draws |",
        "|" + "---|" * 11,
    ]
    entries = content["runs"]
    for name, counts in LABELS.items():
        for labels in counts:
            here = [run for run in entries if (run["dataset"], run["labels"]) == (name, labels)]
            errors = {
                variant: {run["seed"]: run["test_error"] for run in here if run["variant"] == variant}
                for variant in (BASELINE, "default")
            }
            both = sorted(errors[BASELINE].keys() & errors["default"].keys())
            if not both:
                continue
            alone, ours = (statistics.mean(errors[v][seed] for seed in both) for v in (BASELINE, "default"))
            pairs = [run for run in here if run["variant"] == "default" and run["seed"] in both]
            # Where images have a plain border the pile weighs all: runs of older commits do not say it.
            weight = statistics.mean(run.get("pile_weight", 1.0) for run in pairs)
            steps = " ".join(f"{count:,}" for count in sorted({run["steps"] for run in pairs}))
            size = "x".join(str(here[0]["input"][side]) for side in ("height", "width", "channels"))
            mark = " **does not pay**" if ours > alone + TOLERATED_POINTS else ""
            lines.append(
                f"| {name} | {size} | {here[0]['classes']} | {labels:,} | {here[0]['augment']} | {weight:.2g} "
                f"| {steps} | {alone:.2f} % | {ours:.2f} % | {alone - ours:+.2f}{mark} | {len(both)} |"
            )
    commits = ", ".join(sorted({run["commit"][:12] for run in entries}))
    return "\n".join([*lines, "", f"`{content['command']}`, commits {commits}."])


if __name__ == "__main__":
    main()
