"""Measures the quality figures of README.md and docs/quality.md: `make compare`. Resumes run by run.

Each run is `python -m training` on the embedded MNIST with its own seed, which draws labels, weights and batches. Two
run side by side with one thread each: on two cores that is faster than one after the other. Results go to
docs/results/quality.json after each run; `make docs` renders them.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from scripts import runs
from scripts.provenance import machine

RESULTS = Path("docs/results/quality.json")
RUNS = Path("runs/compare")


@dataclass(frozen=True)
class Variant:
    """A preset, or a change of one: an ablation."""

    preset: str
    title: str
    changes: tuple[str, ...] = ()


FEWER = ("steps=5000",)
CONSTANT = ("pile_ramp=0", "view_decay=0")
NO_GAN = ("generated_batch=0", "unsupervised_weight=0")
MATCHING = (
    "information_weight=0",
    "adversarial_weight=0",
    "generator_loss=feature_matching",
    "unsupervised_weight=1",
)
VARIANTS: dict[str, Variant] = {
    "supervised": Variant("supervised", "plain classifier of the book, labels alone"),
    "book": Variant("book", "SGAN of the book"),
    "default": Variant("default", "prelabel's default"),
    # Up to five labels a class the default has a fifth of the ramp.
    "long-ramp": Variant("default", "default, with few labels a ramp as with many", ("ramp_labels=0",)),
    "half-ramp": Variant(
        "default", "default, with few labels a ramp half as long as with many", ("ramp_labels=0", "pile_ramp=0.08")
    ),
    "wide-labels": Variant("default", "default with 96 labelled images in a step, not 32", ("labelled_batch=96",)),
    "fewer-steps": Variant("default", "default with 5,000 steps", FEWER),
    "constant": Variant(
        "default", "the same, the pile's weight and the strong views alike in each step", (*FEWER, *CONSTANT)
    ),
    "short": Variant("default", "**short default**: 1,000 steps, alike in each step"),
    "ramp": Variant("default", "short default, the pile's weight grows over 16 % of the run", ("pile_ramp=0.16",)),
    "view-decay": Variant(
        "default", "short default, strong views decay to two fifths over the second half", ("view_decay=0.6",)
    ),
    # What each part adds, from the labels alone to the default.
    "labels-augmented": Variant(
        "default",
        "default's D on the labels alone: strong views, moving average",
        (*NO_GAN, "information_weight=0", "adversarial_weight=0", "adversarial_batch=0", "unlabelled_batch=0"),
    ),
    "matching": Variant(
        "default",
        "feature-matching GAN in place of all other losses on the pile, no views, no moving average",
        (*MATCHING, "augment=false", "ema_decay=0"),
    ),
    "matching-ema": Variant("default", "the same with moving average", (*MATCHING, "augment=false")),
    "matching-views": Variant("default", "the same with moving average and views of the labels", MATCHING),
    # One thing changed in the default.
    "no-gan": Variant("default", "default without the GAN", NO_GAN),
    "no-information": Variant("default", "default without mutual information", ("information_weight=0",)),
    "realness-gate": Variant("default", "default with a realness gate", ("realness_gate=true",)),
    "no-adversarial": Variant("default", "default without adversarial views", ("adversarial_weight=0",)),
    "pseudo-labels": Variant(
        "default",
        "default with aligned soft pseudo-labels in place of mutual information",
        (
            "information_weight=0",
            "consistency_weight=3",
            "pile_ramp=0.3",
            "temperature=0.5",
            "align=true",
        ),
    ),
    "pseudo-labels-unaligned": Variant(
        "default",
        "the same, not aligned",
        ("information_weight=0", "consistency_weight=3", "pile_ramp=0.3", "temperature=0.5"),
    ),
    "no-norm": Variant(
        "default", "default without normalisation in D, a third of the step size", ("norm=none", "learning_rate=2e-3")
    ),
    "weight-norm": Variant(
        "default",
        "default with weight normalisation in D, a third of the step size",
        ("norm=weight", "learning_rate=2e-3"),
    ),
    "apart": Variant("default", "default with D's two updates apart", ("fused=false",)),
    "no-ema": Variant("default", "default without moving average", ("ema_decay=0",)),
    "weak-labels": Variant("default", "default with weak views of the labelled images", ("labelled_view=weak",)),
    "feature-matching": Variant("default", "default with feature matching", ("generator_loss=feature_matching",)),
}

WHOLE = ("supervised", "book", "default", "long-ramp", "half-ramp", "wide-labels", "fewer-steps", "constant")
"""Variants that are measured as they are."""
ABLATIONS = tuple(name for name in VARIANTS if name not in WHOLE)
ABLATION_CHANGES = ("steps=1000", *CONSTANT)
"""An ablation has 1,000 steps, so that five draws of each take an hour or two and not a day, and the schedule of its
weights and views is constant; `short` is the default so."""

Run = tuple[str, int, int]
"""Variant, labels, seed."""

PLAN: list[Run] = [
    *(("default", 100, seed) for seed in range(10)),
    *(("supervised", 100, seed) for seed in range(10)),
    *(("book", 100, seed) for seed in range(10)),
    *(("default", 20, seed) for seed in range(10)),
    *(("default", 50, seed) for seed in range(10)),
    *(("default", 1000, seed) for seed in range(10)),
    *((name, 100, seed) for seed in range(5) for name in ABLATIONS),
    *(("wide-labels", 1000, seed) for seed in range(10)),
    *((name, labels, seed) for name in ("long-ramp", "half-ramp") for labels in (20, 50) for seed in range(4)),
    *(("fewer-steps", labels, seed) for labels in (100, 1000) for seed in range(10)),
    *(("constant", labels, seed) for labels in (100, 20, 50, 1000) for seed in range(10)),
    *(("supervised", 10_000, seed) for seed in range(5)),
    *(("supervised", labels, seed) for labels in (20, 50, 1000) for seed in range(10)),
    *(("book", labels, seed) for labels in (20, 50, 1000) for seed in range(5)),
]
"""Every run, the most wanted first."""


@dataclass(frozen=True)
class Options:
    """Train what is missing of the plan and write docs/results/quality.json."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    """Variants to run; results of others are kept."""
    labels: tuple[int, ...] = (20, 50, 100, 1000, 10_000)
    """Numbers of labels to run."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Label draws to run."""
    side_by_side: int = 2
    """Runs at the same time, one thread each; 1 gives a run all cores."""


