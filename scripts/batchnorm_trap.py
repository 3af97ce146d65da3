"""Measures what a frozen BatchNormalization does to the book's code on today's Keras. Resumes run by run.

Chapter 7's SGAN is three compiled models over two networks. `discriminator_unsupervised.trainable = False`, written
between the second and the third compile(), once froze D's weights in the third model alone. Keras 3 reads the flag when
a model is first trained, so the line does more than it says; `VARIANTS` tells what. All variants start from the same
weights and see the same labels and the same batches of images. Results go to docs/results/batchnorm.json, the picture
to docs/images/batchnorm.png.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_atomically, write_text_atomically
from scripts.provenance import provenance
from training.batches import BalancedSampler, EpochSampler
from training.config import Options as TrainingOptions
from training.dataset import load_dataset
from training.recipe import PRESETS

DATA = Path("data/mnist")
LABELS = 100
COMMAND = "python -m scripts.batchnorm_trap"

Variant = Literal["port", "port-toggled", "port-untrapped", "ours"]
Run = dict[str, Any]
"""variant, seed, steps (list), accuracy (list, 0..1, on hidden labels, after each of `steps`), seconds, commit."""

VARIANTS: dict[Variant, str] = {
    # The flag is on the layers that all three models share, and each model is traced at its first train_on_batch, after
    # the flag was set. D has no trainable weights in its own updates either, and its BatchNormalization is always in
    # inference mode: only G learns, from a D of initial weights. The warning for a flag that changed after compile()
    # cannot be reached in Keras 3.15.1; "The model does not have any trainable weights" is the one hint.
    "port": "the book's code, line by line",
    # The usual repair: the flag is True around D's updates and False around G's. D learns, from the statistics of each
    # batch; G's update sees another function, a D in inference mode with moving statistics. That is the trap.
    "port-toggled": "the same, trainable toggled around each call",
    # The control, equal to `port-toggled` but for that: no flag, and D in G's update has the statistics of the batch.
    "port-untrapped": "the same, D with batch statistics in G's update",
    "ours": "training.step",
}
"""Variants with their titles in the picture."""


@dataclass(frozen=True)
class Options:
    """Train the book's SGAN on 100 labels of MNIST with and without the BatchNormalization trap."""

    steps: int = 1000
    """Training steps of a run."""
    seeds: tuple[int, ...] = (0, 1)
    """Each decides label draw, initial weights, batches and noise of one run of each variant."""
    every: int = 100
    """Steps between evaluations on hidden labels."""
    variants: tuple[Variant, ...] = tuple(VARIANTS)
    """Variants to run; results of others are kept."""
    results: Path = Path("docs/results/batchnorm.json")
    """Where results go, and which runs are finished."""
    image: Path = Path("docs/images/batchnorm.png")
    """Where the picture goes."""

    def evaluated_steps(self) -> list[int]:
        """Returns the steps after which accuracy is measured, the last among them."""
        if min(self.steps, self.every) < 1:
            raise InputError(f"--steps {self.steps} and --every {self.every} must be 1 or more")
        return [*range(self.every, self.steps, self.every), self.steps]


def main() -> None:
    """Runs what is missing; writes the results and the picture after each run."""
    options = tyro.cli(Options, prog=COMMAND)
    steps = options.evaluated_steps()
    for path in (options.results, options.image):
        path.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for variant in options.variants:
            finished = read_runs(options.results, steps)
            if any((run["variant"], run["seed"]) == (variant, seed) for run in finished):
                continue
            started = time.monotonic()
            accuracy = train_ours(seed, options) if variant == "ours" else train_port(variant, seed, steps)
            seconds = time.monotonic() - started
            run = {"variant": variant, "seed": seed, "steps": steps, "accuracy": accuracy, "seconds": seconds}
            add_run(options.results, run)
            print(f"{variant}, seed {seed}: {100 * accuracy[-1]:.2f} % in {seconds:.0f} s", flush=True)
    plot(options.image, read_runs(options.results, steps))


