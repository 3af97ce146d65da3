"""A text file that lists images, one path or URL a line."""

import copy
import hashlib
import os
import posixpath
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from prelabel.errors import InputError
from prelabel.reading import readable
from prelabel.sources.base import Sample, spread
from prelabel.sources.folder import TEST, is_image_name, label_of, to_sample
from prelabel.sources.names import Names
from prelabel.storage import Storage, is_url, locate, open_storage, printable, unshortened
from prelabel.storage_local import LocalStorage


class ListSource:
    """The files of a list, in its order; a line is a path relative to the list, an absolute path, or a URL, and the id.

    Empty lines are left out; there are no comments, since a name may begin with any sign.
    """

    def __init__(self, path: Path | str, storage: Storage | None = None) -> None:
        """Reads the list, not the files.

        Raises:
            InputError: It cannot be read, is no list of images, holds a line twice, or a URL that cannot be used.
        """
        self._storage, name = (storage, str(path)) if storage else locate(path)
        self._shown = self._storage.shown(name)
        self._others: dict[str, Storage] = {}
        self._lines = Names()
        self._sizes = array("q")
        self._start = 0
        """Position of the first line that this source holds: not 0 in a section."""
        with readable(f"{self._shown} cannot be read", OSError):
            text = os.fsdecode(self._storage.read(name).removeprefix(b"\xef\xbb\xbf"))
        self._parse(text)

    def _parse(self, text: str) -> None:
        seen: dict[str, int] = {}
        some_image = False
        for number, ended in enumerate(text.split("\n"), 1):
            line = ended.removesuffix("\r")
            if not line:
                continue
            if "\0" in line:
                raise InputError(f"{self._shown}, line {number}: a zero byte; a list is text, one path or URL a line")
            first = seen.setdefault(printable(line), number)
            if first != number:
                raise InputError(f"{self._shown}, line {number}: the same as line {first}: each image is wanted once")
            if is_url(line):
                try:
                    self._place(line)
                except InputError as error:
                    raise InputError(f"{self._shown}, line {number}: {error}") from None
            elif not isinstance(self._storage, LocalStorage) and posixpath.normpath(line).startswith("../"):
                raise InputError(
                    f"{self._shown}, line {number}: {printable(line)} leads out of the folder of the list, which an "
                    "object store does not follow: write the whole URL"
                )
            some_image = some_image or is_image_name(line)
            self._lines.append(line)
        if self._lines and not some_image:
            raise InputError(
                f"{self._shown} is no list of images: none of its {len(self._lines)} lines ends like an image file "
                "(one path or URL a line is wanted)"
            )

    def _place(self, line: str) -> tuple[Storage, str]:
        """Returns where a line's file lies."""
        if is_url(line):
            scheme, _, rest = unshortened(line).partition("://")
            host, _, name = rest.partition("/")
            root = f"{scheme}://{host}"
            if scheme == "file":  # as pathlib and browsers write it: what is no plain sign is escaped
                root, name = f"file://{host}/", unquote(name, errors="surrogateescape")
                if "\0" in name:
                    raise InputError("a zero byte (%00), which no file name has")
        elif line.startswith("/"):
            root, name = "/", line.lstrip("/")
        elif isinstance(self._storage, LocalStorage):
            return self._storage, line
        else:  # to an object store, `..` is a name like any other
            return self._storage, posixpath.normpath(line)
        if root not in self._others:
            self._others[root] = open_storage(root)
        return self._others[root], name

    @property
    def manifest_hash(self) -> str:
        """Hash over lines and, of files on this machine, sizes in bytes; an object store is not asked for them."""
        digest = hashlib.sha256()
        for line, size in zip(self._lines.encoded(), self._all_sizes(), strict=True):
            digest.update(b"%s\0%d\n" % (line, size))
        return digest.hexdigest()

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields each line, and the size in bytes of a file on this machine."""
        return zip(map(printable, self._lines), self._all_sizes(), strict=True)

    def _all_sizes(self) -> Sequence[int]:
        for line in self._lines if len(self._sizes) < len(self._lines) else ():
            storage, name = self._place(line)
            try:
                self._sizes.append(storage.size_bytes(name) if isinstance(storage, LocalStorage) else -1)
            except OSError:
                self._sizes.append(-1)
        return self._sizes

    def section(self, start: int, stop: int) -> "ListSource":
        """Returns a source for reading lines start..stop, and no others: it is small to send to another process."""
        section = copy.copy(self)
        section._lines, section._sizes, section._start = self._lines.part(start, stop), array("q"), start
        return section

    def splits(self) -> "tuple[ListSource, ListSource | None]":
        """Returns the lines for training, and those below `test/` where there are some."""
        train, test = copy.copy(self), copy.copy(self)
        for split in (train, test):
            split._lines, split._sizes = Names(), array("q")
        for line in self._lines:
            is_test = posixpath.normpath(line).startswith(f"{TEST}/")
            (test if is_test else train)._lines.append(line)
        return train, test if len(test) else None

    def spots(self, count: int) -> list[range]:
        """Returns the positions of `count` files, one by one: the manifest does not cover what is in them."""
        return [range(i, i + 1) for i in spread(len(self), count)]

    def __len__(self) -> int:
        return len(self._lines)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields the files of lines start..stop; one that cannot be read is a `Sample` with an error."""
        places = ((line, *self._place(line)) for line in self._lines[start - self._start : stop - self._start])
        for _, group in groupby(places, lambda place: id(place[1])):
            lines, storages, names = zip(*group, strict=True)
            for line, name, content in zip(lines, names, storages[0].read_many(names), strict=True):
                label = label_of(posixpath.normpath(printable(line)))  # `find .` begins its lines with ./
                yield to_sample(printable(line), storages[0].shown(name), content, label)
