"""What a run leaves for people while it runs: metrics.csv, TensorBoard events, sample images, curves."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from prelabel.files import write_atomically, write_text_atomically
from prelabel.images import Pixels

Row = dict[str, float]
"""Metrics of a step by name; `step` among them."""

COLUMNS = (
    "step",
    "loss_supervised",
    "loss_unsupervised",
    "loss_consistency",
    "loss_adversarial",
    "loss_generator",
    "mutual_information",
    "labelled_accuracy",
    "realness_real",
    "realness_fake",
    "pseudo_confidence",
    "class_entropy",
    "hidden_accuracy",
)
"""Columns of metrics.csv. Losses are means since the last row; a column that a recipe does not have stays empty.
`hidden_accuracy` (0..1) is for the curves only: nothing is chosen by it. Times are not among them, so that a resumed
run writes the same rows as one that was not interrupted."""

SAMPLES_PER_ROW = 16
SAMPLE_SCALE = 2
"""Generated images are small; twice their size is easier to look at."""


class Recorder:
    """Writes the metrics and pictures of a run; rows and pictures after `resume_step` are dropped on resume."""

    def __init__(self, directory: Path, resume_step: int) -> None:
        self._directory = directory
        self.rows = [row for row in read_metrics(directory / "metrics.csv") if row["step"] <= resume_step]
        (directory / "samples").mkdir(parents=True, exist_ok=True)
        for path in sorted((directory / "samples").glob("step-*.png")):
            if int(path.stem.removeprefix("step-")) > resume_step:
                path.unlink()
        self._events = tf.summary.create_file_writer(str(directory / "tensorboard"))

    def add(self, row: Row) -> None:
        """Appends a row and rewrites metrics.csv."""
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _shown(value) for name, value in r.items()} for r in self.rows)
        write_text_atomically(self._directory / "metrics.csv", text.getvalue())
        with self._events.as_default():
            for name, value in row.items():
                if name != "step":
                    tf.summary.scalar(name, value, step=int(row["step"]))
        self._events.flush()

    def add_samples(self, step: int, images: Pixels) -> None:
        """Writes generated images, uint8 [`SAMPLES_PER_ROW`, H, W, C], as one row, and all rows so far as a grid."""
        framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=128)
        strip = np.concatenate(list(framed), axis=1).repeat(SAMPLE_SCALE, axis=0).repeat(SAMPLE_SCALE, axis=1)
        save_png(self._directory / "samples" / f"step-{step:08d}.png", strip)
        strips = sorted((self._directory / "samples").glob("step-*.png"))
        save_png(self._directory / "samples.png", np.concatenate([_read_png(path) for path in strips], axis=0))
        with self._events.as_default():
            tf.summary.image("generated", strip[None] if strip.ndim == 3 else strip[None, :, :, None], step=step)

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._events.close()


def read_metrics(path: Path) -> list[Row]:
    """Reads metrics.csv; no file is an empty list."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def save_png(path: Path, pixels: Pixels) -> None:
    """Writes uint8 [h, w], [h, w, 1] or [h, w, 3] as PNG, whole or not at all."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def plot_curves(path: Path, rows: list[Row], title: str) -> None:
    """Draws losses, accuracies and realness over steps into a PNG."""
    # Imported here: matplotlib takes a second that `--help` need not wait for. The Figure class needs no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    panels: list[tuple[str, tuple[str, ...]]] = [
        ("losses", ("loss_supervised", "loss_unsupervised", "loss_consistency", "loss_adversarial", "loss_generator")),
        ("accuracy (hidden labels: for this curve only)", ("labelled_accuracy", "hidden_accuracy")),
        (
            "realness, confidence, classes in use",
            ("realness_real", "realness_fake", "pseudo_confidence", "class_entropy"),
        ),
    ]
    for axes, (heading, names) in zip(figure.subplots(1, 3), panels, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row and math.isfinite(row[name])]
            if points:
                axes.plot(
                    *zip(*points, strict=True), label=name.replace("_", " "), marker="." if len(points) < 20 else ""
                )
        if heading == "losses":
            axes.set_yscale("log")
        axes.set_title(heading)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.suptitle(title)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))


def _read_png(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image, np.uint8)


def _shown(value: float) -> Any:
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
