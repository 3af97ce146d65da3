"""The training loop: data, networks, steps, checkpoints, evaluation, in the order in which they happen.

Resuming, in order:
1. The folder's config.json must be of the same options and the same data (`training.run`); else it is an error, or
   `--overwrite` starts over.
2. A run with training.json is finished; its summary is returned.
3. Otherwise the newest checkpoint gives every variable, the step, and the metrics summed since the last row.
4. Rows and samples written after that checkpoint are dropped; batches and noise depend on (seed, step) alone, so the
   rows that follow are those of an uninterrupted run.
"""

import contextlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from prelabel.errors import InputError, TrainingError
from prelabel.files import write_text_atomically
from prelabel.images import Pixels
from prelabel.progress import Progress
from training.augment import choose_kind, fitted
from training.batches import BalancedSampler, EpochSampler
from training.budget import TIMED_STEPS, Budget
from training.checkpoint import list_checkpoints, load_checkpoint, read_meta, save_checkpoint
from training.config import Options
from training.dataset import load_dataset, load_test
from training.distribute import check_shares, is_chief, make_strategy, mean_over_hosts
from training.evaluate import Classifier
from training.health import Watch
from training.memory import peak_memory_bytes, too_little_memory
from training.precision import choose_precision, precision
from training.prior import class_prior
from training.probe import pile_skill
from training.recipe import Recipe, labels_alone, overridden_changes
from training.recorder import SAMPLES_PER_ROW, Recorder, Row, plot_curves
from training.run import check_same_run, describe, finished_run, hold_folder, open_run
from training.state import Settler, State, build_state
from training.step import make_step
from training.trust import is_guarded, with_fitted_ramp, worth

logger = logging.getLogger(__name__)

ROW_EVERY = 50
"""Steps between rows of metrics.csv."""
HIDDEN_IMAGES = 5000
"""Images of the evaluation during training: +- 0.2 points, a second of computing."""
SHOWN_SKIPPED = 5
"""Images that could not be used that are named in the log."""

Summary = dict[str, Any]


def train(options: Options) -> Summary:
    """Runs or resumes a training and returns its summary, as written to training.json.

    Raises:
        InputError: An option or the data cannot be used, or the folder holds another run, or one that is going on.
        TrainingError: A loss is not finite, a checkpoint cannot be read, or the device has too little memory.
    """
    recipe = options.recipe()
    strategy = make_strategy(options.strategy)
    check_shares(recipe, strategy.num_replicas_in_sync)
    if options.minutes and options.strategy == "multi-worker":
        raise InputError("--minutes does not go with --strategy multi-worker: its hosts take the same --steps")
    # Of several hosts one writes the folder, and holds it.
    with hold_folder(options) if is_chief(strategy) else contextlib.nullcontext():
        try:
            return _train(options, recipe, strategy)
        except tf.errors.ResourceExhaustedError as error:
            raise too_little_memory(error.message, recipe) from error


