"""Compares what the server in the image answered with the embedded engine, and writes docs/results/image.json.

Called by scripts/image-check.sh, which measured the sizes. The two sides run different builds of ONNX Runtime, so
probabilities may differ in their last digits; over the tolerance, or with another label where the lead is larger than
it, the check fails.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro

from prelabel.errors import ParityError, PrelabelError
from prelabel.files import write_text_atomically
from prelabel.table import read_predictions
from scripts.provenance import provenance

TOLERANCE = 1e-4
"""Largest allowed difference of a probability or a realness: the tolerance of the export's parity check."""


@dataclass(frozen=True)
class Options:
    """What was made and measured."""

    served: Path
    """Folder of Parquet files that came through the server in the image."""
    embedded: Path
    """Folder of Parquet files that the embedded engine made from the same images."""
    images: int
    """How many rows each must hold."""
    user: int
    """The uid that the server ran as."""
    serve_image_bytes: int
    """All files of the server's image, unpacked, on disk."""
    serve_environment_bytes: int
    """The Python environment in it."""
    train_image_bytes: int | None = None
    """All files of the training image, unpacked, on disk; None where it was not built."""
    output: Path = Path("docs/results/image.json")
    """The JSON file to write."""


def read_rows(folder: Path, images: int) -> pa.Table:
    """Returns the predictions in a folder, in the order of the images.

    Raises:
        ParityError: There are not `images` rows, or one of them is an error row.
    """
    table = read_predictions(folder)
    if table.num_rows != images:
        raise ParityError(f"{folder} holds {table.num_rows} predictions, wanted are {images}")
    if failed := images - table.column("error").null_count:
        raise ParityError(f"{folder} holds {failed} error rows")
    return table


def largest_difference(served: pa.Table, embedded: pa.Table) -> float:
    """Returns the largest absolute difference of a probability or realness.

    Raises:
        ParityError: Image ids, model ids or labels differ, or a value differs by more than `TOLERANCE`.
    """
    for name in ("id", "model_id"):
        if served.column(name) != embedded.column(name):
            raise ParityError(f"column {name} differs between the image's server and the embedded engine")
    ours, theirs = (np.array(table.column("probabilities").to_pylist(), np.float32) for table in (served, embedded))
    realness = np.abs(served.column("realness").to_numpy() - embedded.column("realness").to_numpy())
    largest = float(max(np.abs(ours - theirs).max(), realness.max()))
    if largest > TOLERANCE:
        raise ParityError(f"probabilities differ by {largest:.2g}, allowed is {TOLERANCE:.2g}")
    top_two = np.sort(theirs, axis=1)[:, -2:]
    decided = top_two[:, 1] - top_two[:, 0] > TOLERANCE
    labels = [np.array(table.column("label").to_pylist()) for table in (served, embedded)]
    if wrong := int(((labels[0] != labels[1]) & decided).sum()):
        raise ParityError(f"{wrong} labels differ between the image's server and the embedded engine")
    return largest


def main(options: Options) -> None:
    """Compares, then writes the report."""
    difference = largest_difference(
        read_rows(options.served, options.images), read_rows(options.embedded, options.images)
    )
    command = "make image-check" if options.train_image_bytes is None else "scripts/image-check.sh --train"
    report = provenance(command) | {
        "base": "Debian 12 (debootstrap minbase), Python 3.11",
        "lock": "locks/serve-cpu.txt",
        "serve_image_bytes": options.serve_image_bytes,
        "serve_environment_bytes": options.serve_environment_bytes,
        "train_image_bytes": options.train_image_bytes,
        # image-check.sh has failed before this point where one of these is not so.
        "has_tensorflow": False,
        "has_compiler": False,
        "exit_status_after_sigterm": 0,
        "user": options.user,
        "prelabelled_images": options.images,
        "max_abs_difference_to_embedded": difference,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.output, json.dumps(report, indent=2) + "\n")
    print(
        f"server image {options.serve_image_bytes / 1e6:.0f} MB, of it Python environment "
        f"{options.serve_environment_bytes / 1e6:.0f} MB; written to {options.output}"
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except PrelabelError as error:
        sys.exit(f"image-check: {error}")
