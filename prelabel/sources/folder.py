"""A folder tree of image files; `labelled/<class>/*` and `test/<class>/*` of the training layout give labels."""

import copy
import hashlib
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from prelabel.errors import InputError
from prelabel.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from prelabel.reading import reason
from prelabel.sources.base import Sample, spread
from prelabel.sources.names import Names, first_twice
from prelabel.storage import Storage, open_storage, printable

_ESCAPED = re.compile("%(?:2F|5C|25|[01][0-9A-F]|7F)|^%2E")
LABELLED = ("labelled", "labeled")
"""Folders whose sub-folders are the classes of images to learn from, in both spellings."""
UNLABELLED = ("unlabelled", "unlabeled")
"""Folders of the pile."""
TEST = "test"
"""Folder whose sub-folders are the classes of images that training does not learn from."""
LABELLED_FOLDERS = (*LABELLED, TEST)
"""Folders whose sub-folders are classes."""


class FolderSource:
    """Image files below a folder in the order of their relative paths; the path relative to the folder is the id.

    Hidden files and folders are left out. Links to folders are followed, each real folder is read once.
    """

    def __init__(self, root: Path | str | Storage, only: Sequence[str] = ()) -> None:
        """Lists the files below `root`, or only those in its sub-folders named in `only`.

        Raises:
            InputError: A folder cannot be listed, or two files would have the same id.
            StorageError: The object store does not answer.
        """
        self._storage = open_storage(root) if isinstance(root, str | Path) else root
        self._names = Names()
        self._sizes = array("q")
        self._start = 0
        """Position of the first image that this source holds: not 0 in a section."""
        self.left_out: Counter[str] = Counter()
        """Ending of image files that are not read -> files."""
        for name, size in self._storage.walk(only):
            if is_image_name(name):
                self._names.append(name)
                if size is not None:
                    self._sizes.append(size)
            elif (suffix := posixpath.splitext(name)[1].lower()) in OTHER_IMAGE_SUFFIXES:
                self.left_out[suffix] += 1
        if twice := first_twice(self._names, ((name, printable(name)) for name in self._names if not _is_utf8(name))):
            raise InputError(f"two files below {self._storage.shown()} are both shown as {twice!r}: rename one of them")

    @property
    def manifest_hash(self) -> str:
        """Hash over relative paths and file sizes in bytes; file contents are not read."""
        digest = hashlib.sha256()
        for name, size in zip(self._names.encoded(), self._all_sizes(), strict=True):
            digest.update(b"%s\0%d\n" % (name, size))
        return digest.hexdigest()

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields relative path and size in bytes of each image."""
        return zip(map(printable, self._names), self._all_sizes(), strict=True)

    def _all_sizes(self) -> Sequence[int]:
        """Returns the sizes in bytes, -1 where a file cannot be looked at; asked for once."""
        for name in self._names if len(self._sizes) < len(self._names) else ():
            try:
                self._sizes.append(self._storage.size_bytes(name))
            except OSError:
                self._sizes.append(-1)
        return self._sizes

    def section(self, start: int, stop: int) -> "FolderSource":
        """Returns a source for reading files start..stop, and no others: it is small to send to another process."""
        section = copy.copy(self)
        section._names, section._sizes, section._start = self._names.part(start, stop), array("q"), start
        return section

    def spots(self, count: int) -> list[range]:
        """Returns the positions of `count` files, one by one: the manifest does not cover what is in them."""
        return [range(i, i + 1) for i in spread(len(self), count)]

    def __len__(self) -> int:
        return len(self._names)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields files start..stop; an unreadable file is a `Sample` with an error."""
        names = self._names[start - self._start : stop - self._start]
        for name, content in zip(names, self._storage.read_many(names), strict=True):
            identity = printable(name)
            yield to_sample(identity, self._storage.shown(name), content, label_of(identity))


def is_image_name(name: str) -> bool:
    """True for names whose ending is that of an image, and that are not hidden."""
    base = posixpath.basename(name)
    return posixpath.splitext(base)[1].lower() in IMAGE_SUFFIXES and not base.startswith(".")


def label_of(name: str) -> str | None:
    """Returns the class that a relative path says, None where it says none.

    What `prelabel.adapters.pictures.folder_name` writes as %XX, since no folder's name can hold it, is read back.
    """
    parts = name.split("/")
    if len(parts) < 3 or parts[0] not in LABELLED_FOLDERS:
        return None
    return _ESCAPED.sub(lambda match: chr(int(match[0][1:], 16)), parts[1])


def to_sample(identity: str, shown: str, content: bytes | OSError, label: str | None) -> Sample:
    """Returns the sample of a file, or of why it cannot be read."""
    if isinstance(content, OSError):
        return Sample(identity, shown, None, label, f"cannot be read: {reason(content)}")
    return Sample(identity, shown, content, label)


def _is_utf8(name: str) -> bool:
    return name.isascii() or not any("\udc80" <= character <= "\udcff" for character in name)
