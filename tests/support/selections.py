"""`prelabel select` and its neighbours as a user types them, and what they wrote."""

import csv
from pathlib import Path

from support import command_line


def run(*arguments: object) -> int:
    """Runs `prelabel` without a progress line; returns its exit status."""
    quiet = ("--progress", "none") if arguments[0] in ("select", "duplicates") else ()
    return command_line.run(*arguments, *quiet)


def tasks(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of a selection's tasks.csv."""
    with (folder / "tasks.csv").open(newline="") as file:
        return list(csv.DictReader(file))
