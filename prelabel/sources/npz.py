"""NumPy archives: an array `images`, and `labels` where there are any; read row by row, without pickle."""

import contextlib
import hashlib
import math
import posixpath
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.reading import readable
from prelabel.sources.base import Sample
from prelabel.storage import Storage, locate, printable

IMAGES, LABELS = "images", "labels"

# NumPy reads an array's header as Python source, by the tokenizer where it is not of its own making.
_DAMAGED_HEADER = (ValueError, SyntaxError, tokenize.TokenError)
_UNREADABLE = (OSError, EOFError, KeyError, RuntimeError, MemoryError, zlib.error, zipfile.BadZipFile, *_DAMAGED_HEADER)
"""What zipfile and NumPy raise over a damaged, encrypted or hostile file."""

_CHECKED_BYTES = 1 << 20
"""Bytes of the images that are checked at a time."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzSource:
    """`images` uint8 [n, h, w] or [n, h, w, 1 or 3]; `labels` [n] of integers or strings, -1 or "" where unknown.

    The ids are those of IDX files.
    """

    def __init__(self, path: Path | str, storage: Storage | None = None) -> None:
        """Reads the headers, the labels, and once through the images.

        Raises:
            InputError: It is no npz file, its arrays are not as they have to be, or it is damaged.
        """
        self._storage, self._name = (storage, str(path)) if storage else locate(path)
        self._shown = self._storage.shown(self._name)
        with self._opened() as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if IMAGES not in names:
                raise InputError(f"{self._shown} has no array {IMAGES!r}: it has {', '.join(names) or 'none'}")
            with archive.open(f"{IMAGES}.npy") as file:
                self._shape = self._read_header(file)
                wanted, there = math.prod(self._shape), archive.getinfo(f"{IMAGES}.npy").file_size - file.tell()
                if wanted != there:
                    raise ValueError(f"the header of {IMAGES!r} says {list(self._shape)}, but {there} bytes follow")
                # The one checksum is known at the end: damage may unpack to other pixels, and no row says which.
                while file.read(_CHECKED_BYTES):
                    pass
            self._labels = self._read_labels(archive) if LABELS in names else None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with (
            readable(f"{self._shown} is not a readable npz file", *_UNREADABLE, fix="save it again"),
            self._storage.open(self._name) as file,
            zipfile.ZipFile(file) as archive,
        ):
            yield archive

    def _read_header(self, file: IO[bytes]) -> tuple[int, ...]:
        """Reads up to the first byte of the first image; returns the shape of all."""
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise InputError(f"{self._shown}: {IMAGES!r} is of the unknown .npy version {version}: save it again")
        header: tuple[tuple[int, ...], bool, np.dtype[Any]] = _HEADERS[version](file)
        shape, by_columns, dtype = header
        rows_apart = not by_columns or 0 in shape
        if dtype != np.uint8 or len(shape) not in (3, 4) or min(shape) < 0 or not rows_apart:
            order = ", in Fortran's order" if by_columns else ""
            fault = _fault(shape) if len(shape) in (3, 4) else None
            raise InputError(
                f"{self._shown}: {IMAGES!r} is {dtype} {list(shape)}{order}, wanted is uint8 [n, h, w] "
                f"or [n, h, w, 1 or 3]: {_fix(dtype, shape)}{(fault and f'; also, {fault}') or ''}"
            )
        if fault := _fault(shape):  # of the array: as rows it would be an error for each image
            raise InputError(f"{self._shown}: {IMAGES!r} is {dtype} {list(shape)}, {fault}")
        return shape

    def _read_labels(self, archive: zipfile.ZipFile) -> NDArray[Any]:
        with archive.open(f"{LABELS}.npy") as file:
            version = np.lib.format.read_magic(file)
            if version in _HEADERS and _HEADERS[version](file)[2].hasobject:
                raise InputError(
                    f"{self._shown}: {LABELS!r} is an array of objects: save labels.astype(str), with '' where unknown"
                )
        with archive.open(f"{LABELS}.npy") as file:
            labels: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if labels.shape != (self._shape[0],) or labels.dtype.kind not in "iuU":
            raise InputError(
                f"{self._shown}: {LABELS!r} is {labels.dtype} {list(labels.shape)}, wanted are integers or strings "
                f"[{self._shape[0]}], one for each image" + _label_fix(labels, self._shape[0])
            )
        if labels.dtype.kind == "i" and len(labels) and labels.min() < -1:
            raise InputError(
                f"{self._shown}: label {labels.min()} is not usable: wanted are -1 (unlabelled), 0, 1, ..."
            )
        return labels

    @cached_property
    def manifest_hash(self) -> str:
        """Hash over names, sizes and checksums of the arrays."""
        with self._opened() as archive:
            arrays = [(one.filename, one.file_size, one.CRC) for one in archive.infolist()]
        wanted = [one for one in arrays if one[0] in (f"{IMAGES}.npy", f"{LABELS}.npy")]
        return hashlib.sha256(repr(sorted(wanted)).encode()).hexdigest()

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields the file."""
        yield printable(self._name), self._storage.size_bytes(self._name)

    def __len__(self) -> int:
        return self._shape[0]

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields rows start..stop as uint8 [h, w] or [h, w, 1 or 3].

        Raises:
            InputError: The file is gone, changed or was damaged since it was opened.
        """
        row_bytes = math.prod(self._shape[1:])
        with self._opened() as archive, archive.open(f"{IMAGES}.npy") as file:
            if self._read_header(file) != self._shape:
                raise InputError(f"{self._shown} was changed while it was read")
            file.seek(file.tell() + start * row_bytes)
            for row in range(start, min(stop, len(self))):
                content = file.read(row_bytes)
                if len(content) < row_bytes:
                    raise EOFError(f"{IMAGES!r} is cut short")
                yield self._sample(row, np.frombuffer(content, np.uint8).reshape(self._shape[1:]))

    def _sample(self, row: int, pixels: NDArray[np.uint8]) -> Sample:
        label = None if self._labels is None else str(self._labels[row])
        return Sample(f"{row:06d}", f"{self._shown}#{row}", pixels, None if label in ("", "-1") else label)


def _fix(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """Returns how to save images of another type, number of dimensions or order of bytes."""
    if dtype.hasobject:
        return "save np.stack(images), or image files in folders where they are of several sizes"
    if dtype.kind == "f":
        return (
            "save np.clip(np.rint(images * 255), 0, 255).astype(np.uint8) where they are 0..1, with (images + 1) * "
            "127.5 in the place of images * 255 where they are -1..1"
        )
    if dtype.kind == "b":
        return "save images * np.uint8(255)"
    if dtype.kind in "iu" and dtype != np.uint8:
        return "save images.astype(np.uint8) where they are 0..255, (images >> 8).astype(np.uint8) where 0..65535"
    if len(shape) == 2:
        return "save images.reshape(len(images), height, width)"
    return "save np.ascontiguousarray(images)" if len(shape) in (3, 4) else "save them in this shape"


def _label_fix(labels: NDArray[Any], images: int) -> str:
    """Returns how to save labels of another type or number of dimensions; empty where that is not known."""
    if labels.shape == (images, 1):
        return ": save labels.ravel()"
    if labels.ndim == 2 and len(labels) == images and labels.dtype.kind in "iufb":
        return ": save labels.argmax(axis=1) where each row marks one class, with -1 where unknown"
    if labels.shape == (images,) and labels.dtype.kind in "fb":
        return ": save labels.astype(int), with -1 where unknown"
    if labels.shape == (images,) and labels.dtype.kind == "S":
        return ": save labels.astype(str), with '' where unknown"
    return ""


def _fault(shape: tuple[int, ...]) -> str | None:
    """Returns why images of a shape, [n, h, w] or [n, h, w, c], cannot be used, and the fix; None where they can."""
    if shape[0] and 0 in shape[1:]:
        return "images without pixels: save images of at least 1 x 1 pixels"
    channels = shape[3] if len(shape) == 4 else 1
    if channels in (1, 3):
        return None
    fix = f"images[..., :{1 if channels < 3 else 3}], or the channels that count"
    if shape[1] in (1, 3):
        fix = "np.moveaxis(images, 1, -1), which has the channels last"
    return f"images of {channels} channels, wanted are 1 (grey) or 3 (RGB): save {fix}"


def is_npz(name: str) -> bool:
    """True for names of NumPy archives."""
    return posixpath.splitext(name)[1].lower() == ".npz"
