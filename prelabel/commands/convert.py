"""`prelabel convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prelabel.adapters import (
    csv_table,
    cvat,
    cvat_function,
    fiftyone,
    folders,
    ground_truth,
    huggingface,
    label_studio_tasks,
    webdataset,
)
from prelabel.adapters.base import Format
from prelabel.adapters.rows import Conversion, Predictions, Selection, Tally
from prelabel.commands.exits import EXIT_ERROR_ROWS
from prelabel.errors import InputError
from prelabel.files import check_folder_of, check_output
from prelabel.output import unfinished_text
from prelabel.sources import open_source

HELP = """Writes predictions in the format of an annotation tool or a data library.

For example:
    prelabel convert --predictions predictions --to cvat --output tags.xml
    prelabel convert --predictions predictions --to csv --output sure.csv --min-confidence 0.99
    prelabel convert --predictions predictions --to webdataset --output shards --images photos

Files: csv, cvat (for images 1.1), cvat-function, ground-truth, label-studio.
Folders: fiftyone, folders, huggingface, webdataset.

Exit status:
    0    written
    2    nothing was written
    3    written, but some rows could not be: the summary says how many and why"""

FORMATS = {
    one.FORMAT.name: one.FORMAT
    for one in (
        csv_table,
        cvat,
        cvat_function,
        fiftyone,
        folders,
        ground_truth,
        huggingface,
        label_studio_tasks,
        webdataset,
    )
}


@dataclass(frozen=True)
class Convert:
    """Options of `prelabel convert`."""

    predictions: Path
    """Output directory of `prelabel run` or `prelabel audit apply`."""
    to: Annotated[
        Literal[
            "csv",
            "cvat",
            "cvat-function",
            "fiftyone",
            "folders",
            "ground-truth",
            "huggingface",
            "label-studio",
            "webdataset",
        ],
        tyro.conf.arg(metavar="FORMAT"),
    ]
    """One of those above."""
    output: Path
    """The file, which is replaced if it exists, or the folder, which must be new or empty."""
    images: Path | None = None
    """The images, as they were given to `prelabel run`: for formats that hold them."""
    lane: Annotated[str, tyro.conf.arg(metavar="LANE,...")] = ""
    """Only these of the lanes accept, review and suspect that `prelabel audit apply` made."""
    min_confidence: float | None = None
    """Only predictions of at least this confidence, 0..1."""
    image_url_prefix: str | None = None
    """What makes an id an address that the tool can open, such as s3://bucket/photos/ (label-studio, ground-truth)."""


def execute(options: Convert) -> int:
    """Does `prelabel convert`."""
    chosen = FORMATS[options.to]
    _check(options, chosen)
    conversion = Conversion(
        Predictions(options.predictions),
        Selection(tuple(filter(None, options.lane.split(","))), options.min_confidence),
        None if options.images is None else open_source(options.images),
        options.image_url_prefix,
    )
    chosen.write(options.output, conversion)
    print(_summary_text(options, conversion.tally))
    if unfinished := unfinished_text(options.predictions, conversion.predictions.rows_in_all):
        print(unfinished)
    return EXIT_ERROR_ROWS if conversion.tally.skipped else 0


def _check(options: Convert, chosen: Format) -> None:
    if chosen.images == "needed" and options.images is None:
        raise InputError(f"--to {chosen.name} needs the images: give --images as --input was given to `prelabel run`")
    if chosen.images == "unused" and options.images is not None:
        raise InputError(f"--to {chosen.name} holds no images: leave --images out")
    if not chosen.takes_prefix and options.image_url_prefix is not None:
        takers = ", ".join(sorted(one.name for one in FORMATS.values() if one.takes_prefix))
        raise InputError(f"--image-url-prefix has no meaning for --to {chosen.name}: it is for {takers}")
    if chosen.output == "file":
        check_output(options.output)
    else:
        check_folder_of(options.output)


def _summary_text(options: Convert, tally: Tally) -> str:
    parts = [f"{tally.written:,} images in {options.output}"]
    if tally.unlabelled:
        parts.append(f"{tally.unlabelled:,} of them without a label, because their rows are errors")
    parts += [f"{count:,} skipped, which have {reason}" for reason, count in tally.skipped.items()]
    if tally.left_out:
        parts.append(f"{tally.left_out:,} left out by --lane or --min-confidence")
    return "; ".join(parts)
