"""IDX files, the format of MNIST: a big-endian header, then raw bytes; optionally gzip."""

import gzip
import hashlib
import math
import re
import struct
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.sources.base import Sample

_IMAGES_NAME = re.compile(r"^.+-images[-.]idx3-ubyte(\.gz)?$")
_NAME_END = re.compile(r"-images([-.])idx3(?=-ubyte(\.gz)?$)")
_UNSIGNED_BYTE = 0x08


def is_idx_images(path: Path) -> bool:
    """True for names such as `train-images-idx3-ubyte.gz`."""
    return _IMAGES_NAME.match(path.name) is not None


def labels_path(images_path: Path) -> Path:
    """Returns the path where the labels of an IDX image file lie by convention."""
    return images_path.with_name(_NAME_END.sub(r"-labels\1idx1", images_path.name))


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes with `ndim` dimensions.

    Raises:
        InputError: The file is missing, damaged, or of another element type or rank.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if len(data) < 4 + 4 * ndim or data[:4] != bytes([0, 0, _UNSIGNED_BYTE, ndim]):
        raise InputError(
            f"{path} is not an IDX file of unsigned bytes with {ndim} dimensions (header {data[:4].hex(' ')})"
        )
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * ndim)
    if values.size != math.prod(shape):  # NumPy's product would overflow on a hostile header
        raise InputError(
            f"{path} is cut short or too long: its header says {list(shape)}, but {values.size} bytes follow"
        )
    return values.reshape(shape)


class IdxSource:
    """An IDX image file and, where it lies beside it, its label file; ids are row numbers, six digits wide."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [n, H, W], 0..255."""
        return read_idx(self._path, 3)

    @cached_property
    def labels(self) -> NDArray[np.uint8] | None:
        """uint8 [n], or None where there is no label file."""
        path = labels_path(self._path)
        if not path.exists():
            return None
        labels = read_idx(path, 1)
        if len(labels) != len(self.images):
            raise InputError(f"{path} has {len(labels)} labels, but {self._path.name} has {len(self.images)} images")
        return labels

    @property
    def manifest_hash(self) -> str:
        """Hash over the unpacked images."""
        return hashlib.sha256(repr(self.images.shape).encode() + self.images.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields rows start..stop as uint8 [H, W] with their labels."""
        for row in range(start, min(stop, len(self))):
            label = None if self.labels is None else str(self.labels[row])
            yield Sample(f"{row:06d}", f"{self._path}#{row}", self.images[row], label)
