"""`prelabel report`."""

from dataclasses import dataclass
from pathlib import Path

from prelabel.files import check_output
from prelabel.output import unfinished_text
from prelabel.report.make import Inputs, make_report

HELP = """Makes one HTML page about predictions: lanes, contact sheets, calibration, confusions, errors, model card.

For example:
    prelabel report --predictions predictions --images photos --output report.html
    prelabel report --predictions lanes --run predictions --images photos --bundle bundle --output report.html
    prelabel report --predictions predictions --images photos --labels labels.csv --output report.html

The page opens from disk and asks for nothing else: its images are in it, small, at most 8 MB of them. The more options,
the more it shows; what is missing, it says. All figures are over all rows."""


@dataclass(frozen=True)
class Report:
    """Options of `prelabel report`."""

    predictions: Path
    """Output directory of `prelabel run`, or that of `prelabel audit apply`, which has lanes."""
    output: Path
    """The HTML file."""
    images: str | None = None
    """The images, as they were given to `prelabel run`; without them the sheets are lists of names."""
    bundle: Path | None = None
    """The bundle of the model, for the model card."""
    labels: str | None = None
    """CSV (columns `id` and `label`, or an audit's answered tasks.csv), or the images once more, for their labels."""
    duplicates: Path | None = None
    """Parquet with columns `id` and `duplicate_of`, as `prelabel duplicates` writes it."""
    run: Path | None = None
    """The run's own output directory, where the predictions have lanes: it holds what the run was."""
    sample: int = 100_000
    """So many labelled rows are searched for label errors, drawn at random: cleanlab holds them all in memory."""
    seed: int = 0
    """Of that draw."""


def execute(options: Report) -> int:
    """Does `prelabel report`."""
    check_output(options.output)
    inputs = Inputs(
        options.predictions, options.images, options.bundle, options.labels, options.duplicates, options.run
    )
    made = make_report(inputs, options.output, options.sample, options.seed)
    print(f"{options.output}: {made.rows:,} rows, {made.images:,} images, {made.size_bytes:,} bytes")
    if unfinished := unfinished_text(options.predictions, made.rows):
        print(unfinished)
    return 0
