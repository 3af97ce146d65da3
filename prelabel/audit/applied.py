"""`_applied.json` in the directory of a draw: with which choices its answers were applied, so that peeking is noticed.

Who applies the same answers with other options until the lanes please has chosen after seeing the answers, and the
promise does not cover that.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.files import sha256_file, write_text_atomically

logger = logging.getLogger(__name__)

APPLIED_FILE = "_applied.json"
ANSWERS_KEY = "answers_sha256"

Choices = dict[str, Any]
"""Name of an option -> what was chosen; hashes of files; under `ANSWERS_KEY` a hash of the answers."""


def choices_of(answers: NDArray[np.int32], files: dict[str, Path | None], **options: object) -> Choices:
    """Returns what was chosen.

    Args:
        answers: int32 [n], -1..K-1, in the order of the draw.
        files: Option -> file.
        options: Option -> value.
    """
    hashes = {name: None if path is None else sha256_file(path) for name, path in files.items()}
    return {**options, **hashes, ANSWERS_KEY: hashlib.sha256(answers.tobytes()).hexdigest()}


def peeking(audit: Path, choices: Choices) -> list[str]:
    """Returns warnings where the answers were applied before with other choices, or were others.

    Raises:
        InputError: The file is damaged.
    """
    earlier = _read(audit)
    changed = [name for name in choices if any(one.get(name) != choices[name] for one in earlier)]
    warnings = []
    if options := [f"--{name.replace('_', '-')}" for name in changed if name != ANSWERS_KEY]:
        warnings.append(
            f"this audit was applied before with other {' and '.join(options)}: the promise holds only for what was "
            "chosen before any answer was seen"
        )
    if ANSWERS_KEY in changed:
        warnings.append(
            "this audit was applied before with other answers: the promise holds only if they were corrected without "
            "a look at predictions and lanes"
        )
    return warnings


def note_applied(audit: Path, choices: Choices) -> None:
    """Notes what was chosen; where the directory cannot be written to, says so in the log.

    Raises:
        InputError: The file is damaged.
    """
    entries = _read(audit)
    if choices in entries:
        return
    try:
        write_text_atomically(audit / APPLIED_FILE, json.dumps([*entries, choices], indent=1) + "\n")
    except OSError as error:
        logger.warning(
            "warning: %s cannot be written (%s): that these answers are applied again will not be noticed",
            audit / APPLIED_FILE,
            error.strerror,
        )


def _read(audit: Path) -> list[Choices]:
    path = audit / APPLIED_FILE
    try:
        entries: list[Choices] = json.loads(path.read_bytes())
        if not all(isinstance(one, dict) for one in entries):
            raise ValueError("an entry without options")
        return entries
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): it lists how these answers were applied; mend it") from None
