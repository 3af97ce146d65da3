"""Chosen images as work for people: a CSV, tasks for Label Studio, and the images in a folder if they are wanted.

None of them holds a prediction: who sees one agrees with it too easily, and the audit would measure that.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import quoteattr

from PIL import Image, UnidentifiedImageError

from prelabel.errors import InputError
from prelabel.files import write_atomically, write_bytes_atomically, write_text_atomically
from prelabel.sources import Sample, Source

CSV_FILE = "tasks.csv"
LABEL_STUDIO_FILE = "label_studio.json"
LABEL_STUDIO_CONFIG_FILE = "label_studio_config.xml"
IMAGE_FOLDER = "images"
ID_COLUMN = "id"
ANSWER_COLUMN = "answer"
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
    directory: Path, chosen: Chosen, paths: list[str], images: list[str], reasons: Sequence[str] | None = None
) -> None:
    """Writes the tasks; without classes there is no labelling configuration for Label Studio.

    Args:
        directory: Where to.
        chosen: The images.
        paths: The `path` of each.
        images: What Label Studio finds each by.
        reasons: Why each was chosen, for a column `reason`.
    """
    columns = [chosen.ids, paths, *([] if reasons is None else [reasons]), [""] * len(paths)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([ID_COLUMN, "path", *([] if reasons is None else [REASON_COLUMN]), ANSWER_COLUMN])
    writer.writerows(zip(*columns, strict=True))
    write_text_atomically(directory / CSV_FILE, text.getvalue())
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
        if sample.content is None:
            raise InputError(f"image {sample.id} cannot be read any more: {sample.error}")
        if isinstance(sample.content, bytes):
            names[position] = f"{position:05d}.{_suffix(sample)}"
            write_bytes_atomically(directory / names[position], sample.content)
        else:
            pixels = sample.content[..., 0] if sample.content.shape[2:] == (1,) else sample.content
            names[position] = f"{position:05d}.png"
            write_atomically(directory / names[position], partial(Image.fromarray(pixels).save, format="PNG"))
    return [names[position] for position in range(len(chosen.rows))]


def _samples(source: Source, chosen: Chosen) -> Iterator[tuple[int, Sample]]:
    """Yields (position in the tasks, image), reading in the order of the input."""
    for row, position in sorted(zip(chosen.rows, range(len(chosen.rows)), strict=True)):
        (sample,) = source.read(row, row + 1)
        yield position, sample


def _suffix(sample: Sample) -> str:
    assert isinstance(sample.content, bytes)
    try:
        with Image.open(io.BytesIO(sample.content)) as image:
            return (image.format or "img").lower()
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"image {sample.id} cannot be read any more: {error}") from None
