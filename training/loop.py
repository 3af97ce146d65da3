"""The steps of a run, and what they leave for people and for a later start: rows, samples, curves, checkpoints."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from prelabel.errors import TrainingError
from prelabel.images import Pixels
from prelabel.progress import Progress
from training.batches import BalancedSampler, EpochSampler
from training.budget import TIMED_STEPS, Budget
from training.checkpoint import save_checkpoint
from training.config import Options
from training.evaluate import Classifier
from training.health import Watch
from training.plan import Plan
from training.recorder import SAMPLES_PER_ROW, Recorder, Row, plot_curves
from training.state import Settler, State

logger = logging.getLogger(__name__)

ROW_EVERY = 50
"""Steps between rows of metrics.csv."""
HIDDEN_IMAGES = 5000
"""Images of the evaluation during training: +- 0.2 points, a second of computing."""

Sums = dict[str, float]
"""Metrics by name, summed over the steps since the last row, and how many steps those are, as `count`."""


class Loop:
    """Takes the steps of a run.

    Args:
        options: Of the run.
        plan: What it does.
        state: Every variable of it, at the step from which it goes on.
        step: Takes the positions of labelled and of unlabelled images (int64 [B], [U]) and the step's number; returns
            metrics by name.
        meta: What checkpoints say of the run.
        output: The folder that is written.
    """

    def __init__(
        self,
        options: Options,
        plan: Plan,
        state: State,
        step: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
        meta: dict[str, Any],
        output: Path,
    ) -> None:
        data, recipe = plan.dataset.training, plan.recipe
        self._options, self._plan, self._state, self._step = options, plan, state, step
        self._meta, self._output = meta, output
        self._labelled = BalancedSampler(data.labels, recipe.labelled_batch, options.seed)
        self._unlabelled = EpochSampler(len(data.unlabelled), recipe.unlabelled_batch, options.seed)
        self._settler = Settler(state.teacher, data.unlabelled if recipe.unlabelled_batch else data.labelled)
        self._latent = tf.random.stateless_normal([SAMPLES_PER_ROW, recipe.latent_size], [options.seed, 7])
        self._watch = Watch(plan.prior, recipe)
        self.classifier = Classifier(state.teacher)
        """Of the averaged weights."""

    def run(self, start: int, sums: Sums, began: float) -> int:
        """Takes all steps from `start` on; returns how many the whole run has.

        Args:
            start: Steps that are taken.
            sums: Of those since the last row.
            began: When the run began, in seconds of `time.monotonic`, as if it had never been interrupted.

        Raises:
            TrainingError: A loss is not finite.
        """
        options, state = self._options, self._state
        total = int(state.total_steps.numpy())
        budget = Budget(options.minutes, began, start, time.monotonic()) if options.minutes else None
        recorder = Recorder(self._output, start)
        title = f"training {options.output.name}"
        with Progress(total, "steps", title, mode=options.progress, done=start) as progress:
            number = start
            while number < total:
                if budget:
                    evaluated = number > start and number % options.evaluate_every == 0
                    total = budget.steps(number, total, evaluated, time.monotonic())
                    state.total_steps.assign(total)
                    progress.expect(total)
                add_up(sums, self._take(number), number + 1)
                number += 1
                evaluate_now = number % options.evaluate_every == 0 or number == total
                checkpoint_now = number % options.checkpoint_every == 0 or number == total
                if budget and number <= TIMED_STEPS[1] and number < total:
                    checkpoint_now = False  # a run that goes on from here would not know its steps
                if self._plan.recipe.ema_decay and (evaluate_now or checkpoint_now):
                    self._settler.settle()
                if number % ROW_EVERY == 0 or evaluate_now:
                    row = self._row(number, sums, evaluate_now)
                    if "hidden_accuracy" in row:
                        progress.note(f"accuracy on hidden labels {row['hidden_accuracy']:.4f}")
                    recorder.add(row)
                    for warning in self._watch.look(row):
                        logger.warning("%s", warning)
                    sums = {}
                if evaluate_now:
                    self._show(recorder, number)
                if checkpoint_now:
                    seconds = time.monotonic() - began
                    meta = {**self._meta, "total_steps": total, "sums": sums, "elapsed_s": seconds}
                    save_checkpoint(self._output / "checkpoints", state, meta, number)
                progress.advance(1)
        recorder.close()
        return total

    def _take(self, number: int) -> dict[str, tf.Tensor]:
        labelled, unlabelled = self._labelled.positions(number), self._unlabelled.positions(number)
        return self._step(tf.constant(labelled), tf.constant(unlabelled), tf.constant(number))

    def _row(self, done: int, sums: Sums, evaluate_now: bool) -> Row:
        """Returns the means since the last row, and how D does on hidden labels."""
        row = {"step": done, **{name: value / sums["count"] for name, value in sums.items() if name != "count"}}
        if evaluate_now and (hidden := self._plan.dataset.hidden) is not None:
            row["hidden_accuracy"] = self.classifier.accuracy(hidden, HIDDEN_IMAGES)
        return row

    def _show(self, recorder: Recorder, done: int) -> None:
        """Draws what G makes of the same latent vectors each time, and the curves so far."""
        if self._state.generator is not None:
            recorder.add_samples(done, generate(self._state.generator, self._latent))
        title = f"{self._options.preset}, seed {self._options.seed}"
        plot_curves(self._output / "curves.png", recorder.rows, title)


def add_up(sums: Sums, metrics: dict[str, tf.Tensor], step: int) -> None:
    """Adds a step's metrics, and 1 as `count`, to the sums.

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
