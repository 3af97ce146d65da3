"""Writing files whole or not at all, and hashing them."""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from prelabel.errors import InputError


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 lower-case hexadecimal characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Makes renames and new names in a directory survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Makes a directory, where it is not there, and those above it, so that their names survive a power loss."""
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in new:
        fsync_directory(one.parent)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it: readers see the old file or the new one.

    The file and its directory are synced, so the promise holds over a power loss as well as over a killed process.
    Where `path` is a link to a file, that one is written.

    Raises:
        InputError: A device or a pipe lies at `path`, which cannot be written as a whole.
    """
    _refuse_special(path)
    if path.is_symlink():
        path = path.resolve()
    # A number at random: on a shared disk, a process of the same number on another machine may write the same file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def check_output(path: Path) -> None:
    """Checks that a command can write the file of `--output`, which it does before its work.

    Raises:
        InputError: There is no folder for it, or something lies there that is no file.
    """
    check_folder_of(path)
    if path.is_dir():
        raise InputError(f"--output {path} is a folder, and a file is written: name one")
    _refuse_special(path)


def check_folder_of(path: Path) -> None:
    """Raises `InputError` unless the folder is there that a file or folder of `--output` is to be made in."""
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {path.parent}")


def _refuse_special(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a device or a pipe, and files are written whole or not at all: name a file")


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes bytes by `write_atomically`."""
    write_atomically(path, lambda file: file.write(content))


def write_text_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 text by `write_atomically`."""
    write_bytes_atomically(path, text.encode())


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary directory beside `path` and renames it at the end: `path` is there whole or not at all.

    Where `path` is a link to an empty directory, that one is filled.

    Raises:
        InputError: `path` is there already and is not an empty directory, or is a mount point, or has no name of its
            own, such as `.`.
    """
    if path.name in ("", ".."):
        raise InputError(f"{path} cannot be made as a whole: name a new folder in it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already: choose a new or empty directory")
    given, path = path, path.resolve()  # a link cannot be replaced by a directory, what it leads to can
    path.parent.mkdir(parents=True, exist_ok=True)
    # At random: in containers a process that was killed and left its directory mostly had the number that this one has.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.mkdir()
    try:
        if path.exists():  # before the work, not after it: an empty mount point cannot be replaced
            try:
                temporary.replace(path)
            except OSError as error:
                raise InputError(
                    f"{given} cannot be replaced ({error.strerror}), as a mount point cannot: name a new folder in it"
                ) from None
            temporary.mkdir()
        yield temporary
        fsync_directory(temporary)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_directory(path.parent)
