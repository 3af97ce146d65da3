"""Exit statuses of the commands, and the line that an error ends with."""

from prelabel.progress import write_end

EXIT_ERROR = 2
"""The command could not be done or finished."""
EXIT_ERROR_ROWS = 3
"""Finished, but some rows are errors."""
EXIT_NOT_CERTIFIED = 4
"""Finished, but an audit certified nothing, or not every class."""
EXIT_INTERRUPTED = 130
"""Interrupted by the user."""


def report_error(error: Exception, *, as_json: bool = False) -> int:
    """Writes an error that is the user's to mend, on one line; returns the exit status for it.

    Beside `PrelabelError` that is an OSError: a full disk, a folder without permission.
    """
    write_end("error", " ".join(str(error).split()), as_json=as_json)
    return EXIT_ERROR
