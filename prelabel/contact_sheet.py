"""A picture of what a model says: per class the most certain, the least certain and the least real images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from prelabel.errors import ImageError, InputError
from prelabel.files import write_atomically
from prelabel.images import ImageSpec, Pixels
from prelabel.sources import Source
from prelabel.table import prediction_tables, table_info

BLOCKS = ("most certain", "least certain", "least real")
PER_BLOCK = 8
THUMBNAIL_PX = 48
MARGIN_PX = 4
BLOCK_GAP_PX = 28
LABEL_WIDTH_PX = 120
HEADER_PX = 40
MAX_CLASSES = 100
"""More rows than that make no picture that anybody can look at; the most frequent classes are shown."""


def choose(
    label_index: NDArray[np.int32], confidence: NDArray[np.float32], realness: NDArray[np.float32], k: int
) -> dict[str, list[int]]:
    """Returns for each of `BLOCKS` the positions of up to `PER_BLOCK` items that are predicted as class `k`.

    Args:
        label_index: int32 [n], the predicted class of each item; failed items have a negative one.
        confidence: float32 [n], 0..1.
        realness: float32 [n], 0..1.
        k: Class index.
    """
    members = np.flatnonzero(label_index == k)
    by_confidence = members[np.argsort(-confidence[members], kind="stable")]
    by_realness = members[np.argsort(realness[members], kind="stable")]
    return {
        "most certain": by_confidence[:PER_BLOCK].tolist(),
        "least certain": by_confidence[::-1][:PER_BLOCK].tolist(),
        "least real": by_realness[:PER_BLOCK].tolist(),
    }


def sheet_of_predictions(path: Path, predictions: Path, source: Source) -> None:
    """Writes the contact sheet of an output directory of `prelabel run` as PNG.

    Raises:
        InputError: There are no predictions, or they are of other images than those of `source`.
    """
    classes: tuple[str, ...] = ()
    # Twelve bytes a row are kept, not the rows.
    labels, confidence, realness = [], [], []
    manifest_hash = source.manifest_hash
    for table in prediction_tables(predictions, ["label", "confidence", "realness"]):
        made_by = table_info(table)
        if made_by.manifest_hash != manifest_hash:
            raise InputError(
                f"the predictions in {predictions} are of another input (manifest {made_by.manifest_hash[:12]}, not "
                f"{manifest_hash[:12]}): give --input as it was given to `prelabel run`"
            )
        classes = made_by.classes
        index = {name: k for k, name in enumerate(classes)}
        labels.append(np.array([-1 if name is None else index[name] for name in table["label"].to_pylist()], np.int32))
        confidence.append(table["confidence"].to_numpy().astype(np.float32, copy=False))
        realness.append(table["realness"].to_numpy().astype(np.float32, copy=False))
    arrays = (np.concatenate(parts) for parts in (labels, confidence, realness))
    write_contact_sheet(path, source, classes, *arrays)


def write_contact_sheet(
    path: Path,
    source: Source,
    classes: Sequence[str],
    label_index: NDArray[np.int32],
    confidence: NDArray[np.float32],
    realness: NDArray[np.float32],
) -> None:
    """Writes the sheet as PNG: a row for each class, a block of columns for each of `BLOCKS`.

    Args:
        path: The PNG.
        source: Where the images are; item i of the arrays is its image i.
        classes: Names, by label index.
        label_index: int32 [n]; negative for failed items, which are left out.
        confidence: float32 [n], 0..1.
        realness: float32 [n], 0..1.
    """
    counts = np.bincount(label_index[label_index >= 0], minlength=len(classes))
    shown = sorted(np.argsort(-counts, kind="stable")[:MAX_CLASSES].tolist())
    cell = THUMBNAIL_PX + MARGIN_PX
    block = PER_BLOCK * cell + BLOCK_GAP_PX
    sheet = Image.new("RGB", (LABEL_WIDTH_PX + len(BLOCKS) * block, HEADER_PX + len(shown) * cell), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for b, name in enumerate(BLOCKS):
        draw.text((LABEL_WIDTH_PX + b * block, 12), name, "black", font)
    for row, k in enumerate(shown):
        top = HEADER_PX + row * cell
        draw.text((8, top + 4), classes[k][:14], "black", font)
        draw.text((8, top + 24), f"{counts[k]:,}", "gray", font)
        for b, positions in enumerate(choose(label_index, confidence, realness, k).values()):
            for c, position in enumerate(positions):
                thumbnail = Image.fromarray(_thumbnail(source, position))
                sheet.paste(thumbnail, (LABEL_WIDTH_PX + b * block + c * cell, top))
    write_atomically(path, lambda file: sheet.save(file, format="PNG"))


def _thumbnail(source: Source, position: int) -> Pixels:
    (sample,) = source.read(position, position + 1)
    try:
        return sample.pixels(ImageSpec(THUMBNAIL_PX, THUMBNAIL_PX, 3))
    except ImageError:
        # The file may have changed since it was pre-labelled; a grey square stands for it.
        return np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), 128, np.uint8)
