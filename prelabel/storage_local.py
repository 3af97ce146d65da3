"""Folders on a disk of this machine, or on one that is mounted."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from prelabel.errors import InputError, StorageError
from prelabel.files import make_directory, write_atomically
from prelabel.storage import LOCK_FILE, MAX_FILE_BYTES, Kind, Storage, printable


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

    def walk(self, only: Sequence[str] = ()) -> Iterator[tuple[str, int | None]]:
        """See `Storage`; at any time one folder's names of each level are in memory."""
        seen: set[tuple[int, int]] = set()
        first = self._list("", seen)
        # What is not asked for is not read, either: a folder in `only` may be a link to it.
        levels = [iter([name for name in first if not only or (name.rstrip("/") in only and name.endswith("/"))])]
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

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        found = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # a broken link
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
        return found

    def size_bytes(self, name: str) -> int:
        """See `Storage`."""
        return (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return self._read(name)

    def _read(self, name: str, most_bytes: int | None = None) -> bytes:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever; pathlib costs as much as reading.
        descriptor = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if most_bytes is not None and status.st_size > most_bytes:
                raise OSError(errno.EFBIG, f"{status.st_size} bytes are over the limit of {most_bytes} bytes")
            return file.readall()

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """See `Storage`.

        Raises:
            StorageError: A file cannot be read, and the folder that was walked is gone: as rows, all the files in it
                would be errors for ever.
        """
        for name in names:
            try:
                yield self._read(name, MAX_FILE_BYTES)
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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says so
        return False
