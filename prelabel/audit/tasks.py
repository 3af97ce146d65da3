"""Chosen images as work for people: a CSV, tasks for Label Studio, and the images in a folder if they are wanted.

None of them holds a prediction: who sees one agrees with it too easily, and the audit would measure that.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import quoteattr

from prelabel.adapters.pictures import encoded_size_px, image_file
from prelabel.addresses import image_address
from prelabel.errors import InputError
from prelabel.files import write_bytes_atomically, write_text_atomically
from prelabel.sources import Sample, Source
from prelabel.spreadsheets import csv_text

CSV_FILE = "tasks.csv"
LABEL_STUDIO_FILE = "label_studio.json"
LABEL_STUDIO_CONFIG_FILE = "label_studio_config.xml"
IMAGE_FOLDER = "images"
COPIES_URL_PREFIX = f"/data/local-files/?d={IMAGE_FOLDER}/"
"""Where Label Studio serves copied images, with the directory of the tasks as its document root."""
ID_COLUMN = "id"
ANSWER_COLUMN = "answer"
IMAGE_COLUMN = "image"
REASON_COLUMN = "reason"
NONE_OF_THESE = "none of these"
"""The answer for an image that belongs to no class; it counts as a wrong label."""


class Chosen(Protocol):
    """Images that people are to look at, in the order of the tasks: those of a draw, or of `prelabel select`."""

    @property
    def manifest_hash(self) -> str:
        """Hash of the input that they are of."""

    @property
    def rows(self) -> Sequence[int]:
        """Their positions in it."""

    @property
    def ids(self) -> Sequence[str]:
        """Their ids."""

    @property
    def classes(self) -> Sequence[str]:
        """What they may be; none where nobody knows yet."""


def write_tasks(
    directory: Path,
    chosen: Chosen,
    paths: list[str],
    copies: list[str] | None = None,
    image_url_prefix: str | None = None,
    reasons: Sequence[str] | None = None,
) -> None:
    """Writes the tasks; without classes there is no labelling configuration for Label Studio.

    Args:
        directory: Where to.
        chosen: The images.
        paths: The `path` of each.
        copies: From `copy_images`, for a column `image`; None where the images stay where they are.
        image_url_prefix: What makes a copy's file name, or else an id, an address that Label Studio can open.
        reasons: Why each was chosen, for a column `reason`.
    """
    columns: dict[str, Sequence[str]] = {ID_COLUMN: chosen.ids, "path": paths}
    if copies is not None:
        columns[IMAGE_COLUMN] = [f"{IMAGE_FOLDER}/{name}" for name in copies]
    if reasons is not None:
        columns[REASON_COLUMN] = reasons
    columns[ANSWER_COLUMN] = [""] * len(paths)
    write_text_atomically(directory / CSV_FILE, csv_text([tuple(columns), *zip(*columns.values(), strict=True)]))
    images = _addresses(chosen, paths, copies, image_url_prefix)
    tasks = [{"data": {"image": image, "uid": identity}} for identity, image in zip(chosen.ids, images, strict=True)]
    write_text_atomically(directory / LABEL_STUDIO_FILE, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
    if not chosen.classes:
        return
    names = [*chosen.classes, *([] if NONE_OF_THESE in chosen.classes else [NONE_OF_THESE])]
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in names)
    write_text_atomically(
        directory / LABEL_STUDIO_CONFIG_FILE,
        '<View>\n  <Image name="image" value="$image"/>\n  <Choices name="label" toName="image" choice="single" '
        f'required="true">\n{choices}\n  </Choices>\n</View>\n',
    )


def copy_images(directory: Path, chosen: Chosen, source: Source) -> list[str]:
    """Copies the chosen images into `directory` and returns their file names, in the order of the chosen.

    Encoded files are copied byte by byte; pixels become PNG. The names are numbers: ids may hold slashes.

    Raises:
        InputError: The source is not the input of the predictions, or an image cannot be read any more.
    """
    if source.manifest_hash != chosen.manifest_hash:
        raise InputError(
            f"the images are another input (manifest {source.manifest_hash[:12]}) than that of the predictions "
            f"({chosen.manifest_hash[:12]}): give them as they were given to `prelabel run`"
        )
    directory.mkdir()
    names: dict[int, str] = {}
    for position, sample in _samples(source, chosen):
        if encoded_size_px(sample.content) is None:
            raise InputError(f"image {sample.id} cannot be read any more: {sample.error or 'it is no image'}")
        content, suffix = image_file(sample)
        names[position] = f"{position:05d}{suffix}"
        write_bytes_atomically(directory / names[position], content)
    return [names[position] for position in range(len(chosen.rows))]


def _addresses(chosen: Chosen, paths: list[str], copies: list[str] | None, image_url_prefix: str | None) -> list[str]:
    if copies is not None:
        return [f"{COPIES_URL_PREFIX if image_url_prefix is None else image_url_prefix}{name}" for name in copies]
    return paths if image_url_prefix is None else [image_address(image_url_prefix, one) for one in chosen.ids]


def _samples(source: Source, chosen: Chosen) -> Iterator[tuple[int, Sample]]:
    """Yields (position in the tasks, image), reading in the order of the input."""
    for row, position in sorted(zip(chosen.rows, range(len(chosen.rows)), strict=True)):
        (sample,) = source.read(row, row + 1)
        yield position, sample
