"""Image files in `labelled/<class>/`: for a quick look in a file manager, or as labels for the next training."""

from pathlib import Path

from prelabel.adapters.base import Format
from prelabel.adapters.pictures import folder_name, image_file, numbered_name
from prelabel.adapters.rows import Conversion
from prelabel.files import new_directory


def write(path: Path, conversion: Conversion) -> None:
    """Copies each image into the folder of its label; error rows are skipped. Odd class names: `folder_name`."""
    with new_directory(path) as folder:
        made = {name: folder / "labelled" / folder_name(name) for name in conversion.classes}
        for row, sample in conversion.items(errors=False, readable=True):
            assert sample is not None, "the format needs images"
            assert row.label is not None, "error rows are skipped"
            content, suffix = image_file(sample)
            made[row.label].mkdir(parents=True, exist_ok=True)
            (made[row.label] / numbered_name(row, suffix)).write_bytes(content)


FORMAT = Format("folders", output="folder", images="needed", takes_prefix=False, write=write)
