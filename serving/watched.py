"""Files that may change while the server runs: certificates, tokens."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from prelabel.errors import PrelabelError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Seen = tuple[tuple[int, ...] | None, ...]

_RETRY_S = 1.0
"""Until files that could not be used are read again, changed or not: no descriptor was free, or a disk was away."""


class Watched(Generic[T]):
    """What some files hold, read anew when one of them is replaced or written; safe to use from several threads.

    Looking costs one `stat` for each file, so that a removed token is refused from the next call on. Files that cannot
    be used after a change are logged, and what they held before stays in force: a file that is caught half-written
    must not lock everybody out. They are tried again when they change, and each second.

    Args:
        paths: The files.
        load: Reads and checks them.
        now_s: The clock.

    Raises:
        Whatever `load` raises at the first reading.
    """

    def __init__(
        self, paths: Sequence[Path], load: Callable[[], T], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._paths, self._load, self._now_s = paths, load, now_s
        self._lock = threading.Lock()
        # Before the reading: a change in between is then seen at the next look.
        self._seen = self._look()
        self._value = load()
        self._failed: _Seen | None = None
        """The files as they were when they could not be used."""
        self._error = ""
        self._again_at_s = 0.0

    def get(self) -> T:
        """Returns what the files hold now, as far as it can be used."""
        with self._lock:
            seen = self._look()
            if seen != self._seen and (seen != self._failed or self._now_s() >= self._again_at_s):
                self._read(seen)
            return self._value

    def _read(self, seen: _Seen) -> None:
        files = list(map(str, self._paths))
        try:
            self._value = self._load()
        except (PrelabelError, OSError) as error:
            if (seen, str(error)) != (self._failed, self._error):
                logger.error("changed files cannot be used", extra={"files": files, "error": str(error)})
            self._failed, self._error, self._again_at_s = seen, str(error), self._now_s() + _RETRY_S
        else:
            self._seen, self._failed = seen, None
            logger.info("changed files read", extra={"files": files})

    def _look(self) -> _Seen:
        return tuple(_fingerprint(path) for path in self._paths)


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def readable_by_others(path: Path) -> bool:
    """Says whether every user of this machine can read or write the file; its group may."""
    return bool(path.stat().st_mode & 0o006)
