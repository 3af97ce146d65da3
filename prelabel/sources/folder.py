"""A folder tree of image files; `labelled/<class>/*` and `test/<class>/*` of the training layout give labels."""

import copy
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from prelabel.errors import InputError
from prelabel.images import IMAGE_SUFFIXES
from prelabel.sources.base import Sample

LABELLED_FOLDERS = ("labelled", "test")
"""Folders whose sub-folders are classes."""


class FolderSource:
    """Image files below a folder in the order of their relative paths; the path relative to the folder is the id.

    Hidden files and folders are left out. Links to folders are followed, each real folder is read once.
    """

    def __init__(self, root: Path, only: Sequence[str] = ()) -> None:
        """Lists the files below `root`, or only those in its sub-folders named in `only`.

        Raises:
            InputError: A folder cannot be listed, or two files would have the same id.
        """
        self._root = root
        self._start = 0
        """Position of the first image that this source holds: not 0 in a section."""
        self._names = sorted(name for name in _list_images(root) if not only or name.split("/")[0] in only)
        self._ids = [_printable(name) for name in self._names]
        if len(set(self._ids)) < len(self._ids):
            twice = next(one for one, count in Counter(self._ids).items() if count > 1)
            raise InputError(f"two files below {_printable(str(root))} are both shown as {twice!r}: rename one of them")

    @property
    def manifest_hash(self) -> str:
        """Hash over relative paths and file sizes in bytes; file contents are not read."""
        digest = hashlib.sha256()
        for name in self._names:
            try:
                size = (self._root / name).stat().st_size
            except OSError:
                size = -1
            digest.update(os.fsencode(f"{name}\0{size}\n"))
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def section(self, start: int, stop: int) -> "FolderSource":
        """Returns a source that reads no files but start..stop."""
        section = copy.copy(self)
        section._start = start
        section._names, section._ids = self._names[start:stop], self._ids[start:stop]
        return section

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields files start..stop; an unreadable file is a `Sample` with an error."""
        wanted = slice(start - self._start, stop - self._start)
        for name, identity in zip(self._names[wanted], self._ids[wanted], strict=True):
            path = self._root / name
            shown, label = _printable(str(path)), _label_of(identity)
            try:
                # Opening a named pipe would wait for a writer for ever.
                regular = stat.S_ISREG(path.stat().st_mode)
                content = path.read_bytes() if regular else None
                yield Sample(identity, shown, content, label, None if regular else "cannot be read: not a regular file")
            except OSError as error:
                yield Sample(identity, shown, None, label, f"cannot be read: {error.strerror or error}")


def _list_images(root: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for directory, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        status = os.stat(directory)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:  # a link to a folder above would never end
            folders.clear()
            continue
        seen.add(identity)
        # Tools keep copies of images in folders such as .ipynb_checkpoints.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(directory).relative_to(root)
        for name in files:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield (relative / name).as_posix()


def _refuse(error: OSError) -> None:
    # os.walk would leave the folder out without a word.
    raise InputError(f"folder {_printable(str(error.filename))} cannot be listed: {error.strerror}")


def _printable(text: str) -> str:
    """Names that are not UTF-8 arrive as surrogates, which neither protobuf nor Parquet can hold."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _label_of(name: str) -> str | None:
    parts = name.split("/")
    return parts[1] if len(parts) > 2 and parts[0] in LABELLED_FOLDERS else None