def _train(options: Options, recipe: Recipe, strategy: tf.distribute.Strategy) -> Summary:
    """See `train`; the folder is this process's own."""
    imported_bytes = peak_memory_bytes()
    chief = is_chief(strategy)

    # Data: what training may see, what only evaluation may see.
    dataset = load_dataset(
        options.data,
        label_count=options.labels,
        seed=options.seed,
        image_size=options.image_size,
        max_unlabelled=options.max_unlabelled,
        progress=options.progress,
    )
    data = dataset.training
    warn_of_skipped(dataset.skipped, "images")
    kind = options.augment
    if kind == "auto":
        kind = choose_kind(data.unlabelled, data.labelled, data.labels)
    recipe = fitted(recipe, kind)
    recipe = with_fitted_ramp(recipe, len(data.labels), len(data.classes))
    for overridden in overridden_changes(options.change, options.recipe(), recipe):
        logger.warning("%s", overridden)
    prior = class_prior(options.class_prior, data.classes, data.labels)  # an error here leaves the folder unclaimed
    if options.class_prior == "labelled" and options.labels is not None:
        logger.warning("--class-prior labelled is balanced here: --labels draws the same number for each class")
    meta = describe(options, dataset, kind, recipe)
    finished = open_run(options, meta) if chief else None
    # Other hosts look into the folder when the chief has claimed it, and removed what `--overwrite` removes.
    if mean_over_hosts(strategy, float(finished is not None)) > 0.0 and finished is None:
        finished = finished_run(options.output)
    if finished is not None:
        logger.info("%s is finished already: test accuracy %s", options.output, finished["test_accuracy"])
        return finished
    logger.info(
        "%d labelled, %d unlabelled images, %s, %d classes, augmentation %s, step size %g",
        len(data.labelled), len(data.unlabelled), "x".join(map(str, data.spec.shape)), len(data.classes), kind,
        recipe.learning_rate,
    )  # fmt: skip

    # What the pile is worth, where it does not go without saying.
    pile_worth, elapsed_s = None, 0.0
    if is_guarded(kind, data.unlabelled, recipe):
        known, elapsed_s = pile_skill(options, data, recipe, kind, strategy)
        pile_worth = worth(known)
        way = f"{100.0 * known.value:.0f} % of the way from chance to no errors, give or take {100.0 * known.error:.0f}"
        logger.info("of labels that it did not see, D knows %s; the pile weighs up to %.2g", way, pile_worth)
        if pile_worth == 0.0:
            recipe = labels_alone(recipe)
            hues = "recoloured" in kind
            logger.warning(
                "these labels teach D too little to gain from the pile (%s): it learns from the labels alone, without "
                "a generator, and its realness says little; label more images%s",
                way, ", or, if colour names the classes, keep it: --augment natural, or digits" if hues else "",
            )  # fmt: skip

    if options.class_prior != "balanced" and not (
        recipe.information_weight or (recipe.consistency_weight and recipe.align)
    ):
        logger.warning(
            "--class-prior %s changes nothing here: no loss looks at how often a class is in the pile",
            options.class_prior,
        )

    meta["pile_weight"] = 1.0 if pile_worth is None else pile_worth

    # Networks, and the state they are in.
    # Layers are numbered through a process, and their names decide in which order TensorFlow adds up: without this, a
    # second training in one process would round otherwise than the first.
    keras.utils.clear_session()
    keras.utils.set_random_seed(options.seed)
    with strategy.scope(), precision(choose_precision(options.precision)):
        state = build_state(data, recipe, options.seed)
        step = make_step(state, data, recipe, kind, options.seed, options.class_prior, pile_worth)
    start = 0
    sums: dict[str, float] = {}
    if existing := list_checkpoints(options.output / "checkpoints"):
        start, sums, elapsed_s = resume(existing, state, meta)
        logger.info("resuming after step %d", start)
    # Of several hosts, one writes the run's folder; what the others write, nobody needs.
    scratch = None if chief else tempfile.TemporaryDirectory(prefix="prelabel-worker-")
    output = options.output if scratch is None else Path(scratch.name)
    recorder = Recorder(output, start)
    classifier = Classifier(state.teacher)
    settler = Settler(state.teacher, data.unlabelled if recipe.unlabelled_batch else data.labelled)
    labelled = BalancedSampler(data.labels, recipe.labelled_batch, options.seed)
    unlabelled = EpochSampler(len(data.unlabelled), recipe.unlabelled_batch, options.seed)
    watch = Watch(prior, recipe)
    latent = tf.random.stateless_normal([SAMPLES_PER_ROW, recipe.latent_size], [options.seed, 7])

    # The loop.
    started = time.monotonic()
    total = int(state.total_steps.numpy())
    budget = Budget(options.minutes, started - elapsed_s, start, started) if options.minutes else None
    with Progress(total, "steps", f"training {options.output.name}", mode=options.progress, done=start) as progress:
        number = start
        while number < total:
            if budget:
                evaluated = number > start and number % options.evaluate_every == 0
                total = budget.steps(number, total, evaluated, time.monotonic())
                state.total_steps.assign(total)
                progress.expect(total)
            metrics = step(
                tf.constant(labelled.positions(number)), tf.constant(unlabelled.positions(number)), tf.constant(number)
            )
            done = number + 1
            add_up(sums, metrics, done)
            evaluate_now = done % options.evaluate_every == 0 or done == total
            checkpoint_now = done % options.checkpoint_every == 0 or done == total
            if budget and done <= TIMED_STEPS[1] and done < total:
                checkpoint_now = False  # a run that goes on from here would not know its steps
            if recipe.ema_decay and (evaluate_now or checkpoint_now):
                settler.settle()
            if done % ROW_EVERY == 0 or evaluate_now:
                row: Row = {"step": done, **{name: value / sums["count"] for name, value in sums.items()}}
                del row["count"]
                sums = {}
                if evaluate_now and dataset.hidden is not None:
                    row["hidden_accuracy"] = classifier.accuracy(dataset.hidden, HIDDEN_IMAGES)
                    progress.note(f"accuracy on hidden labels {row['hidden_accuracy']:.4f}")
                recorder.add(row)
                for warning in watch.look(row):
                    logger.warning("%s", warning)
            if evaluate_now:
                if state.generator is not None:
                    recorder.add_samples(done, generate(state.generator, latent))
                plot_curves(output / "curves.png", recorder.rows, f"{options.preset}, seed {options.seed}")
            if checkpoint_now:
                seconds = elapsed_s + time.monotonic() - started
                progressed = {**meta, "total_steps": total, "sums": sums, "elapsed_s": seconds}
                save_checkpoint(output / "checkpoints", state, progressed, done)
            progress.advance(1)
            number = done
    recorder.close()

    # The end: the only time that the test split is read.
    test, test_skipped = (None, ()) if dataset.test_source is None else load_test(dataset.test_source, data)
    warn_of_skipped(test_skipped, "images of the test split")
    summary: Summary = {
        "test_accuracy": None if test is None else classifier.accuracy(test),
        "test_images": 0 if test is None else len(test.labels),
        "test_skipped": len(test_skipped),
        "hidden_accuracy": None if dataset.hidden is None else classifier.accuracy(dataset.hidden),
        "preset": options.preset,
        "labels": len(data.labels),
        "unlabelled": len(data.unlabelled),
        "skipped": len(dataset.skipped),
        "pile_weight": meta["pile_weight"],
        "seed": options.seed,
        "steps": total,
        "seconds": elapsed_s + time.monotonic() - started,
        "peak_memory_bytes": peak_memory_bytes(),
        "memory_above_import_bytes": peak_memory_bytes() - imported_bytes,
        "commit": meta["commit"],
    }
    write_text_atomically(output / "training.json", json.dumps(summary, indent=2) + "\n")
    return summary


