"""Missing and damaged files: what the system and libraries raise becomes errors that name the file and the reason."""

import contextlib
from collections.abc import Iterator

from prelabel.errors import InputError


def reason(error: Exception) -> str:
    """Returns on one line why something cannot be read, without the path that the system repeats in it."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


@contextlib.contextmanager
def readable(complaint: str, *kinds: type[Exception], fix: str = "") -> Iterator[None]:
    """Turns errors of these kinds into an `InputError`: the complaint, which names the file, the reason, the fix."""
    try:
        yield
    except kinds as error:
        raise InputError(f"{complaint}: {reason(error)}{fix and f'; {fix}'}") from None


def readable_parquet(path: str) -> contextlib.AbstractContextManager[None]:
    """Turns what pyarrow raises over a missing or damaged file into an `InputError`."""
    import pyarrow as pa

    return readable(f"{path} is not a readable Parquet file", OSError, pa.ArrowException)
