"""Folders in object stores, through fsspec (s3fs for S3 and what speaks its protocol, gcsfs for Google's).

Credentials and endpoints come from where the stores' own tools look for them (AWS_ACCESS_KEY_ID, AWS_PROFILE,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, ...) and are named in no message.
"""

import contextlib
import errno
import io
import json
import logging
import os
import posixpath
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any
from uuid import uuid4

from prelabel.errors import InputError, PrelabelError, StorageError
from prelabel.ranges import RangeFile
from prelabel.storage import LOCK_FILE, Kind, Storage

logger = logging.getLogger(__name__)

READ_AT_ONCE = 64
"""Most objects that are asked for together: each takes tens of milliseconds to come, and they come at the same time."""

READ_AT_FIRST = 16
"""The first ones of a reading are fewer: how large they are is not known before they are there."""

READ_AT_ONCE_BYTES = 64 << 20
"""The next ones are not more than would be so many bytes, by the largest of those before them."""

READ_AHEAD_BYTES = 4 << 20
"""Read of a large object at a time: small reads of neighbours cost one request."""

_OPTIONS: dict[str, dict[str, Any]] = {
    # One request for each object instead of two: s3fs would ask for its size first, to get large ones in pieces.
    "s3": {"max_concurrency": 1},
    "gs": {},
    "memory": {},
}

_NOT_LET_IN = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
     "RequestTimeTooSkewed", "AccountProblem", "NotSignedUp", "AllAccessDisabled"}
)  # fmt: skip
"""S3's codes for callers who may read nothing at all, not only not this object."""


