"""Where inputs and outputs lie: one interface over a folder on a disk and one in an object store.

    photos, /data/photos, file:///data/photos     `LocalStorage`

A folder is opened once; the files in it have names relative to it, with `/` between their parts. Trouble with one file
is an `OSError`, as Python's own; a store that is away or lets nobody in is a `StorageError`.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Literal, Protocol
from urllib.parse import unquote, urlsplit

from prelabel.errors import InputError
from prelabel.files import write_atomically

LOCK_FILE = ".lock"
"""Held by the process that writes a folder."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

Kind = Literal["file", "folder", "nothing"]


class Storage(Protocol):
    """A folder."""

    def shown(self, name: str = "") -> str:
        """Returns the path or URL of a file, or of the folder itself, for messages and rows; nothing secret is in it.

        Names that are not UTF-8 are shown escaped.
        """

    def kind(self, name: str = "") -> Kind:
        """Returns what lies under a name, or what the folder itself is."""

    def names(self) -> list[str]:
        """Returns the sorted names of all files and folders directly in the folder; those of folders end in `/`."""

    def size_bytes(self, name: str) -> int:
        """Returns the size of a file.

        Raises:
            OSError: There is none, or it cannot be looked at.
        """

    def read(self, name: str) -> bytes:
        """Returns a whole file.

        Raises:
            OSError: It is missing, or cannot be read; `FileNotFoundError` is among them.
        """

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """Yields each file, or why it cannot be read, in order; an object store is asked for several at a time."""

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; it can seek.

        Raises:
            OSError: It is missing, or cannot be read.
        """

    def write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """Lets `write` fill a file, which gets its name when it is whole and safe: readers see the old or the new one.

        Raises:
            OSError: It cannot be written, for example because the disk is full; nothing is changed then.
        """

    def delete(self, name: str) -> None:
        """Deletes a file; one that is not there is no error."""

    def lock(self) -> AbstractContextManager[None]:
        """Makes the folder and holds it alone, by the file `LOCK_FILE` in it.

        Raises:
            InputError: Another process holds it, or it cannot be made or written.
        """


def is_url(where: str | Path) -> bool:
    """True for `scheme://...`, of whatever scheme."""
    return _URL.match(str(where)) is not None


def open_storage(where: str | Path) -> Storage:
    """Opens the folder at a path or URL; it need not exist.

    Raises:
        InputError: The URL is of an unknown kind or holds credentials, or the extra `cloud` is not installed.
    """
    if not is_url(where):
        return LocalStorage(Path(where))
    url = str(where)
    parts = urlsplit(url)
    if parts.username or parts.password:  # it would be in every row, log and error
        raise InputError(
            f"a {parts.scheme}:// URL holds credentials: leave them out, they come from the environment "
            "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ...) or the machine's role"
        )
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"{url} names the host {parts.netloc!r}: a file on this machine is file:///path")
        return LocalStorage(Path(unquote(parts.path)))
    raise InputError(f"{parts.scheme}:// is not supported: give a path or file:///path")


def printable(text: str) -> str:
    """Escapes what is not UTF-8: such names arrive as surrogates, which neither protobuf nor Parquet can hold."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


class LocalStorage:
    """A folder on a disk of this machine, or one that is mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def shown(self, name: str = "") -> str:
        """See `Storage`."""
        return printable(str(self.path / name))

    def kind(self, name: str = "") -> Kind:
        """See `Storage`; whatever exists and is no folder counts as a file."""
        path = self.path / name
        return "folder" if path.is_dir() else "file" if path.exists() else "nothing"

    def names(self) -> list[str]:
        """See `Storage`."""
        with os.scandir(self.path) as entries:
            return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)

    def size_bytes(self, name: str) -> int:
        """See `Storage`."""
        return (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return (self.path / name).read_bytes()

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """See `Storage`."""
        for name in names:
            try:
                yield self.read(name)
            except OSError as error:
                yield error

    def open(self, name: str) -> IO[bytes]:
        """See `Storage`."""
        return (self.path / name).open("rb")

    def write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """See `Storage`; file and folder are synced, so that the promise holds over a power loss."""
        write_atomically(self.path / name, write)

    def delete(self, name: str) -> None:
        """See `Storage`."""
        (self.path / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """See `Storage`; a killed process lets go by itself."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"--output {self.shown()} cannot be written: {error.strerror}; choose another directory"
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise InputError(
                    f"--output {self.shown()} is being written by another prelabel run (process {holder}): "
                    "wait until it ends, or choose another directory"
                ) from None
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)
