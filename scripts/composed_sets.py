"""Composes image data sets from matplotlib's fonts, drawn shapes, the embedded MNIST and scikit-learn's digits.

Nothing is downloaded. They show whether the default preset, which was chosen on MNIST, carries over. Each set is a
folder that `python -m training --data FOLDER --labels N` reads:

    train.parquet   columns `image` (PNG) and `label` (string, null where the image belongs to no class)
    test.parquet    the same, and in both, where images come to be in several ways, `origin` (the trainer ignores it)
    composed.json   what the set is and what made it

A set is a function of (name, seed) with the same library versions. Its folder appears whole or not at all.
"""

import io
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from PIL import Image

from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_atomically, write_text_atomically
from prelabel.images import Pixels
from scripts.composed.digits import (
    clean_digits,
    colour_digits,
    digit_halves,
    polluted_digits,
    unbalanced_digits,
)
from scripts.composed.glyphs import colour_letters, glyphs, letters
from scripts.composed.mnist import MNIST, SplitName, load_digits
from scripts.composed.optical import optical_digits
from scripts.composed.shapes import outlines, shapes
from scripts.composed.split import Split

SetName = Literal[
    "letters",
    "colour-letters-32",
    "colour-digits-32",
    "shapes-64",
    "binary-64",
    "glyphs-100",
    "digit-halves",
    "unbalanced-digits",
    "polluted-digits",
    "optical-digits-8",
]
SIZES: dict[SetName, tuple[int, int]] = {
    "letters": (12_000, 2_600),
    "colour-letters-32": (12_000, 2_000),
    "colour-digits-32": (12_000, 2_000),
    "shapes-64": (6_000, 1_200),
    "binary-64": (4_000, 1_000),
    "glyphs-100": (20_000, 3_000),
    "digit-halves": (60_000, 10_000),
    # The most that the test split has in these proportions.
    "unbalanced-digits": (15_000, 4_000),
    # All of MNIST's 60,000 and a fifth of pollution on top; the test split is clean.
    "polluted-digits": (75_000, 10_000),
    "optical-digits-8": (1_297, 500),
}
"""Images for training and for the test."""
OF_MNIST = ("colour-digits-32", "digit-halves", "unbalanced-digits", "polluted-digits")
VERSION = 1
"""Goes up when the same name and seed give other images."""
SET_FILE = "composed.json"


@dataclass(frozen=True)
class Options:
    """Compose image data sets for trying the trainer on other data than MNIST.

    Example: python -m scripts.composed_sets --output runs/composed --sets letters shapes-64
    """

    output: Path = Path("runs/composed")
    """Folder in which each set gets a folder of its name; a set that is there already is left alone."""
    sets: tuple[SetName, ...] = tuple(SIZES)
    """Sets to compose."""
    seed: int = 0
    """Decides every random number; the classes of a set are the same for all seeds."""
    mnist: Path = MNIST
    """Folder with MNIST's IDX files."""


def main() -> None:
    """Composes what is missing."""
    options = tyro.cli(Options, prog="python -m scripts.composed_sets")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        folder = options.output / name
        if is_there(folder, name, options.seed):
            print(f"{name}: already in {folder}", flush=True)
            continue
        print(f"{name}: composing {sum(SIZES[name]):,} images", flush=True)
        started = time.monotonic()
        train = compose(name, "train", options.seed, SIZES[name][0], options.mnist)
        test = compose(name, "test", options.seed, SIZES[name][1], options.mnist)
        write_set(folder, train, test, describe(name, options.seed, train, test))
        shape = "x".join(map(str, train.images.shape[1:]))
        print(
            f"{name}: {len(train.images):,} + {len(test.images):,} images {shape} in {folder}, "
            f"{time.monotonic() - started:.1f} s",
            flush=True,
        )