class RemoteStorage:
    """The objects whose names start with one prefix."""

    def __init__(self, scheme: str, path: str) -> None:
        """Opens `scheme://path`.

        Raises:
            InputError: The extra `cloud` is not installed.
        """
        try:
            import fsspec

            # Listings are read once, and must not stay in memory.
            self._files: Any = fsspec.filesystem(scheme, use_listings_cache=False, **_OPTIONS[scheme])
        except ImportError:
            raise InputError(f"{scheme}:// URLs need more packages: pip install 'prelabel[cloud]'") from None
        self._scheme = scheme
        self._path = path.rstrip("/")

    def shown(self, name: str = "") -> str:
        """See `Storage`."""
        return f"{self._scheme}://{self._key(name)}".encode("utf-8", "backslashreplace").decode()

    def _key(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def kind(self, name: str = "") -> Kind:
        """See `Storage`."""
        with self._translated():
            try:
                return "folder" if self._files.info(self._key(name))["type"] == "directory" else "file"
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return "nothing"

    def split(self) -> tuple[Storage, str]:
        """See `Storage`."""
        folder, _, name = self._path.rpartition("/")
        return RemoteStorage(self._scheme, folder), name

    def names(self, folder: str = "") -> list[str]:
        """See `Storage`."""
        return sorted(name for name, _ in self._listed(folder))

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        return {name: size for name, size in self._listed("") if not name.endswith("/")}

    def _listed(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yields name and size of what is directly in a folder; the names of folders end in `/`."""
        with self._translated():
            entries = self._files.ls(self._key(folder), detail=True)
        for entry in entries:
            # Consoles make an empty object `folder/` for a folder.
            if entry["name"].strip("/") == self._key(folder):
                continue
            name = posixpath.basename(entry["name"].rstrip("/"))
            yield f"{name}/" if entry["type"] == "directory" else name, entry["size"]

    def walk(self, only: Sequence[str] = ()) -> Iterator[tuple[str, int | None]]:
        """See `Storage`."""
        start = f"{self._path}/"
        with self._translated():
            for key, size in self._pages_of_s3(start) if self._scheme == "s3" else self._found():
                name = key.removeprefix(start)
                if only and ("/" not in name or name.split("/")[0] not in only):
                    continue
                if name and not name.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
                    yield name, size

    def _pages_of_s3(self, start: str) -> Iterator[tuple[str, int]]:
        """A thousand names at a time, in order: fsspec would hold a kilobyte of details for each object."""
        bucket, _, prefix = start.partition("/")
        options = {"Bucket": bucket, "Prefix": prefix}
        while True:
            page = self._files.call_s3("list_objects_v2", **options)
            for entry in page.get("Contents", ()):
                yield f"{bucket}/{entry['Key']}", entry["Size"]
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _found(self) -> Iterator[tuple[str, int]]:
        found = self._files.find(self._path, detail=True)
        for key in sorted(found):
            yield key.lstrip("/"), found[key]["size"]

    def size_bytes(self, name: str) -> int:
        """See `Storage`."""
        with self._translated():
            return int(self._files.info(self._key(name))["size"])

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return self._read(name)

    def _read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        with self._translated():
            return bytes(self._files.cat_file(self._key(name), start=start, end=stop))

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """See `Storage`.

        Raises:
            StorageError: The store does not answer, or refuses so many files in a row that it will refuse all: as rows
                they would be errors for ever, and the next run may be let in.
        """
        rest, at_once, denied = iter(names), READ_AT_FIRST, 0
        while some := list(islice(rest, at_once)):
            with self._translated():
                keys = [self._key(name) for name in some]
                answers = self._files.cat_ranges(keys, None, None, on_error="return")
                found = [self._checked(one) if isinstance(one, Exception) else bytes(one) for one in answers]
            for one in found:
                denied = denied + 1 if isinstance(one, PermissionError) else 0
                if denied >= READ_AT_ONCE:
                    raise StorageError(
                        f"{self.shown()}: access denied to {READ_AT_ONCE} objects in a row: may you read them?"
                    )
            largest = max(len(one) if isinstance(one, bytes) else 0 for one in found)
            at_once = max(1, min(READ_AT_ONCE, READ_AT_ONCE_BYTES // max(largest, 1)))
            yield from found

    def open(self, name: str) -> IO[bytes]:
        """See `Storage`."""
        content = RangeFile(lambda start, stop: self._read(name, start, stop), self.size_bytes(name))
        return io.BufferedReader(content, READ_AHEAD_BYTES)

    def write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """See `Storage`; stores show an object when all of it has arrived."""
        content = io.BytesIO()
        write(content)
        with self._translated():
            self._files.pipe_file(self._key(name), content.getvalue())

    def delete(self, name: str) -> None:
        """See `Storage`."""
        with self._translated(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._key(name))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """See `Storage`; the lock of a killed process stays, and the error says how to remove it.

        Raises:
            StorageError: The store does not know conditional writes, without which two runs could hold the same folder.
        """
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        }
        content = json.dumps({**holder, "lock": uuid4().hex}).encode()
        if not self._create_lock(content):
            raise InputError(
                f"--output {self.shown()} is being written by another prelabel run ({self._holder()}): wait until it "
                f"ends, or choose another one; if that run is dead, delete {self.shown(LOCK_FILE)}"
            )
        try:
            if self._create_lock(content):
                raise StorageError(
                    f"{self.shown()}: this store ignores conditional writes (If-None-Match), so that nothing would "
                    "keep a second run out: write to a local folder and copy it"
                )
            yield
        finally:
            # After somebody broke the lock, it may be that of another run.
            try:
                if self.read(LOCK_FILE) == content:
                    self.delete(LOCK_FILE)
            except FileNotFoundError:
                pass
            except (OSError, StorageError) as error:  # how the run itself ended is the better message
                logger.warning("delete %s before the next run: %s", self.shown(LOCK_FILE), _message(error))

    def _create_lock(self, content: bytes) -> bool:
        """Creates the lock; False if it is there already."""
        try:
            with self._translated():
                self._files.pipe_file(self._key(LOCK_FILE), content, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            raise InputError(
                f"--output {self.shown()} cannot be written: {_message(error)}; choose another one"
            ) from None
        return True

    def _holder(self) -> str:
        try:
            fields = json.loads(self.read(LOCK_FILE))
            return f"process {fields['process']} on {fields['host']}, since {fields['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Lets pass what concerns one object; everything else means that the store is of no use for now."""
        try:
            yield
        except PrelabelError:
            raise
        except Exception as error:
            raise self._checked(error) from None

    def _checked(self, error: Exception) -> OSError:
        """Returns the error of one object.

        Raises:
            StorageError: It concerns the whole store.
        """
        code = _code(error)
        if code == "NoSuchBucket":
            raise StorageError(f"{self.shown()}: there is no bucket {self._path.split('/')[0]!r}") from None
        if code == "KeyTooLongError":
            return OSError(errno.ENAMETOOLONG, _message(error))
        if code == "InvalidRequest":  # such as an object that is encrypted with a key of its owner
            return PermissionError(errno.EACCES, _message(error))
        of_one_object = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
        if isinstance(error, of_one_object) and code not in _NOT_LET_IN:
            return error
        raise StorageError(f"{self.shown()}: the object store cannot be used: {_message(error)}") from None


def _code(error: BaseException) -> str | None:
    """Returns S3's code of an error."""
    response = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code


def _message(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    if "credentials" in text.lower():
        text += " (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or GOOGLE_APPLICATION_CREDENTIALS)"
    return text
