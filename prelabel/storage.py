"""Where inputs and outputs lie: one interface over a folder on a disk and one in an object store.

    photos, /data/photos, file:///data/photos     `prelabel.storage_local.LocalStorage`
    s3://bucket/photos, gs://..., memory://...    `prelabel.storage_remote.RemoteStorage` (extra `cloud`)

A folder is opened once; the files in it have names relative to it, with `/` between their parts. Trouble with one file
is an `OSError`, as Python's own; a store that is away or lets nobody in is a `StorageError`.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Literal, Protocol
from urllib.parse import unquote

from prelabel.errors import InputError

LOCK_FILE = ".lock"
"""Held by the process that writes a folder."""
MAX_FILE_BYTES = 2 << 30
"""Larger files are no images that could be used, and are not read: 64 million pixels of 16-bit RGBA are 512 MB."""
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

    def sizes(self) -> dict[str, int]:
        """Returns name -> bytes of all files directly in it, by one listing; none that cannot be looked at."""

    def walk(self, only: Sequence[str] = ()) -> "Iterator[tuple[str, int | None]]":
        """Yields name and size in bytes of all files below the folder, in the order of their names.

        With `only`, of those below its sub-folders of these names.

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
        """Yields each file, or why it cannot be read, in order; an object store is asked for several at a time.

        On a disk, a file of more than `MAX_FILE_BYTES` cannot be read.
        """

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


def unshortened(url: str) -> str:
    """Returns a URL with the slashes that it has lost: Path("s3://bucket") is s3:/bucket, Java writes file:/path."""
    if not _SHORTENED.match(url):
        return url
    return url.replace(":/", ":///" if url.startswith("file:") else "://", 1)


def open_storage(where: str | Path) -> Storage:
    """Opens the folder at a path or URL; it need not exist.

    Raises:
        InputError: It is empty, or a URL of an unknown kind or with credentials, or the extra `cloud` is not installed.
    """
    url = str(where)
    if not url:  # not the working directory: somebody's variable is not set
        raise InputError("a path or URL is empty: give one, or . for the working directory")
    from prelabel.storage_local import LocalStorage

    if not is_url(where):
        return LocalStorage(Path(where))
    url = unshortened(url)
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
