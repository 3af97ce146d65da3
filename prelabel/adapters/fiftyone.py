"""FiftyOneImageClassificationDataset: a folder with `labels.json` and `data/`.

https://docs.voxel51.com/user_guide/import_datasets.html. Without --images, `data/` is empty and
`labels.json` names the images by their absolute paths.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prelabel.adapters.base import Format
from prelabel.adapters.pictures import image_file, numbered_name
from prelabel.adapters.rows import Conversion, Row
from prelabel.adapters.text import details, to_json, write_lines
from prelabel.files import new_directory


def write(path: Path, conversion: Conversion) -> None:
    """Writes the folder; error rows are samples without a label, if there is a file."""
    with new_directory(path) as folder:
        (folder / "data").mkdir()  # FiftyOne wants it, even with nothing in it
        write_lines(folder / "labels.json", _pieces(folder, conversion))


def _pieces(folder: Path, conversion: Conversion) -> Iterator[str]:
    yield f'{{"classes": {to_json(conversion.classes)}, "labels": {{\n'
    comma = ""
    for row, sample in conversion.items(errors=True, readable=True, on_disk=True):
        if sample is None:
            key = os.path.abspath(row.path)
        else:
            content, suffix = image_file(sample)
            key = numbered_name(row, "")
            (folder / "data" / f"{key}{suffix}").write_bytes(content)
        yield f"{comma}{to_json(key)}: {to_json(_target(row, conversion))}"
        comma = ",\n"
    yield "\n}}\n"


def _target(row: Row, conversion: Conversion) -> dict[str, Any] | None:
    if row.label is None:
        return None
    attributes = details(row, conversion.classes)
    del attributes["label"], attributes["confidence"]
    # A label of FiftyOne has an id of its own, and fields of its database cannot have the name of any class.
    attributes["image_id"] = attributes.pop("id")
    attributes["probabilities"] = row.probabilities
    return {"label": row.label, "confidence": row.confidence, "attributes": attributes}


FORMAT = Format("fiftyone", output="folder", images="optional", takes_prefix=False, write=write)
