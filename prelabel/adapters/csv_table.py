"""CSV: one row for each image, a column `p_<class>` for each class.

Texts that a spreadsheet would run as a formula get an apostrophe in front (`prelabel.spreadsheets`); numbers are 0..1
and never changed.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from prelabel.adapters.base import Format
from prelabel.adapters.rows import Conversion
from prelabel.adapters.text import write_lines
from prelabel.spreadsheets import as_cell


def write(path: Path, conversion: Conversion) -> None:
    """Writes one line for each row; error rows have their reason in the column `error` and no numbers."""
    write_lines(path, _lines(conversion))


def _lines(conversion: Conversion) -> Iterator[str]:
    classes, extra = conversion.classes, tuple(conversion.predictions.extra_types)
    known = ("id", "path", "label", "confidence", "realness", "model_id", "error")
    yield _line([*known, *extra, *(f"p_{name}" for name in classes)])
    nothing = [None] * len(classes)
    for row, _ in conversion.items(errors=True):
        values = [getattr(row, name) for name in known] + [row.extra[name] for name in extra]
        yield _line([*values, *(row.probabilities or nothing)])


def _line(values: list[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([as_cell(value) for value in values])
    return line.getvalue()


FORMAT = Format("csv", output="file", images="unused", takes_prefix=False, write=write)
