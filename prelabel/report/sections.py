"""The parts of the page that say what the predictions are: counts, charts, errors, duplicates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.lanes import LANES
from prelabel.calibration import ReliabilityBin
from prelabel.report import charts
from prelabel.report.figures import Comparison, Figures
from prelabel.report.heatmap import MAX_CLASSES, drawn_classes, heatmap, worst_confusions
from prelabel.report.markup import details, figure, paragraph, section, table
from prelabel.report.rows import Rows
from prelabel.report.text import UNKNOWN, name, number, percent, text

HOW_TO_GET_LANES = (
    "There are no lanes: nothing says yet which labels may be accepted unseen. <code>prelabel audit draw</code> draws "
    "a random sample for people, and <code>prelabel audit apply</code> makes lanes of their answers; give its output "
    "to <code>--predictions</code>."
)
MANY_CLASSES = 25
"""A longer table is folded away."""


def overview(rows: Rows, figures: Figures) -> str:
    """Returns lanes and counts."""
    lines = [
        ("rows", number(len(rows))),
        ("with a prediction", number(int(rows.predicted.sum()))),
        ("errors", number(rows.causes.rows)),
        ("classes", number(len(rows.classes))),
    ]
    compared = figures.comparison
    if compared is not None:
        lines += [("with a label", number(len(compared.rows))), ("of them right", percent(compared.accuracy))]
    tiles = "".join(f"<div><dt>{label}</dt><dd>{content}</dd></div>" for label, content in lines)
    lanes = f"<p>{HOW_TO_GET_LANES}</p>"
    if figures.lanes is not None:
        # Rows that an audit found right are accepted, and those it found wrong suspect: no count of errors in a lane.
        lanes = _lanes(rows, figures.lanes, None if compared is None or compared.of_audit else compared)
    return section("overview", "Lanes and counts", f'<dl class="counts">{tiles}</dl>', lanes)


def _lanes(rows: Rows, counts: NDArray[np.int64], compared: Comparison | None) -> str:
    lines, total = [], counts.sum(axis=0).tolist()
    for i, lane in enumerate(LANES):
        line = [name(lane), number(total[i]), percent(total[i] / len(rows), 1)]
        if compared is not None:
            assert rows.lanes is not None
            inside = rows.lanes.lane[compared.rows] == i
            wrong, labelled = int((inside & ~compared.right).sum()), int(inside.sum())
            line += [number(labelled), number(wrong), percent(wrong / labelled if labelled else None)]
        lines.append(line)
    header = ["lane", "rows", "share"]
    header += ["with a label", "unlike it", "share unlike it"] if compared is not None else []
    return table("Lanes", header, lines)


def agreement(rows: Rows, compared: Comparison, origin: str) -> str:
    """Returns predictions against labels, which are of the file `origin`: reliability and confusion."""
    note = f"Labels of {origin}: {number(len(compared.rows))} rows have one and a prediction."
    note += f" {number(int((~compared.right).sum()))} predictions are unlike it."
    if compared.no_class:
        note += f" {number(compared.no_class)} of those are labelled as none of the classes and not in the matrix."
    caution = "If the model was trained on these labels, all of this flatters it."
    error = f"Expected calibration error {percent(compared.calibration_error)}"
    caption = f"Reliability: on the diagonal, confidence is the share that is right. {error} (circles)"
    caption += "; squares are after temperature scaling." if compared.calibrated_bins is not None else "."
    reliability = charts.reliability("reliability", "Reliability diagram", compared.bins, compared.calibrated_bins)
    numbers = _bins("By confidence", compared.bins)
    if compared.calibrated_bins is not None:
        numbers += _bins("By calibrated confidence", compared.calibrated_bins)
    return section(
        "agreement",
        "Predictions against labels",
        paragraph(f"{note} {caution}"),
        f'<div class="columns">{figure(reliability, caption, numbers)}{_worst(rows, compared)}</div>',
        _heatmap(rows, compared),
    )


def _bins(title: str, bins: Sequence[ReliabilityBin]) -> str:
    lines = [
        [f"{one.low:.3f} to {one.high:.3f}", number(one.count), percent(one.confidence), percent(one.accuracy)]
        for one in bins
    ]
    return table(title, ["confidence", "rows", "mean confidence", "right"], lines)


def _worst(rows: Rows, compared: Comparison) -> str:
    found = worst_confusions(compared.matrix)
    if not found:
        return paragraph("No class was taken for another.")
    totals = compared.matrix.sum(axis=1)
    lines = [
        [
            name(rows.classes[one.label]),
            name(rows.classes[one.prediction]),
            number(one.count),
            percent(one.count / int(totals[one.label])),
        ]
        for one in found
    ]
    return table("Worst confusions", ["label", "prediction", "rows", "of the label"], lines)


def _heatmap(rows: Rows, compared: Comparison) -> str:
    drawn = heatmap(
        "confusion", "Confusion matrix: labels downwards, predictions to the right", compared.matrix, rows.classes
    )
    part = len(drawn_classes(compared.matrix)) < len(rows.classes)
    caption = (
        "Confusion matrix: labels downwards, predictions to the right. Green: the same. Red: not the same; as strong "
        "as the root of its share of the worst confusion."
    )
    if part:
        caption += f" The {MAX_CLASSES} classes with the most confusions of {number(len(rows.classes))}."
    scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="Confusion matrix">{drawn}</div>'
    return f'<figure class="wide">{scroll}<figcaption>{text(caption)}</figcaption></figure>'


def distributions(figures: Figures) -> str:
    """Returns the histograms of confidence and realness."""
    drawn = []
    for key, title, counts in (
        ("confidence", "Confidence", figures.confidence.tolist()),
        ("realness", "Realness", figures.realness.tolist()),
    ):
        lines = [
            [f"{i / len(counts):.2f} to {(i + 1) / len(counts):.2f}", number(count)] for i, count in enumerate(counts)
        ]
        caption = f"{title} of all predicted rows; the scale of the rows is logarithmic."
        chart = charts.histogram(key, f"Histogram of the {key}", key, counts)
        drawn.append(figure(chart, caption, table(title, [key, "rows"], lines)))
    return section("distributions", "Confidence and realness", f'<div class="columns">{"".join(drawn)}</div>')


def classes(rows: Rows, figures: Figures) -> str:
    """Returns the table of the classes."""
    compared = figures.comparison
    header = ["class", "predicted", "mean confidence"]
    header += list(LANES) if figures.lanes is not None else []
    header += ["labelled", "precision", "recall"] if compared is not None else []
    lines = []
    for k, label in enumerate(rows.classes):
        line = [name(label), number(int(figures.per_class[k])), percent(float(figures.mean_confidence[k]))]
        if figures.lanes is not None:
            line += [number(count) for count in figures.lanes[k].tolist()]
        if compared is not None:
            labelled, right = int(compared.matrix[k].sum()), int(compared.matrix[k, k])
            # A row of no class is no correct prediction of this one.
            guessed = int((rows.label[compared.rows] == k).sum())
            line += [number(labelled), *(percent(right / n) if n else UNKNOWN for n in (guessed, labelled))]
        lines.append(line)
    content = table("Classes", header, lines)
    return section("classes", "Classes", details("All classes", content) if len(lines) > MANY_CLASSES else content)


def errors(rows: Rows) -> str:
    """Returns the rows without a prediction, by cause."""
    if not rows.causes.rows:
        return section("errors", "Error rows", paragraph("None: every row has a prediction."))
    lines = [
        [name(cause), number(found.count), ", ".join(name(one) for one in found.examples)]
        for cause, found in rows.causes.by_count()
    ]
    title = f"{number(rows.causes.rows)} rows without a prediction, by cause"
    content = table(title, ["cause", "rows", "for example"], lines)
    return section("errors", "Error rows", details(title, content) if len(lines) > MANY_CLASSES else content)
