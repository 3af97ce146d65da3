"""A folder tree of image files; the training layout `labelled/<class>/*` + `unlabelled/**` gives labels."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from prelabel.images import IMAGE_SUFFIXES
from prelabel.sources.base import Sample

LABELLED = "labelled"
UNLABELLED = "unlabelled"


class FolderSource:
    """Image files below a folder in the order of their relative paths; the path relative to the folder is the id."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = sorted(_list_images(root))

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

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields files start..stop; an unreadable file is a `Sample` with an error."""
        for name in self._names[start:stop]:
            path = self._root / name
            label = _label_of(name)
            # Names that are not UTF-8 arrive as surrogates, which neither protobuf nor Parquet can hold.
            shown, shown_path = (os.fsencode(text).decode("utf-8", "backslashreplace") for text in (name, path))
            try:
                yield Sample(shown, shown_path, path.read_bytes(), label)
            except OSError as error:
                yield Sample(shown, shown_path, None, label, f"cannot be read: {error.strerror or error}")


def _list_images(root: Path) -> Iterator[str]:
    # followlinks=False: a link to a parent folder would never end.
    for directory, _, files in os.walk(root):
        relative = Path(directory).relative_to(root)
        for name in files:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield (relative / name).as_posix()


def _label_of(name: str) -> str | None:
    parts = name.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == LABELLED else None
