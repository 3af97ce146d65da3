"""`prelabel select`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from prelabel.audit.tasks import CSV_FILE
from prelabel.engine_base import usable_cores
from prelabel.errors import InputError
from prelabel.progress import ProgressMode
from prelabel.selection.first import FirstConfig, select_first
from prelabel.selection.next import NextConfig, select_next
from prelabel.selection.selection import Selection, write_selection
from prelabel.sources import open_source

HELP = """Selects the images that people label first, when there is no model, or next, when there is one.

For example, a first hundred of a pile, then those that a model is least sure of:
    prelabel select --input photos --count 100 --output first --copy-images
    prelabel select --predictions predictions --labelled first/tasks.csv --count 50 --output next

First: images that differ from each other, each typical of many. Next: most uncertain first, different confusions in
turns.

The output holds tasks.csv (fill in the column `answer`), label_studio.json, and _select.json, which says how they
were selected. `prelabel labels` makes training data of the answers. For an audit they are no use: they are no random
sample."""
_NAMED = 3
"""Unreadable images that are named on the screen; _select.json names all."""


@dataclass(frozen=True)
class Select:
    """Options of `prelabel select`."""

    output: Path
    """New directory for the tasks."""
    count: int = 100
    """Images to select."""
    input: str | None = None
    """The images: folder, Parquet, tar shards, IDX, npz or a list. With --predictions only for --copy-images."""
    predictions: Path | None = None
    """Output of `prelabel run` (or `prelabel audit apply`: then of the lane review), to select what to label next."""
    first: Annotated[FirstConfig, tyro.conf.arg(name="")] = field(default_factory=FirstConfig)
    """How the first images are selected."""
    next: Annotated[NextConfig, tyro.conf.arg(name="")] = field(default_factory=NextConfig)
    """How the next images are selected."""
    duplicates: Path | None = None
    """File of `prelabel duplicates` about this input: what it calls a duplicate is not selected."""
    seed: int = 0
    """Decides the first images; the next ones follow from the predictions."""
    copy_images: bool = False
    """Copy the selected images into the output."""
    image_url_prefix: str | None = None
    """What makes an image's id an address that Label Studio can open, such as s3://bucket/photos/; of copied images it
    stands before the file name, and is /data/local-files/?d=images/ by default, for the output as document root."""
    decode_threads: int = 0
    """Threads that decode images; 0 takes one per core."""
    progress: ProgressMode = "auto"
    """How progress is shown on the error stream: for people, as JSON lines, or not at all."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"--count {self.count} is not usable: 1 or more wanted")
        if self.seed < 0 or self.decode_threads < 0:
            raise InputError("--seed and --decode-threads must be 0 or more")
        if self.predictions is None:
            if self.input is None:
                raise InputError("give --input, to select first images, or --predictions, to select next ones")
            if self.next != NextConfig():
                raise InputError("--by and --labelled are about predictions: give --predictions, too")
        elif self.first != FirstConfig():
            raise InputError("--sample and --classes are for first images, without --predictions")
        elif (self.input is not None) != self.copy_images:
            raise InputError("with --predictions, --input and --copy-images go together: give both or none")


def execute(options: Select) -> int:
    """Does `prelabel select`."""
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        raise InputError(f"--output {options.output} is there already: choose a new or empty directory")
    source = None if options.input is None else open_source(options.input)
    if options.predictions is not None:
        selection = select_next(options.predictions, options.count, options.next, options.duplicates)
    else:
        assert source is not None, "checked by the options"
        selection = select_first(
            source,
            options.count,
            options.seed,
            options.first,
            options.duplicates,
            options.decode_threads or usable_cores(),
            options.progress,
        )
    write_selection(options.output, selection, source if options.copy_images else None, options.image_url_prefix)
    print(_text(selection, options.output))
    return 0


def _text(selection: Selection, output: Path) -> str:
    lines = [f"{len(selection.ids):,} images in {output / CSV_FILE}: fill in the column `answer`"]
    if unreadable := selection.about.get("unreadable"):
        named = "; ".join(f"{one['path']}: {one['error']}" for one in unreadable[:_NAMED])
        lines.append(f"{len(unreadable):,} images cannot be decoded and were left out: {named}")
    return "\n".join(lines)