def compose(name: SetName, split: SplitName, seed: int, count: int, mnist: Path = MNIST) -> Split:
    """Composes one split of a set; the test split has random numbers and, of MNIST, digits of its own.

    Args:
        name: Which set.
        split: Which half of it.
        seed: Decides every random number.
        count: Number of images; `unbalanced-digits` rounds its classes and may miss it by a few.
        mnist: Folder with MNIST's IDX files, for the sets that are made of digits.
    """
    # Of the name too: the sets that are composed before it must not matter.
    generator = np.random.default_rng([seed, *f"{name}/{split}".encode()])
    match name:
        case "letters":
            return letters(generator, count)
        case "colour-letters-32":
            return colour_letters(generator, count)
        case "glyphs-100":
            return glyphs(generator, count)
        case "shapes-64":
            return shapes(generator, count)
        case "binary-64":
            return outlines(generator, count)
        case "optical-digits-8":
            return optical_digits(generator, split, count)
    images, labels = load_digits(mnist, split)
    match name:
        case "colour-digits-32":
            return colour_digits(generator, images, labels, count)
        case "digit-halves":
            return digit_halves(generator, images, labels, count)
        case "unbalanced-digits":
            return unbalanced_digits(generator, images, labels, count)
        case "polluted-digits":
            polluted = polluted_digits(generator, images, labels, count)
            return polluted if split == "train" else clean_digits(images, labels, count)


def describe(name: SetName, seed: int, train: Split, test: Split) -> dict[str, Any]:
    """Returns the content of composed.json."""
    return {
        "name": name,
        "seed": seed,
        "version": VERSION,
        "image_shape": list(train.images.shape[1:]),
        "classes": len({label for label in train.labels if label is not None}),
        "train_images": len(train.images),
        "train_images_of_no_class": train.labels.count(None),
        "test_images": len(test.images),
        "licence": licence(name),
        "made_with": {"numpy": np.__version__, "pillow": PIL.__version__, "pyarrow": pa.__version__},
    }


def licence(name: SetName) -> str:
    """Returns the terms of a set's images."""
    if name in OF_MNIST:
        # Share-alike: what is made of MNIST stays under its licence.
        return "CC BY-SA 3.0, derived from MNIST (LeCun, Cortes, Burges)"
    if name == "optical-digits-8":
        return "CC BY 4.0, Optical Recognition of Handwritten Digits (Alpaydin, Kaynak)"
    return "CC0-1.0"


def is_there(folder: Path, name: SetName, seed: int) -> bool:
    """True if the folder holds the set.

    Raises:
        InputError: It holds something else.
    """
    if not folder.exists():
        return False
    file = folder / SET_FILE
    found = json.loads(file.read_text()) if file.exists() else {}
    wanted = {"name": name, "seed": seed, "version": VERSION}
    if any(found.get(key) != value for key, value in wanted.items()):
        said = {key: found.get(key) for key in wanted} if found else f"no {SET_FILE}"
        raise InputError(f"{folder} has {said}, not {wanted}: remove it, or give another --output")
    return True


def write_set(folder: Path, train: Split, test: Split, description: dict[str, Any]) -> None:
    """Writes a set's folder: first beside its place, then by a rename."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        write_split(temporary / "train.parquet", train)
        write_split(temporary / "test.parquet", test)
        write_text_atomically(temporary / SET_FILE, json.dumps(description, indent=2) + "\n")
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_split(path: Path, split: Split) -> None:
    """Writes one Parquet file."""
    columns = {
        "image": pa.array([png(image) for image in split.images], pa.binary()),
        "label": pa.array(split.labels, pa.string()),
    }
    if split.origins is not None:
        columns["origin"] = pa.array(split.origins, pa.string())
    # PNG is compressed already.
    write_atomically(path, lambda file: pq.write_table(pa.table(columns), file, 4096, compression="none"))


def png(image: Pixels) -> bytes:
    """Returns an image uint8 [H, W, 1 or 3] as a PNG file."""
    file = io.BytesIO()
    # Level 1: noise does not compress, whatever the effort.
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()


if __name__ == "__main__":
    try:
        main()
    except PrelabelError as error:
        sys.exit(f"composed_sets: {error}")
