"""`prelabel select` and its neighbours as a user types them, and what they wrote."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from support import command_line


def run(*arguments: object) -> int:
    """Runs `prelabel` without a progress line; returns its exit status."""
    quiet = ("--progress", "none") if arguments[0] in ("select", "duplicates") else ()
    return command_line.run(*arguments, *quiet)


def tasks(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of a selection's tasks.csv."""
    with (folder / "tasks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SHAPES = {"bar": 40, "beam": 12, "spot": 4}
"""Kinds of pictures in the pile, and how many there are of each."""


def write_shapes(folder: Path) -> Path:
    """Writes the pictures of `SHAPES`, named by their kind."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for name, count in SHAPES.items():
        for i in range(count):
            pixels = generator.integers(0, 30, (28, 28)).astype(np.uint8)
            rows, columns = {"bar": ((0, 28), (12, 16)), "beam": ((12, 16), (0, 28)), "spot": ((2, 9), (2, 9))}[name]
            pixels[slice(*rows), slice(*columns)] = 220
            Image.fromarray(pixels).save(folder / f"{name}-{i:02d}.png")
    return folder


def answer(folder: Path, *, blank: int = 0) -> Path:
    """Fills the tasks in by the names of the files, but the last `blank` ones."""
    rows = tasks(folder)
    for row in rows[: len(rows) - blank]:
        row["answer"] = row["id"].split("-")[0]
    with (folder / "tasks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "tasks.csv"
