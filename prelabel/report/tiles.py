"""Contact sheets as HTML: a tile an image, with everything that is known of it for the dialog that opens it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prelabel.audit.answers import NO_CLASS
from prelabel.audit.lanes import LANES
from prelabel.audit.tasks import NONE_OF_THESE
from prelabel.report.labels import Labels
from prelabel.report.markup import paragraph, section
from prelabel.report.rows import Rows
from prelabel.report.sheets import MAX_CLASSES, ClassSheets, Sheet
from prelabel.report.text import attribute, name, number, percent, text

PROBABILITIES = 5
"""The most probable classes of an image that are listed."""


@dataclass(frozen=True)
class Shown:
    """What tiles are made from."""

    rows: Rows
    labels: Labels | None
    details: Mapping[int, Mapping[str, Any]]
    """Row -> id, path, probabilities, error, lane_reason."""
    images: Mapping[int, str]
    """Row -> data: URI."""
    duplicate_of: Mapping[int, int]
    """Row -> the earlier row that it repeats."""


def sheet_section(sheet: Sheet, shown: Shown) -> str:
    """Returns a sheet as a part of the page."""
    key = sheet.title.lower().replace(" ", "-")
    return section(key, sheet.title, paragraph(sheet.note), tile_list(sheet, sheet.title, shown))


def class_section(classes: Sequence[ClassSheets], shown: Shown) -> str:
    """Returns the sheets of all classes as a part of the page, each class folded away behind its name."""
    names = shown.rows.classes
    note = "Open a class for its most certain, least certain and least real images."
    if len(classes) == MAX_CLASSES < len(names):
        note += f" The {MAX_CLASSES} most frequent of {len(names):,} classes."
    parts = []
    for group in classes:
        blocks = "".join(
            f"<h3>{text(sheet.title.capitalize())}</h3>"
            + tile_list(sheet, f"{names[group.label]}, {sheet.title}", shown)
            for sheet in group.sheets
        )
        summary = f"<summary>{name(names[group.label])} <small>{number(group.rows)} rows</small></summary>"
        parts.append(f'<details class="class">{summary}{blocks}</details>')
    return section("per-class", "Per class", paragraph(note), *parts)


def tile_list(sheet: Sheet, title: str, shown: Shown) -> str:
    """Returns the tiles of a sheet; `title` names them for those who cannot see the heading."""
    if not sheet.rows:
        return paragraph("No images.")
    tiles = "".join(_tile(row, shown) for row in sheet.rows)
    return f'<ul class="sheet" data-sheet aria-label="{attribute(title)}">{tiles}</ul>'


def _tile(row: int, shown: Shown) -> str:
    known, rows = shown.details[row], shown.rows
    image = (
        f'<img src="{shown.images[row]}" alt="{attribute(known["id"])}" decoding="async">'
        if row in shown.images
        else f'<span class="no-image">{name(known["id"])}</span>'
    )
    if rows.label[row] < 0:
        caption = "no prediction"
    else:
        caption = f"{name(rows.classes[rows.label[row]])} <small>{percent(float(rows.confidence[row]), 1)}</small>"
    given = _given(row, shown)
    if given is not None and rows.label[row] >= 0 and given != rows.classes[rows.label[row]]:
        caption += f' <small class="unlike">labelled {name(given)}</small>'
    return (
        f'<li><button type="button" class="tile" aria-haspopup="dialog">{image}<span class="caption">{caption}</span>'
        f"</button><dl hidden>{_about(row, given, shown)}</dl></li>"
    )


def _about(row: int, given: str | None, shown: Shown) -> str:
    known, rows = shown.details[row], shown.rows
    terms = [("Id", name(known["id"])), ("Path", name(known["path"])), ("Row", number(row))]
    if rows.label[row] >= 0:
        probabilities = sorted(enumerate(known["probabilities"]), key=lambda one: -one[1])[:PROBABILITIES]
        likely = "<br>".join(f"{name(rows.classes[k])} {percent(p, 3)}" for k, p in probabilities)
        terms += [
            ("Prediction", name(rows.classes[rows.label[row]])),
            ("Confidence", percent(float(rows.confidence[row]), 3)),
            *([("Calibrated", percent(float(rows.lanes.confidence[row]), 3))] if rows.lanes else []),
            ("Realness", percent(float(rows.realness[row]), 3)),
            ("Most probable", likely),
        ]
    else:
        terms.append(("Error", name(known["error"])))
    if given is not None:
        terms.append(("Label", name(given)))
    if rows.lanes is not None:
        terms.append(("Lane", name(f"{LANES[rows.lanes.lane[row]]}: {known['lane_reason']}")))
    if row in shown.duplicate_of:
        terms.append(("Duplicate of", name(shown.details[shown.duplicate_of[row]]["id"])))
    return "".join(f"<dt>{term}</dt><dd>{content}</dd>" for term, content in terms)


def _given(row: int, shown: Shown) -> str | None:
    if shown.labels is None or not shown.labels.known[row]:
        return None
    index = shown.labels.index[row]
    return NONE_OF_THESE if index == NO_CLASS else shown.rows.classes[index]
