"""`prelabel duplicates`."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from prelabel import __version__
from prelabel.duplicates.fingerprints import fingerprint
from prelabel.duplicates.groups import find_groups
from prelabel.duplicates.pairs import Near
from prelabel.duplicates.table import DuplicatesInfo, read_duplicates, write_duplicates
from prelabel.engine_base import usable_cores
from prelabel.errors import InputError
from prelabel.files import check_output
from prelabel.progress import Progress, ProgressMode
from prelabel.sources import open_source
from prelabel.table import require_pyarrow

HELP = """Finds the images that are exact or near duplicates of an earlier one, and writes them into a Parquet file.

For example:
    prelabel duplicates --input photos --output duplicates.parquet

One row for each duplicate, with the columns id, duplicate_of, distance and kind. Every image is decoded once; nothing
is changed or deleted. `prelabel plan` counts duplicates without writing them."""


@dataclass(frozen=True)
class Duplicates:
    """Options of `prelabel duplicates`."""

    input: str
    """The images, a path or URL as for `prelabel run`."""
    output: Path
    """The Parquet file; an earlier one of this command is replaced."""
    exact_only: bool = False
    """Only count images whose decoded pixels are the same."""
    near: Annotated[Near, tyro.conf.arg(name="")] = field(default_factory=Near)
    """When two images count as near-duplicates."""
    decode_threads: int = 0
    """Threads that decode images; 0 takes one per core."""
    progress: ProgressMode = "auto"
    """How progress is shown on the error stream: for people, as JSON lines, or not at all."""

    def __post_init__(self) -> None:
        if self.decode_threads < 0:
            raise InputError(f"--decode-threads {self.decode_threads} is not usable: 0 or more is wanted")


def execute(options: Duplicates) -> int:
    """Does `prelabel duplicates`."""
    require_pyarrow()
    check_output(options.output)
    try:  # rather than after every image was decoded
        tempfile.TemporaryFile(dir=options.output.parent).close()
    except OSError as error:
        raise InputError(
            f"--output {options.output}: folder {options.output.parent} cannot be written: {error.strerror}"
        ) from None
    if options.output.exists():
        read_duplicates(options.output)  # a file of somebody else is not replaced
    source = open_source(options.input)
    near = None if options.exact_only else options.near
    with Progress(len(source), "images", "taking fingerprints", mode=options.progress) as report:
        prints = fingerprint(source, [range(len(source))], options.decode_threads or usable_cores(), report)
    groups = find_groups(prints, near)
    info = DuplicatesInfo(
        version=__version__,
        manifest_hash=source.manifest_hash,
        images=len(source),
        unreadable=prints.unreadable,
        exact=groups.exact_count,
        near=groups.near_count,
        distance=None if near is None else near.distance,
        difference=None if near is None else near.difference,
    )
    write_duplicates(options.output, prints, groups, info)
    print(f"{info.images:,} images: {info.exact:,} exact and {info.near:,} near duplicates in {options.output}")
    if info.unreadable:
        print(f"{info.unreadable:,} images could not be decoded and were left out")
    return 0