def train_port(variant: Variant, seed: int, steps: Sequence[int]) -> list[float]:
    """Trains by the book's loop, with the book's names; returns the accuracies on hidden labels after `steps`."""
    # Imported here, as in `train_ours`: results are read and plotted without the seconds that TensorFlow takes.
    import keras

    from training.evaluate import Classifier
    from training.loop import HIDDEN_IMAGES
    from training.models import build_discriminator, build_generator

    keras.utils.set_random_seed(seed)
    recipe = PRESETS["book"]
    dataset = load_dataset(DATA, label_count=LABELS, seed=seed)
    data = dataset.training
    assert dataset.hidden is not None
    discriminator = build_discriminator(data.spec, len(data.classes), recipe, seed)
    generator = build_generator(data.spec, recipe, seed + 1)

    discriminator_net = keras.Model(discriminator.input, discriminator.outputs[0])
    discriminator_supervised = keras.Sequential([discriminator_net, keras.layers.Activation("softmax")])
    discriminator_supervised.compile(loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam())

    def predict(x: Any) -> Any:
        return 1.0 - (1.0 / (keras.ops.sum(keras.ops.exp(x), axis=-1, keepdims=True) + 1.0))

    discriminator_unsupervised = keras.Sequential([discriminator_net, keras.layers.Lambda(predict)])
    discriminator_unsupervised.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam())

    def call_with_batch_statistics(images: Any) -> Any:
        model = discriminator_unsupervised
        trainable = [variable.value for variable in model.trainable_variables]
        other = [variable.value for variable in model.non_trainable_variables]
        return model.stateless_call(trainable, other, images, training=True)[0]

    if variant == "port-untrapped":
        # A Lambda does not own the weights of what it calls, so `gan` trains G's alone.
        gan = keras.Sequential([generator, keras.layers.Lambda(call_with_batch_statistics, output_shape=(1,))])
    else:
        discriminator_unsupervised.trainable = False
        gan = keras.Sequential([generator, discriminator_unsupervised])
    gan.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam())

    classifier = Classifier(discriminator)
    labelled = BalancedSampler(data.labels, recipe.labelled_batch, seed)
    unlabelled = EpochSampler(len(data.unlabelled), recipe.unlabelled_batch, seed)
    noise = np.random.default_rng([seed, 0x5EED])
    real, fake = np.ones((recipe.unlabelled_batch, 1)), np.zeros((recipe.generated_batch, 1))
    accuracies = []
    for number in range(steps[-1]):
        chosen = labelled.positions(number)
        imgs, labels = data.labelled[chosen] / np.float32(127.5) - 1, data.labels[chosen]
        imgs_unlabeled = data.unlabelled[unlabelled.positions(number)] / np.float32(127.5) - 1
        z = noise.standard_normal((2, recipe.generated_batch, recipe.latent_size), np.float32)
        gen_imgs = generator.predict_on_batch(z[0])  # what the book's `predict` returns, sooner
        if variant == "port-toggled":
            discriminator_unsupervised.trainable = True
        discriminator_supervised.train_on_batch(imgs, labels)
        discriminator_unsupervised.train_on_batch(imgs_unlabeled, real)
        discriminator_unsupervised.train_on_batch(gen_imgs, fake)
        if variant == "port-toggled":
            discriminator_unsupervised.trainable = False
        gan.train_on_batch(z[1], np.ones((recipe.generated_batch, 1)))
        if number + 1 in steps:
            accuracies.append(classifier.accuracy(dataset.hidden, HIDDEN_IMAGES))
    return accuracies


