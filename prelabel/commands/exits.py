"""Exit statuses of the commands."""

EXIT_ERROR = 2
"""The command could not be done or finished."""
EXIT_ERROR_ROWS = 3
"""Finished, but some rows are errors."""
EXIT_NOT_CERTIFIED = 4
"""Finished, but an audit certified nothing, or not every class."""
EXIT_INTERRUPTED = 130
"""Interrupted by the user."""
