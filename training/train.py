"""A training: data, networks, steps, evaluation, in the order in which they happen.

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
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from prelabel.errors import InputError, TrainingError
from prelabel.files import write_text_atomically
from training.checkpoint import list_checkpoints, load_checkpoint, read_meta
from training.config import Options
from training.dataset import load_test
from training.distribute import check_shares, is_chief, make_strategy, mean_over_hosts
from training.loop import Loop, Sums
from training.memory import peak_memory_bytes, too_little_memory
from training.plan import make_plan, warn_of_skipped, weigh_pile
from training.precision import choose_precision, precision
from training.recipe import Recipe
from training.run import check_same_run, describe, finished_run, hold_folder, open_run
from training.state import State, build_state
from training.step import make_step

logger = logging.getLogger(__name__)

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
    plan = make_plan(options, recipe)  # an error here leaves the folder unclaimed
    data = plan.dataset.training
    meta = describe(options, plan.dataset, plan.kind, plan.recipe)
    finished = open_run(options, meta) if chief else None
    # Other hosts look into the folder when the chief has claimed it, and removed what `--overwrite` removes.
    if mean_over_hosts(strategy, float(finished is not None)) > 0.0 and finished is None:
        finished = finished_run(options.output)
    if finished is not None:
        logger.info("%s is finished already: test accuracy %s", options.output, finished["test_accuracy"])
        return finished
    logger.info(
        "%d labelled, %d unlabelled images, %s, %d classes, augmentation %s, step size %g",
        len(data.labelled), len(data.unlabelled), "x".join(map(str, data.spec.shape)), len(data.classes), plan.kind,
        plan.recipe.learning_rate,
    )  # fmt: skip
    plan, elapsed_s = weigh_pile(plan, options, strategy)
    meta["pile_weight"] = 1.0 if plan.pile_weight is None else plan.pile_weight

    # Networks, and the state they are in.
    # Layers are numbered through a process, and their names decide in which order TensorFlow adds up: without this, a
    # second training in one process would round otherwise than the first.
    keras.utils.clear_session()
    keras.utils.set_random_seed(options.seed)
    with strategy.scope(), precision(choose_precision(options.precision)):
        state = build_state(data, plan.recipe, options.seed)
        step = make_step(state, data, plan.recipe, plan.kind, options.seed, options.class_prior, plan.pile_weight)
    start = 0
    sums: Sums = {}
    if existing := list_checkpoints(options.output / "checkpoints"):
        start, sums, elapsed_s = resume(existing, state, meta)
        logger.info("resuming after step %d", start)

    # Of several hosts, one writes the run's folder; what the others write, nobody needs.
    scratch = None if chief else tempfile.TemporaryDirectory(prefix="prelabel-worker-")
    output = options.output if scratch is None else Path(scratch.name)
    loop = Loop(options, plan, state, step, meta, output)
    began = time.monotonic() - elapsed_s  # as if it had never been interrupted
    steps = loop.run(start, sums, began)

    # The end: the only time that the test split is read.
    source, hidden = plan.dataset.test_source, plan.dataset.hidden
    test, test_skipped = (None, ()) if source is None else load_test(source, data)
    warn_of_skipped(test_skipped, "images of the test split")
    summary: Summary = {
        "test_accuracy": None if test is None else loop.classifier.accuracy(test),
        "test_images": 0 if test is None else len(test.labels),
        "test_skipped": len(test_skipped),
        "hidden_accuracy": None if hidden is None else loop.classifier.accuracy(hidden),
        "preset": options.preset,
        "labels": len(data.labels),
        "unlabelled": len(data.unlabelled),
        "skipped": len(plan.dataset.skipped),
        "pile_weight": meta["pile_weight"],
        "seed": options.seed,
        "steps": steps,
        "seconds": time.monotonic() - began,
        "peak_memory_bytes": peak_memory_bytes(),
        "memory_above_import_bytes": peak_memory_bytes() - imported_bytes,
        "commit": meta["commit"],
    }
    write_text_atomically(output / "training.json", json.dumps(summary, indent=2) + "\n")
    return summary


def resume(existing: list[Path], state: State, run: dict[str, Any]) -> tuple[int, Sums, float]:
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
