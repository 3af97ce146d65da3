"""`prelabel sheet`."""

from dataclasses import dataclass
from pathlib import Path

from prelabel.contact_sheet import sheet_of_predictions
from prelabel.files import check_output
from prelabel.sources import open_source

HELP = """Draws predictions as one picture: per class the most certain, the least certain, the least real images.

For example:
    prelabel sheet --predictions predictions --input photos --output sheet.png"""


@dataclass(frozen=True)
class Sheet:
    """Options of `prelabel sheet`."""

    predictions: Path
    """Output directory of `prelabel run`."""
    input: str
    """The images, as they were given to `prelabel run`."""
    output: Path
    """The PNG file."""


def execute(options: Sheet) -> int:
    """Does `prelabel sheet`."""
    check_output(options.output)
    sheet_of_predictions(options.output, options.predictions, open_source(options.input))
    print(options.output)
    return 0