def warn_of_skipped(skipped: Sequence[str], what: str) -> None:
    """Logs which images could not be used: some of them, and how many there are."""
    for reason in skipped[:SHOWN_SKIPPED]:
        logger.warning("skipped: %s", reason)
    if len(skipped) > SHOWN_SKIPPED:
        logger.warning("skipped: %d more, %d %s in all", len(skipped) - SHOWN_SKIPPED, len(skipped), what)


def resume(existing: list[Path], state: State, run: dict[str, Any]) -> tuple[int, dict[str, float], float]:
    """Loads the newest checkpoint that can be read; returns (steps done, metrics since the last row, seconds spent).

    Raises:
        TrainingError: None can be read, or they are of other networks, or not of `run`, as config.json has it.
    """
    *older, path = existing
    try:
        meta = read_meta(path)
        check_same_run(path, meta, run)
        step = load_checkpoint(path, state)
    except TrainingError as error:
        if not older:
            raise
        logger.warning("%s; trying the checkpoint before", error)
        return resume(older, state, run)
    return step, meta["sums"], meta["elapsed_s"]


def add_up(sums: dict[str, float], metrics: dict[str, tf.Tensor], step: int) -> None:
    """Adds a step's metrics to the sums.

    Raises:
        TrainingError: One of them is not finite.
    """
    values = {name: float(value) for name, value in metrics.items()}
    if not all(math.isfinite(value) for value in values.values()):
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise TrainingError(
            f"training diverged in step {step}: {shown}; the last checkpoint is good, but the same run will diverge "
            "again: try another --seed, or look for broken images"
        )
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value
    sums["count"] = sums.get("count", 0.0) + 1.0


def generate(generator: keras.Model, latent: tf.Tensor) -> Pixels:
    """Returns G(latent) as uint8 [B, H, W, C], 0..255."""
    images = generator(latent, training=False).numpy()
    pixels: Pixels = np.clip(np.rint((images + 1.0) * 127.5), 0, 255).astype(np.uint8)
    return pixels