def main() -> None:
    """Runs what is missing and writes the results after each run."""
    options = tyro.cli(Options, prog="python -m scripts.compare")
    known = {key(entry) for entry in runs.load(RESULTS)}
    plan = [
        run
        for run in PLAN
        if run[0] in options.variants and run[1] in options.labels and run[2] in options.seeds and run not in known
    ]
    print(f"{len(plan)} runs to do, {len(known)} done")

    def train(run: Run) -> runs.Entry:
        name, labels, seed = run
        variant = VARIANTS[name]
        arguments = ["--data", "data/mnist", "--preset", variant.preset, "--labels", str(labels), "--seed", str(seed)]
        changes = [*(ABLATION_CHANGES if name in ABLATIONS else ()), *variant.changes]
        runs.train(directory(run), [*arguments, *(["--change", *changes] if changes else [])], options.side_by_side)
        return result(run)

    runs.measure(plan, train, RESULTS, "make compare", lambda entry: PLAN.index(key(entry)), options.side_by_side)


def directory(run: Run) -> Path:
    """Returns the folder of a run."""
    return RUNS / "-".join(map(str, run))


def key(entry: runs.Entry) -> Run:
    """Returns which run of the plan an entry of the results is."""
    return entry["variant"], entry["labels"], entry["seed"]


def result(run: Run) -> runs.Entry:
    """Returns a finished run's entry in the results."""
    # Here: it imports TensorFlow, which rendering the results need not wait for.
    from training.recorder import read_metrics

    training = runs.read_json(directory(run) / "training.json")
    config = runs.read_json(directory(run) / "config.json")
    rows = read_metrics(directory(run) / "metrics.csv")
    return {
        "dataset": "mnist",
        "variant": run[0],
        "preset": training["preset"],
        "labels": training["labels"],
        "seed": training["seed"],
        "test_error": 100.0 * (1.0 - training["test_accuracy"]),
        "hidden_error": 100.0 * (1.0 - training["hidden_accuracy"]),
        "seconds": training["seconds"],
        "steps": training["steps"],
        "peak_memory_bytes": training["peak_memory_bytes"],
        "memory_above_import_bytes": training["memory_above_import_bytes"],
        "config": config["options"]["recipe"],
        "commit": training["commit"],
        "machine": machine(),
        "curve": [[int(r["step"]), round(r["hidden_accuracy"], 4)] for r in rows if "hidden_accuracy" in r],
    }


if __name__ == "__main__":
    main()
