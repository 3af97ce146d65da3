"""A file that can seek, of which only ranges of bytes can be read."""

import io
from collections.abc import Callable
from typing import Any


class RangeFile(io.RawIOBase):
    """An object of a store as a file; not fsspec's own, whose errors would come untranslated.

    Args:
        read: Returns the bytes from a position (included) to another one (excluded).
        size: Bytes in all.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._position = read, size, 0

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase`."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`; raises what `read` does."""
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        content = self._read(self._position, stop)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
