"""Small data sets for tests that train: bright squares on black that a net learns to place in seconds."""

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def squares(
    count: int, class_count: int = 3, size: int = 16, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns images uint8 [n, size, size] and labels uint8 [n]: the class is the column of a bright square."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % class_count).astype(np.uint8)
    images = generator.integers(0, 40, (count, size, size)).astype(np.uint8)
    images[:, :2], images[:, -2:], images[:, :, :2], images[:, :, -2:] = 0, 0, 0, 0
    for i, label in enumerate(labels):
        row, column = generator.integers(3, size - 8), 3 + int(label) * (size - 8) // class_count
        images[i, row : row + 5, column : column + 4] = 230
    return images, labels


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_idx_dataset(directory: Path, train_count: int = 240, test_count: int = 60) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", train_count, 0), ("t10k", test_count, 1)):
        images, labels = squares(count, seed=seed)
        write_idx(directory / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(directory / f"{name}-labels-idx1-ubyte.gz", labels)
    return directory
