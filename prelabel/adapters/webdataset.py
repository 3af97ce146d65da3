"""WebDataset: a folder of tar files; an image is three members of one name: `.png`, `.cls` (number), `.json` (all).

https://github.com/webdataset/webdataset. That name is the image's position in the input.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from prelabel.adapters.base import Format
from prelabel.adapters.pictures import image_file
from prelabel.adapters.rows import Conversion
from prelabel.adapters.text import details, to_json
from prelabel.files import new_directory

SHARD_IMAGES = 10_000
SHARD_BYTES = 1_000_000_000
"""A file is ended at so many images or bytes, whatever comes first: readers share whole files out among themselves."""


def write(path: Path, conversion: Conversion) -> None:
    """Writes the folder; error rows, and images that can no longer be read, are skipped."""
    with new_directory(path) as folder:
        _fill(folder, conversion)


def _fill(folder: Path, conversion: Conversion) -> None:
    samples = _samples(conversion)
    sample, shard = next(samples, None), 0
    while sample is not None:
        # USTAR has no extended headers, which some readers of WebDataset do not know; our names are short.
        with tarfile.open(folder / f"prelabel-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            images = 0
            while sample is not None and images < SHARD_IMAGES and tar.offset < SHARD_BYTES:
                for name, content in sample:
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                images += 1
                sample = next(samples, None)
        shard += 1


def _samples(conversion: Conversion) -> Iterator[list[tuple[str, bytes]]]:
    for row, image in conversion.items(errors=False, readable=True):
        assert image is not None, "the format needs images"
        assert row.label is not None, "error rows are skipped"
        content, suffix = image_file(image)
        key = f"{row.position:06d}"
        number = str(conversion.class_index[row.label]).encode()
        known = to_json(details(row, conversion.classes)).encode()
        yield [(f"{key}{suffix}", content), (f"{key}.cls", number), (f"{key}.json", known)]


FORMAT = Format("webdataset", output="folder", images="needed", takes_prefix=False, write=write)
