"""Images and labels of a run. Labels that the run may not see live in another object than those it may."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import ImageError, InputError
from prelabel.images import ImageSpec, Pixels
from prelabel.progress import Progress, ProgressMode
from prelabel.sources import Source
from training.collect import Collector, warn_of_flat
from training.selection import Selection
from training.splits import find_splits

logger = logging.getLogger(__name__)

NO_LABEL = -1


@dataclass(frozen=True)
class TrainingSet:
    """All that training sees."""

    classes: tuple[str, ...]
    """K class names in label order: by number where all are numbers, else by name."""
    spec: ImageSpec
    """Shape of one image."""
    labelled: Pixels
    """uint8 [n, H, W, C], 0..255."""
    labels: NDArray[np.int32]
    """int32 [n], 0..K-1."""
    unlabelled: Pixels
    """uint8 [m, H, W, C], 0..255: the pile; where labels were hidden, all training images."""


@dataclass(frozen=True)
class Evaluation:
    """Images with labels that training never sees."""

    images: Pixels
    """uint8 [n, H, W, C], 0..255."""
    labels: NDArray[np.int32]
    """int32 [n], 0..K-1."""


@dataclass(frozen=True)
class Dataset:
    """What a data path holds, split by who may see it."""

    training: TrainingSet
    manifest_hash: str
    """Hash of the training split, test images not among them."""
    labels_hash: str
    """SHA-256 of all labels of the training split, hidden ones too: a manifest need not cover them."""
    hidden: Evaluation | None
    """Training images whose labels were hidden by the label draw."""
    test_source: Source | None
    """The test split, not yet read: `load_test` reads it once, at the end."""
    skipped: tuple[str, ...]
    """Images that could not be used, with the reason."""


def load_dataset(
    path: Path | str,
    *,
    label_count: int | None,
    seed: int,
    image_size: int | None = None,
    max_unlabelled: int = 200_000,
    progress: ProgressMode = "none",
) -> Dataset:
    """Reads a data set and draws the labels that training may see.

    Args:
        path: See `Options.data`.
        label_count: Labels to draw, the same number for each class (the first classes get one more where it does not
            divide), or None for all that there are.
        seed: Decides the draw.
        image_size: Side length in pixels to bring images to, or None for the data's own.
        max_unlabelled: Most images without a label to keep, and, where `label_count` is given, as many with one, or
            as the draw may want.
        progress: How reading is shown.

    Raises:
        InputError: No or one class, no images that can be decoded, or a class with fewer labels than asked for.
    """
    train, test = find_splits(path)
    selection = Selection(len(train), max_unlabelled, label_count)
    names: list[str | None] = []
    paths: list[str] = []
    in_pile: list[bool] = []
    with Progress(selection.most, "images", "reading", mode=progress) as report:
        collector = Collector(image_size, selection.most, report.advance)
        for position, sample in enumerate(train.read(0, len(train))):
            if selection.keeps(position, sample.label):
                collector.add(sample)
                names.append(sample.label)
                paths.append(sample.path)
                in_pile.append(selection.is_of_pile(position))
        classes = class_names(name for name in names if name is not None)
        if len(classes) < 2:
            raise InputError(
                f"{path} has {len(classes)} labelled classes ({', '.join(classes) or 'none'}): at least 2 are wanted, "
                "as labelled/<class>/<image>, a `label` column, or an IDX label file"
            )
        spec, images = collector.finish()
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([NO_LABEL if name is None else numbers[name] for name in names], np.int32)
    pile = np.flatnonzero(labels == NO_LABEL)
    if label_count is not None or len(pile) == 0:
        # Labels are hidden, or there is no pile: every training image is part of it.
        pile = np.flatnonzero(in_pile)
    elif len(pile) < np.count_nonzero(labels != NO_LABEL):
        # The pile's losses want every class in each step, which few images of some of the classes do not have.
        logger.info("the pile of %d images is small: the labelled images count as a part of it, too", len(pile))
        pile = np.arange(len(labels))
    bad = np.fromiter(collector.failed, np.int64)
    labels[bad] = NO_LABEL
    usable = np.setdiff1d(pile, bad)
    if not len(usable):
        example = f"{paths[pile[0]]}: {collector.failed[int(pile[0])]}"
        raise InputError(f"none of the {len(pile)} unlabelled images can be decoded, for example {example}")
    unlabelled = images if len(usable) == len(images) else images[usable]  # a copy of a large pile may not fit
    warn_of_flat("unlabelled images", unlabelled, [paths[i] for i in usable])
    for k, name in enumerate(classes):
        if not (labels == k).any():
            first = names.index(name)
            raise InputError(
                f"class {name!r} has no image that can be decoded, for example {paths[first]}: "
                f"{collector.failed[first]}"
            )
    shown = _draw(labels, classes, label_count, seed)
    if not np.isin(shown, usable).all():
        warn_of_flat("labelled images", images[shown], [paths[i] for i in shown])
    hidden = np.setdiff1d(np.flatnonzero(labels != NO_LABEL), shown)
    return Dataset(
        manifest_hash=train.manifest_hash,
        labels_hash=hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        training=TrainingSet(classes, spec, images[shown], labels[shown], unlabelled),
        hidden=Evaluation(images[hidden], labels[hidden]) if len(hidden) else None,
        test_source=test,
        skipped=tuple(f"{paths[i]}: {reason}" for i, reason in collector.failed.items()),
    )


def load_test(source: Source, training: TrainingSet) -> tuple[Evaluation | None, tuple[str, ...]]:
    """Reads the test split; returns what can be used of it, and what cannot, with the reason.

    An image that cannot be decoded, or is of a class that training has no image of, is left out: a finished training
    should not be lost to it.
    """
    images, labels, skipped = [], [], []
    for sample in source.read(0, len(source)):
        try:
            if sample.label not in training.classes:
                raise ImageError(f"its label {sample.label!r} is none of the training's classes")
            pixels = sample.pixels(training.spec)
        except ImageError as error:
            skipped.append(f"{sample.path}: {error}")
            continue
        images.append(pixels)
        labels.append(training.classes.index(sample.label))
    test = Evaluation(np.stack(images), np.array(labels, np.int32)) if images else None
    return test, tuple(skipped)


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Returns the distinct labels in order: as numbers where all are whole numbers, else by name."""
    names = set(labels)
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _draw(labels: NDArray[np.int32], classes: tuple[str, ...], label_count: int | None, seed: int) -> NDArray[np.int64]:
    """Returns the positions of the labelled images that training may see, in a fixed order."""
    if label_count is None:
        return np.flatnonzero(labels != NO_LABEL)
    if label_count < len(classes):
        raise InputError(
            f"--labels {label_count} is less than one for each of the {len(classes)} classes: give at least "
            f"{len(classes)}, or leave it out (`make train LABELS=`) to use all labels"
        )
    generator = np.random.default_rng([seed, 0x1ABE1])
    chosen = []
    for k, name in enumerate(classes):
        wanted = label_count // len(classes) + (k < label_count % len(classes))
        of_class = np.flatnonzero(labels == k)
        if len(of_class) < wanted:
            raise InputError(
                f"class {name!r} has {len(of_class)} usable labels, but --labels {label_count} over "
                f"{len(classes)} classes wants {wanted}: leave --labels out (`make train LABELS=`) to use "
                "all labels, or give a smaller one"
            )
        chosen.append(generator.choice(of_class, wanted, replace=False))
    return np.sort(np.concatenate(chosen))
