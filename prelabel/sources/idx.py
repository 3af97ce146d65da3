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
from prelabel.reading import readable
from prelabel.sources.base import PixelRows, Sample
from prelabel.storage import Storage, locate, printable

_IMAGES_NAME = re.compile(r"^.+-images[-.]idx3-ubyte(\.gz)?$")
_NAME_END = re.compile(r"-images([-.])idx3(?=-ubyte(\.gz)?$)")
_UNSIGNED_BYTE = 0x08


def is_idx_images(name: str) -> bool:
    """True for names such as `train-images-idx3-ubyte.gz`."""
    return _IMAGES_NAME.match(name) is not None


def labels_name(images_name: str) -> str:
    """Returns the name that the labels of an IDX image file have by convention, beside it."""
    return _NAME_END.sub(r"-labels\1idx1", images_name)


def read_idx(storage: Storage, name: str, ndim: int) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes with `ndim` dimensions.

    Raises:
        InputError: The file is missing, damaged, or of another element type or rank.
    """
    path = storage.shown(name)
    with readable(f"{path} cannot be read", OSError, EOFError, zlib.error):
        data = storage.read(name)
        data = gzip.decompress(data) if name.endswith(".gz") else data
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

    def __init__(self, path: Path | str, storage: Storage | None = None) -> None:
        self._storage, self._name = (storage, str(path)) if storage else locate(path)

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [n, H, W], 0..255."""
        return read_idx(self._storage, self._name, 3)

    @cached_property
    def labels(self) -> NDArray[np.uint8] | None:
        """uint8 [n], or None where there is no label file."""
        name = labels_name(self._name)
        if self._storage.kind(name) == "nothing":
            return None
        labels = read_idx(self._storage, name, 1)
        if len(labels) != len(self.images):
            raise InputError(
                f"{self._storage.shown(name)} has {len(labels)} labels, but {printable(self._name)} has "
                f"{len(self.images)} images"
            )
        return labels

    @property
    def manifest_hash(self) -> str:
        """Hash over the unpacked images."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.data)
        return digest.hexdigest()

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields the file."""
        yield printable(self._name), self._storage.size_bytes(self._name)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields rows start..stop as uint8 [H, W] with their labels."""
        path = self._storage.shown(self._name)
        for row in range(start, min(stop, len(self))):
            label = None if self.labels is None else str(self.labels[row])
            yield Sample(f"{row:06d}", f"{path}#{row}", self.images[row], label)

    def pixel_rows(self, start: int, stop: int) -> PixelRows:
        """Returns rows start..stop, uint8 [B, H, W], without their labels."""
        rows, where = range(start, min(stop, len(self))), f"{self._storage.shown(self._name)}#"
        return PixelRows(
            tuple(f"{row:06d}" for row in rows), tuple(f"{where}{row}" for row in rows), self.images[start:stop]
        )
