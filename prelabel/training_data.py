"""People's answers and the images that they are about -> training data for the next round."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prelabel.adapters.pictures import image_file
from prelabel.audit.answers import some
from prelabel.audit.tasks import NONE_OF_THESE
from prelabel.errors import InputError
from prelabel.sources import FolderSource, Sample, Source, open_source, open_splits
from prelabel.sources.folder import LABELLED
from prelabel.storage import open_storage
from prelabel.table import require_pyarrow, write_shard

FILE_IMAGES = 4096
FILE_BYTES = 256 << 20
"""Most images in one Parquet file and in memory, and the bytes of their files from which on it is full."""
BEFORE = "before/"
"""In front of the ids of images with labels from before."""


@dataclass
class Written:
    """What went into the training data."""

    images: int = 0
    """Images, labelled or not."""
    labels: Counter[str] = field(default_factory=Counter)
    """Class -> images."""
    missing: list[str] = field(default_factory=list)
    """Ids with an answer of which there is no image."""
    unreadable: list[str] = field(default_factory=list)
    """Ids with a label whose image cannot be read; they are left out."""
    no_class: Counter[str] = field(default_factory=Counter)
    """Answer that means no class -> images."""
    no_class_answers: frozenset[str] = frozenset()
    """All answers that mean no class."""
    known_classes: set[str] = field(default_factory=set)
    """Of the images with labels from before."""
    answered_again: int = 0
    """Images with a label from before that have an answer now, which counts."""


def write_training(
    folder: Path,
    answers: Mapping[str, str],
    images: Source,
    labelled: Source | None,
    no_class: Collection[str],
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
        InputError: The images cannot be read any more, or none is left.
    """
    pa = require_pyarrow()
    written, open_ids = Written(no_class_answers=frozenset(no_class)), dict.fromkeys(answers)
    answered: dict[str, bytes] = {}
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.string())])

    def rows() -> Iterator[dict[str, Any]]:
        for sample in images.read(0, len(images)):
            answer = answers.get(sample.id)
            open_ids.pop(sample.id, None)
            if labelled is not None and answer is not None and sample.content is not None:
                answered[sample.id] = _digest(sample)
            if answer is not None and answer in no_class:
                written.no_class[answer] += 1
                answer = None
            yield from _row(sample.id, sample, answer)
        for sample in labelled.read(0, len(labelled)) if labelled is not None else ():
            if sample.label is None:
                continue
            written.known_classes.add(sample.label)
            known = answered.get(_first_id(sample.id))
            if known is not None and sample.content is not None and known == _digest(sample):
                written.answered_again += 1
            else:
                yield from _row(f"{BEFORE}{sample.id}", sample, sample.label)

    def _row(identity: str, sample: Sample, label: str | None) -> Iterator[dict[str, Any]]:
        if label is None and only_labelled:
            return
        if not sample.content_bytes:
            if label is not None:
                written.unreadable.append(identity)
            return
        written.images += 1
        if label is not None:
            written.labels[label] += 1
        yield {"id": identity, "image": image_file(sample)[0], "label": label}

    for number, block in enumerate(_blocks(rows())):
        write_shard(folder / f"train-{number:05d}.parquet", pa.Table.from_pylist(block, schema))
    if not written.images:
        raise InputError(
            f"nothing to write: the images with an answer cannot be read ({some(written.unreadable)})"
            if written.unreadable
            else "nothing to write: none of the images has an answer, and --only-labelled leaves the others out"
        )
    written.missing = list(open_ids)
    return written


def notes(written: Written) -> list[str]:
    """Returns a sentence each about labels that answers took the place of, and about answers that look misspelt."""
    again, unreadable = written.answered_again, written.unreadable
    lines = [f"{again:,} images had a label from before and have an answer now, which counts"] if again else []
    if unreadable:
        lines.append(f"{len(unreadable):,} images with a label cannot be read and are left out: {some(unreadable)}")
    lines += [
        f"{count:,} answers {name!r} say that an image is of no class and made no label (--no-class)"
        for name, count in written.no_class.most_common()
    ]
    new = sorted(written.labels.keys() - written.known_classes) if written.known_classes else []
    # A spreadsheet makes 3 of 00003, and a hand Cat of cat.
    alike = {_plain(name): name for name in written.known_classes}
    asked = [f"{name!r}" + (f" (is it {alike[_plain(name)]!r}?)" if _plain(name) in alike else "") for name in new]
    lines += [f"new classes, which --labelled has not: {', '.join(asked)}"] if new else []
    spellings: dict[str, list[str]] = {}
    for name in (*sorted(written.no_class_answers), *sorted(written.labels)):
        if not (name in new and _plain(name) in alike):
            spellings.setdefault(_plain(name), []).append(name)
    lines += [
        f"different answers that may mean the same, and are taken as they are: {', '.join(map(repr, names))}"
        for names in spellings.values()
        if len(names) > 1 and any(name in written.labels for name in names)
    ]
    return lines


def _plain(name: str) -> str:
    return name.strip().casefold().lstrip("0") or "0"


def _blocks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        block.append(row)
        size += len(row["image"])
        if len(block) == FILE_IMAGES or size >= FILE_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _digest(sample: Sample) -> bytes:
    return hashlib.blake2b(image_file(sample)[0], digest_size=16).digest()


def _first_id(identity: str) -> str:
    """Returns the id that an image had before it went through rounds of training data."""
    while identity.startswith(BEFORE):
        identity = identity.removeprefix(BEFORE)
    return identity


def open_labelled(path: Path) -> Source:
    """Opens images with labels from before; never those for the test, by the rule that training has, too.

    Of folders of images that is `labelled/`, in either spelling; of Parquet and tar files those whose names do not
    begin with `test`.

    Raises:
        InputError: As `open_source`; or the folder holds no labels, or only those for the test.
    """
    storage = open_storage(path)
    names = storage.names() if storage.kind() == "folder" else []
    if any(f"{name}/" in names for name in LABELLED):
        return FolderSource(storage, only=LABELLED)
    if (splits := open_splits(storage, names)) is not None:
        return splits[0]
    source = open_source(path)
    if isinstance(source, FolderSource):
        raise InputError(f"{storage.shown()} holds no labels: wanted are labelled/<class>/, or Parquet or tar files")
    return source


def no_class_answers(option: str) -> frozenset[str]:
    """Returns the answers that make no label: those of `--no-class`, and the one that all tasks of ours offer."""
    return frozenset({NONE_OF_THESE, *(one.strip() for one in option.split(","))} - {""})
