"""Where inputs and outputs lie: one interface over a folder on a disk and one in an object store.

    photos, /data/photos, file:///data/photos     `LocalStorage`
    s3://bucket/photos, gs://..., memory://...    `prelabel.storage_remote.RemoteStorage` (extra `cloud`)

A folder is opened once; the files in it have names relative to it, with `/` between their parts. Trouble with one file
is an `OSError`, as Python's own; a store that is away or lets nobody in is a `StorageError`.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Literal, Protocol
from urllib.parse import unquote

from prelabel.errors import InputError, StorageError
from prelabel.files import make_directory, write_atomically

LOCK_FILE = ".lock"
"""Held by the process that writes a folder."""

REMOTE_SCHEMES = ("s3", "gs", "memory")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SHORTENED = re.compile(rf"(?:{'|'.join(REMOTE_SCHEMES)}|file):/(?!/)")

Kind = Literal["file", "folder", "nothing"]


class Storage(Protocol):
    """A folder."""

    def shown(self, name: str = "") -> str:
        """Returns the path or URL of a file, or of the folder itself, for messages and rows; nothing secret is in it.

        Names that are not UTF-8 are shown escaped.
        """

    def kind(self, name: str = "") -> Kind:
        """Returns what lies under a name, or what the folder itself is."""

    def split(self) -> "tuple[Storage, str]":
        """Returns the folder that this one, or the file of its name, lies in, and the name there."""

    def names(self, folder: str = "") -> list[str]:
        """Returns the sorted names of all files and folders directly in it, or in a sub-folder; folders end in `/`."""

    def walk(self) -> "Iterator[tuple[str, int | None]]":
        """Yields name and size in bytes of all files below the folder, in the order of their names.

        Hidden files and folders are left out: tools keep copies of images in folders such as `.ipynb_checkpoints`.
        Links to folders are followed, each real folder is read once. Sizes are None where a listing does not say them.

        Raises:
            InputError: A folder cannot be listed.
        """

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
    """True for `scheme://...`, of whatever scheme, and for the URLs of ours that `pathlib` took a slash from."""
    return _URL.match(str(where)) is not None or _SHORTENED.match(str(where)) is not None


def open_storage(where: str | Path) -> Storage:
    """Opens the folder at a path or URL; it need not exist.

    Raises:
        InputError: It is empty, or a URL of an unknown kind or with credentials, or the extra `cloud` is not installed.
    """
    url = str(where)
    if not url:  # not the working directory: somebody's variable is not set
        raise InputError("a path or URL is empty: give one, or . for the working directory")
    if not is_url(where):
        return LocalStorage(Path(where))
    if _SHORTENED.match(url):  # Path("s3://bucket") is s3:/bucket, and many options are paths
        url = url.replace(":/", ":///" if url.startswith("file:") else "://", 1)
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if "@" in host:  # they would be in every row, log and error
        raise InputError(
            f"a {scheme}:// URL holds credentials: leave them out, they come from the environment "
            "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ...) or the machine's role"
        )
    if scheme == "file":
        if host not in ("", "localhost"):
            raise InputError(f"{url} names the host {host!r}: a file on this machine is file:///path")
        return LocalStorage(Path(unquote(slash + path)))
    if scheme not in REMOTE_SCHEMES:
        raise InputError(
            f"{scheme}:// is not supported: give a path, or a URL of "
            f"{', '.join(f'{one}://' for one in (*REMOTE_SCHEMES, 'file'))}"
        )
    if not host:
        raise InputError(f"{url} names no bucket: wanted is {scheme}://bucket/path")
    from prelabel.storage_remote import RemoteStorage

    return RemoteStorage(scheme, rest)


def locate(where: str | Path) -> tuple[Storage, str]:
    """Returns the folder at a path or URL and "", or the folder that the file there lies in and its name.

    Raises:
        InputError: Nothing lies there; or as `open_storage`.
        StorageError: The object store does not answer, or there is no such bucket.
    """
    storage = open_storage(where)
    kind = storage.kind()
    if kind == "nothing":
        raise InputError(f"input {storage.shown()} does not exist")
    return (storage, "") if kind == "folder" else storage.split()


def printable(text: str) -> str:
    """Escapes what is not UTF-8: such names arrive as surrogates, which neither protobuf nor Parquet can hold."""
    return text if text.isascii() else os.fsencode(text).decode("utf-8", "backslashreplace")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says so
        return False


class LocalStorage:
    """A folder on a disk of this machine, or one that is mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._walked: tuple[int, int] | None = None
        """Device and inode of the folder when it was walked."""

    def shown(self, name: str = "") -> str:
        """See `Storage`."""
        return printable(str(self.path / name))

    def kind(self, name: str = "") -> Kind:
        """See `Storage`; whatever exists and is no folder counts as a file."""
        path = self.path / name
        return "folder" if path.is_dir() else "file" if path.exists() else "nothing"

    def split(self) -> tuple[Storage, str]:
        """See `Storage`."""
        return LocalStorage(self.path.parent), self.path.name

    def walk(self) -> Iterator[tuple[str, int | None]]:
        """See `Storage`; at any time one folder's names of each level are in memory."""
        seen: set[tuple[int, int]] = set()
        levels = [iter(self._list("", seen))]
        (self._walked,) = seen
        while levels:
            name = next(levels[-1], None)
            if name is None:
                levels.pop()
            elif name.endswith("/"):
                levels.append(iter(self._list(name, seen)))
            else:
                yield name, None

    def _list(self, folder: str, seen: set[tuple[int, int]]) -> list[str]:
        """Returns what lies in a folder, none where it was read before; in the order of all paths below it."""
        path = os.path.join(self.path, folder.rstrip("/"))
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above would never end
                return []
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                # The slash counts for the order: a-b/c comes before a/c.
                return sorted(
                    f"{folder}{entry.name}/" if _is_folder(entry) else folder + entry.name
                    for entry in entries
                    if not entry.name.startswith(".")
                )
        except OSError as error:
            shown = self.shown(folder.rstrip("/"))
            raise InputError(f"folder {shown} cannot be listed: {error.strerror}") from None

    def names(self, folder: str = "") -> list[str]:
        """See `Storage`."""
        with os.scandir(self.path / folder) as entries:
            return sorted(f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries)

    def size_bytes(self, name: str) -> int:
        """See `Storage`."""
        return (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever; pathlib costs as much as reading.
        descriptor = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return file.readall()

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """See `Storage`.

        Raises:
            StorageError: A file cannot be read, and the folder that was walked is gone: as rows, all the files in it
                would be errors for ever.
        """
        for name in names:
            try:
                yield self.read(name)
            except OSError as error:
                self._check_still_there()
                yield error

    def _check_still_there(self) -> None:
        if self._walked is None:
            return
        try:
            status = os.stat(self.path)
            now = status.st_dev, status.st_ino
        except OSError:
            now = None
        if now != self._walked:
            raise StorageError(f"folder {self.shown()} is not the one that was listed any more: is its disk mounted?")

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
            make_directory(self.path)
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
