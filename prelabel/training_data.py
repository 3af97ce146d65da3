"""People's answers and the images that they are about -> training data for the next round."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from prelabel.adapters.pictures import image_file
from prelabel.errors import InputError
from prelabel.sources import FolderSource, Sample, Source, open_source
from prelabel.table import require_pyarrow, write_shard

FILE_IMAGES = 4096
"""Images in one Parquet file, and in memory."""


@dataclass
class Written:
    """What went into the training data."""

    images: int = 0
    """Images, labelled or not."""
    labels: Counter[str] = field(default_factory=Counter)
    """Class -> images."""
    unreadable: int = 0
    """Images without content that were left out of the pile."""


def write_training(
    folder: Path,
    answers: Mapping[str, str],
    images: Source,
    labelled: Source | None,
    no_class: Collection[str],
    *,
    only_labelled: bool,
) -> Written:
    """Writes Parquet files that `python -m training --data` takes: `id`, `image`, `label` (null where unknown).

    Labels that the images bring along are not used, for they may be what nobody should see yet.

    Args:
        folder: An empty folder.
        answers: Id of an image -> what people said.
        images: All images, as they were selected from or pre-labelled.
        labelled: Images with labels from before.
        no_class: Answers that mean that an image is of no class; it stays in the pile.
        only_labelled: Leave images without a label out.

    Raises:
        InputError: An answer is about no image, an image with an answer cannot be read any more, or nothing is left.
    """
    pa = require_pyarrow()
    written, missing = Written(), dict.fromkeys(answers)
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.string())])

    def rows() -> Iterator[dict[str, Any]]:
        for sample in images.read(0, len(images)):
            answer = answers.get(sample.id)
            missing.pop(sample.id, None)
            yield from row(sample.id, sample, None if answer in no_class else answer)
        for sample in labelled.read(0, len(labelled)) if labelled is not None else ():
            if sample.label is not None:
                yield from row(f"before/{sample.id}", sample, sample.label)

    def row(identity: str, sample: Sample, label: str | None) -> Iterator[dict[str, Any]]:
        if sample.content is None:
            if label is not None:
                raise InputError(f"image {identity} has the label {label!r} and cannot be read: {sample.error}")
            written.unreadable += 1
            return
        if label is None and only_labelled:
            return
        written.images += 1
        if label is not None:
            written.labels[label] += 1
        yield {"id": identity, "image": image_file(sample)[0], "label": label}

    stream, number = rows(), 0
    while block := list(islice(stream, FILE_IMAGES)):
        write_shard(folder / f"train-{number:05d}.parquet", pa.Table.from_pylist(block, schema))
        number += 1
    if missing:
        some = ", ".join(list(missing)[:3])
        raise InputError(f"{len(missing):,} answers are about images that the input does not hold, for example {some}")
    if not written.labels:
        raise InputError("nothing to learn from: no image has an answer that names a class")
    return written


def open_labelled(path: Path) -> Source:
    """Opens images with labels from before; of the training layout only `labelled/`, never `test/`."""
    return FolderSource(path, only=("labelled",)) if (path / "labelled").is_dir() else open_source(path)