def train_ours(seed: int, options: Options) -> list[float]:
    """Trains by `training.train`, whose curve is of the same hidden images; returns the same as `train_port`."""
    from training.recorder import read_metrics
    from training.train import train

    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "run"
        train(
            TrainingOptions(
                data=DATA,
                output=output,
                labels=LABELS,
                preset="book",
                seed=seed,
                steps=options.steps,
                evaluate_every=options.every,
                checkpoint_every=options.steps,
                progress="none",
            )
        )
        return [row["hidden_accuracy"] for row in read_metrics(output / "metrics.csv") if "hidden_accuracy" in row]


def read_runs(path: Path, steps: list[int]) -> list[Run]:
    """Returns the finished runs; no file is an empty list.

    Raises:
        InputError: A run was evaluated after other steps.
    """
    runs: list[Run] = json.loads(path.read_text())["runs"] if path.exists() else []
    for run in runs:
        if run["steps"] != steps:
            raise InputError(
                f"{path} holds {run['variant']}, seed {run['seed']}, evaluated after {len(run['steps'])} steps up to "
                f"{run['steps'][-1]}, not {len(steps)} up to {steps[-1]}: give its --steps and --every, or remove it"
            )
    return runs


def add_run(path: Path, run: Run) -> None:
    """Adds a run to the results, in the order of variants and seeds."""
    origin = provenance(COMMAND)
    runs = [*read_runs(path, run["steps"]), {**run, "commit": origin["commit"]}]
    runs.sort(key=lambda run: (list(VARIANTS).index(run["variant"]), run["seed"]))
    versions = {name: version(name) for name in ("keras", "tensorflow")}
    content = {**origin, "versions": versions, "dataset": "mnist", "labels": LABELS, "preset": "book", "runs": runs}
    write_text_atomically(path, json.dumps(content, indent=1) + "\n")


def table(content: dict[str, Any]) -> str:
    """Returns the accuracies after a quarter of the steps, after half, and at the end, a line for each variant."""
    runs: list[Run] = content["runs"]
    steps = runs[0]["steps"]
    shown = [-(-len(steps) * part // 4) - 1 for part in (1, 2, 4)]
    lines = [
        f"| the book's SGAN, {content['labels']} labels | {' | '.join(f'{steps[i]:,} steps' for i in shown)} | draws |",
        "|---|---|---|---|---|",
    ]
    for variant, title in VARIANTS.items():
        curves = [run["accuracy"] for run in runs if run["variant"] == variant]
        if not curves:
            continue
        cells = [
            f"{100 * statistics.mean(curve[i] for curve in curves):.1f} % "
            f"({' '.join(f'{100 * curve[i]:.1f}' for curve in curves)})"
            for i in shown
        ]
        lines.append(f"| {title} | {' | '.join(cells)} | {len(curves)} |")
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    commits = ", ".join(sorted({run["commit"][:12] for run in runs}))
    return "\n".join([*lines, "", f"`{content['command']}`, commits {commits}; {versions}. Accuracy on hidden labels."])


def plot(path: Path, runs: list[Run]) -> None:
    """Draws accuracy over steps into a PNG: each seed as a thin line, the mean of a variant as a thick one."""
    # The Figure class needs no display; see `training.recorder`.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for position, (variant, title) in enumerate(VARIANTS.items()):
        chosen = [run for run in runs if run["variant"] == variant]
        if not chosen:
            continue
        curves = [[100.0 * value for value in run["accuracy"]] for run in chosen]
        for curve in curves:
            axes.plot(chosen[0]["steps"], curve, color=f"C{position}", linewidth=0.8, alpha=0.5)
        means = [statistics.mean(values) for values in zip(*curves, strict=True)]
        axes.plot(chosen[0]["steps"], means, color=f"C{position}", linewidth=2.5, label=f"{variant}: {title}")
    axes.set_title(f"The book's SGAN, {LABELS} labels of MNIST: each seed, and the mean")
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy on hidden labels, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))


if __name__ == "__main__":
    try:
        main()
    except PrelabelError as error:
        sys.exit(f"batchnorm_trap: {error}")
