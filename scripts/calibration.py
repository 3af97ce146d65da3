"""Measures how far the answers of exported runs can be trusted: calibration, and what is foreign to them.

For each run folder with a `bundle/`, with the engine of `prelabel.engine` on MNIST:

1. One temperature is fitted on training images whose labels were hidden from the run. Their pixels were in its pile.
2. The test split gives ECE, NLL and Brier score, before and after that temperature.
3. Three scores, computed from the answers as they are, rank test images against images unlike those of the training:
   `realness`, the largest probability, and the negative entropy. AUROC says how well.

The test split is read for reporting only: nothing is chosen on it. Results go to docs/results/calibration.json, the
pictures to docs/images/reliability.png and docs/images/ood.png.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from numpy.typing import NDArray

from prelabel.calibration import (
    BINS,
    auroc,
    brier_score,
    entropy,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from prelabel.engine import Engine, load_engine
from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch
from prelabel.temperature import apply_temperature, fit_temperature
from scripts.calibration_page import Run, plot_ood, plot_reliability
from scripts.provenance import provenance
from training.dataset import Evaluation, load_dataset, load_test
from training.splits import find_splits

COMMAND = "python -m scripts.calibration"
BATCH = 500

SCORES: dict[str, Callable[[PredictionBatch], NDArray[np.floating[Any]]]] = {
    "realness": lambda answers: answers.realness,
    "max_probability": lambda answers: answers.confidence,
    "negative_entropy": lambda answers: -entropy(answers.probabilities),
}
"""Scores that should be higher for images like those of the training, float [n] of n answers."""


@dataclass(frozen=True)
class Options:
    """Measure calibration and out-of-distribution scores of exported runs on MNIST.

    Example: python -m scripts.calibration runs/compare/default-100-?
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders with bundle/ in them. None: only draw the pictures again."""
    data: Path = Path("data/mnist")
    """The data set that the runs were trained on."""
    held_out: int = 1000
    """Hidden labels to fit the temperature on: as many as a user could label for it; the fit has one parameter."""
    outside: int = 2000
    """Images of each out-of-distribution set: with 10,000 test images the standard error of AUROC is under .01."""
    seed: int = 0
    """Decides the draw of held-out labels and the out-of-distribution images."""
    threads: int = 1
    """Threads of the engine; one, because sums in another order differ in the last digits. 0: all cores."""
    results: Path = Path("docs/results/calibration.json")
    """Where the figures go."""
    reliability_image: Path = Path("docs/images/reliability.png")
    """Where the reliability diagram goes."""
    ood_image: Path = Path("docs/images/ood.png")
    """Where the picture of AUROC goes."""


def main() -> None:
    """Measures every run, then writes results and pictures."""
    options = tyro.cli(Options, prog=COMMAND)
    for path in (options.results, options.reliability_image, options.ood_image):
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.runs:
        write_text_atomically(options.results, json.dumps(collect(options), indent=1) + "\n")
    elif not options.results.exists():
        raise InputError(f"there are neither runs nor {options.results}: name run folders that hold a bundle")
    runs = json.loads(options.results.read_text())["runs"]
    plot_reliability(options.reliability_image, runs)
    plot_ood(options.ood_image, runs)


def collect(options: Options) -> dict[str, Any]:
    """Measures all runs; returns the results with where they come from."""
    if options.outside < 1:
        raise InputError(f"--outside {options.outside}: 1 image or more wanted")
    # The same images for every run.
    outside = {name: make(options.outside, options.seed) for name, make in outside_sets(options.data).items()}
    runs = []
    for folder in options.runs:
        engine = load_engine(folder / "bundle", "cpu", options.threads, runtime="onnxruntime", precision="float32")
        run = measure(engine, outside, options)
        print(
            f"{folder}: temperature {run['temperature']:.3f}, "
            + ", ".join(f"{name} {run['before'][name]:.4f} -> {run['after'][name]:.4f}" for name in run["before"])
            + "".join(f", AUROC of {name} {statistics.mean(run['auroc'][name].values()):.3f}" for name in SCORES),
            flush=True,
        )
        runs.append(run)
    return {
        **provenance(f"{COMMAND} {' '.join(f.name if f.is_absolute() else str(f) for f in options.runs)}"),
        "dataset": "mnist",
        "held_out_images": options.held_out,
        "test_images": runs[0]["test_images"],
        "outside_images": options.outside,
        "seed": options.seed,
        "bins": BINS,
        "runs": runs,
    }


def outside_sets(data: Path) -> dict[str, Callable[[int, int], Pixels]]:
    """Returns the out-of-distribution sets: name -> function of (n, seed) that makes uint8 [n, 28, 28, 1], 0..255."""
    # Imported here: matplotlib, whose fonts the letters come from, takes a second that `--help` need not wait for.
    from scripts.composed.foreign import Foreign, foreign_images

    def maker(kind: Foreign) -> Callable[[int, int], Pixels]:
        return lambda count, seed: foreign_images(kind, count, seed, data)

    return {kind: maker(kind) for kind in get_args(Foreign)}


def measure(engine: Engine, outside: dict[str, Pixels], options: Options) -> Run:
    """Returns the figures of one model.

    Args:
        engine: The model.
        outside: Set -> out-of-distribution images, uint8 [n, H, W, C].
        options: What to measure on.

    Returns:
        run, preset, labels, seed, steps, commit, model_id: whose figures they are; test_images, accuracy: on the test
        split; temperature; before, after: ece, nll, brier on the test split; reliability: before and after, the bins;
        auroc: score -> set -> 0..1; share_at_maximum: score -> share of test images that all have the largest score.

    Raises:
        InputError: The run saw other data, or all labels.
    """
    held_out, test = load_evaluations(engine, options)
    answers, test_answers = predict(engine, held_out.images), predict(engine, test.images)
    temperature = fit_temperature(answers.probabilities, held_out.labels)
    before = test_answers.probabilities
    after = apply_temperature(before, temperature)
    outside_answers = {name: predict(engine, images) for name, images in outside.items()}
    inside = {name: score(test_answers) for name, score in SCORES.items()}
    training = engine.bundle.training
    return {
        "run": engine.bundle.name,
        "preset": training["options"]["preset"],
        "labels": sum(training["label_counts"]),
        "seed": training["options"]["seed"],
        "steps": training["step"],
        "commit": training["commit"],
        "model_id": engine.bundle.model_id,
        "test_images": len(test.labels),
        "accuracy": float((test_answers.label_index == test.labels).mean()),
        "temperature": temperature,
        "before": figures(before, test.labels),
        "after": figures(after, test.labels),
        "reliability": {
            name: [dataclasses.asdict(one) for one in reliability_bins(probabilities, test.labels)]
            for name, probabilities in (("before", before), ("after", after))
        },
        "auroc": {
            name: {kind: auroc(inside[name], score(those)) for kind, those in outside_answers.items()}
            for name, score in SCORES.items()
        },
        "share_at_maximum": {name: float((scores == scores.max()).mean()) for name, scores in inside.items()},
    }


def load_evaluations(engine: Engine, options: Options) -> tuple[Evaluation, Evaluation]:
    """Returns images with labels that the run did not see: some of its training images, and the test split."""
    training = engine.bundle.training
    trained = training["options"]
    name = engine.bundle.name
    if trained["labels"] is None:
        raise InputError(f"run {name} saw all labels: to hold some out for the temperature, train it with --labels")
    dataset = load_dataset(
        options.data,
        label_count=trained["labels"],
        seed=trained["seed"],
        image_size=trained["image_size"],
        max_unlabelled=trained["max_unlabelled"],
    )
    if dataset.manifest_hash != training["manifest_hash"]:
        raise InputError(f"run {name} was trained on other data than {options.data}: give its data with --data")
    assert dataset.hidden is not None
    if not 1 <= options.held_out <= len(dataset.hidden.labels):
        raise InputError(f"--held-out {options.held_out}: 1 to {len(dataset.hidden.labels)} labels were hidden")
    generator = np.random.default_rng([options.seed, trained["seed"], 0x7E39])
    chosen = generator.choice(len(dataset.hidden.labels), options.held_out, replace=False)
    test_source = find_splits(options.data)[1]
    test, skipped = (None, ()) if test_source is None else load_test(test_source, dataset.training)
    if test is None or skipped:
        raise InputError(f"--data {options.data} has no test split, or one that cannot be read whole {skipped[:1]}")
    return Evaluation(dataset.hidden.images[chosen], dataset.hidden.labels[chosen]), test


def predict(engine: Engine, images: Pixels) -> PredictionBatch:
    """Classifies uint8 [n, H, W, C], 0..255, in batches."""
    parts = [engine.predict(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return PredictionBatch(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.realness for part in parts]),
        engine.bundle.model_id,
    )


def figures(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int32]) -> dict[str, float]:
    """Returns the calibration figures of probabilities [n, K] for labels [n]."""
    return {
        "ece": expected_calibration_error(probabilities, labels),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier_score(probabilities, labels),
    }


if __name__ == "__main__":
    try:
        main()
    except PrelabelError as error:
        sys.exit(f"calibration: {error}")
