"""From predictions to the page: the whole of `prelabel report`."""

from dataclasses import dataclass
from pathlib import Path

from prelabel import __version__
from prelabel.audit.report import read_certificate
from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from prelabel.report import sections
from prelabel.report.duplicates import read_duplicates
from prelabel.report.figures import count_figures
from prelabel.report.guarantee import guarantee
from prelabel.report.labels import read_labels, source_of
from prelabel.report.model_card import bundle_of, model_card, run_card
from prelabel.report.page import make_page
from prelabel.report.rows import details_at, read_rows
from prelabel.report.sheets import all_rows, class_sheets, duplicate_sheet, label_error_sheet, whole_sheets
from prelabel.report.thumbnails import BUDGET_BYTES, make_thumbnails
from prelabel.report.tiles import Shown, class_section, sheet_section


@dataclass(frozen=True)
class Inputs:
    """What the page is made of; everything but the predictions may be missing."""

    predictions: Path
    images: str | None
    bundle: Path | None
    labels: str | None
    duplicates: Path | None
    run: Path | None


@dataclass(frozen=True)
class Made:
    """What was written."""

    rows: int
    """Rows that it is about."""
    images: int
    """Images in it, counted as often as they are shown."""
    size_bytes: int
    """Of the page."""


def make_report(inputs: Inputs, output: Path, sample: int, seed: int) -> Made:
    """Writes the page, whole or not at all. The same inputs give the same bytes.

    Args:
        inputs: What it is made of.
        output: The HTML file.
        sample: Labelled rows that are searched for label errors, 2 or more.
        seed: Of the draw where there are more.

    Raises:
        InputError: A file is damaged, or they do not belong together.
    """
    if sample < 2 or seed < 0:
        raise InputError(f"--sample {sample} --seed {seed} are not usable: 2 or more, and 0 or more, wanted")
    rows = read_rows(inputs.predictions)
    labels = None if inputs.labels is None else read_labels(inputs.labels, rows)
    duplicates = None if inputs.duplicates is None else read_duplicates(inputs.duplicates, rows)
    bundle = None if inputs.bundle is None else bundle_of(inputs.bundle, rows)
    figures = count_figures(rows, labels)
    sheets, of_classes = whole_sheets(rows), class_sheets(rows)
    if figures.comparison is not None:
        sheets.append(label_error_sheet(rows, figures.comparison, sample, seed))
    if duplicates is not None:
        sheets.append(duplicate_sheet(duplicates))
    tiles = all_rows(sheets, of_classes)
    twins = {} if duplicates is None else dict(duplicates.pairs.tolist())
    images = {}
    if inputs.images is not None:
        images = make_thumbnails(source_of(inputs.images, rows, "--images"), tiles)
    wanted = [*tiles, *(twins[row] for row in tiles if row in twins)]
    shown = Shown(rows, labels, details_at(rows, wanted), images, twins)
    parts = [
        sections.overview(rows, figures),
        *([] if rows.lanes is None else [guarantee(read_certificate(inputs.predictions))]),
        *(sheet_section(sheet, shown) for sheet in sheets),
        *([] if figures.comparison is None else [sections.agreement(rows, figures.comparison, inputs.labels or "")]),
        sections.distributions(figures),
        sections.classes(rows, figures),
        class_section(of_classes, shown),
        sections.errors(rows),
        model_card(rows, bundle),
        run_card(rows, inputs.run),
    ]
    displayed = sum(row in images for row in tiles)
    page = make_page(
        "Pre-labels" if bundle is None else f"Pre-labels of {bundle.name}",
        f"{len(rows):,} rows, model {rows.model_id}",
        parts,
        _about_images(inputs, len(tiles), displayed),
    )
    write_text_atomically(output, page)
    return Made(len(rows), displayed, len(page.encode()))


def _about_images(inputs: Inputs, wanted: int, displayed: int) -> str:
    version = f"Made by prelabel {__version__}. Figures are over all rows, unless they say otherwise."
    if inputs.images is None:
        return f"{version} Without images: --images shows them."
    missing = f" {wanted - displayed:,} more could not be read." if displayed < wanted else ""
    budget = f"{displayed:,} images are in this file, made so small that all are under {BUDGET_BYTES // 1_000_000} MB."
    return f"{version} {budget}{missing}"
