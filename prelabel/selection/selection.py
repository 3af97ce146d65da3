"""What was selected and how: tasks for people, and `_select.json` for whoever asks later."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prelabel import __version__
from prelabel.audit.tasks import IMAGE_FOLDER, copy_images, write_tasks
from prelabel.duplicates.table import check_input, read_duplicates
from prelabel.files import new_directory, write_text_atomically
from prelabel.sources import Source

SELECTION_FILE = "_select.json"


@dataclass(frozen=True)
class Selection:
    """Images for people, the most wanted first."""

    manifest_hash: str
    """Hash of the input that they are of."""
    rows: tuple[int, ...]
    """Their positions in it."""
    ids: tuple[str, ...]
    """Their ids."""
    paths: tuple[str, ...]
    """Where they lie."""
    reasons: tuple[str, ...]
    """Why each was selected."""
    classes: tuple[str, ...]
    """What they may be; none where nobody knows yet."""
    about: dict[str, Any]
    """How they were selected."""


def write_selection(output: Path, selection: Selection, images: Source | None, image_url_prefix: str | None) -> None:
    """Writes a new directory with the tasks and `_select.json`.

    Args:
        output: The directory; it must be new or empty.
        selection: What was selected.
        images: The input, to copy the images; None to leave them where they are.
        image_url_prefix: What makes an image's name an address; see `write_tasks`.

    Raises:
        InputError: The directory holds files, or `images` is another input.
    """
    with new_directory(output) as directory:
        copies = None if images is None else copy_images(directory / IMAGE_FOLDER, selection, images)
        write_tasks(directory, selection, list(selection.paths), copies, image_url_prefix, selection.reasons)
        record = {
            "version": __version__,
            "manifest_hash": selection.manifest_hash,
            "count": len(selection.ids),
            **selection.about,
            "ids": selection.ids,
        }
        write_text_atomically(directory / SELECTION_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def duplicate_ids(path: Path, manifest_hash: str) -> frozenset[str]:
    """Returns the ids that a file of `prelabel duplicates` calls duplicates of an earlier image.

    Raises:
        InputError: It is no such file, or is about another input.
    """
    table, info = read_duplicates(path)
    check_input(path, info, manifest_hash)
    return frozenset(table["id"].to_pylist())
