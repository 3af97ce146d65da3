"""The confusion matrix as an SVG heat map, readable from 1 to 100 classes, and its worst cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.report.text import attribute, number, text

MAX_CLASSES = 100
"""More do not fit: the classes with the most wrong rows are drawn."""
NUMBERED_CLASSES = 15
"""Up to so many classes the cells hold their numbers."""
WORST = 20
SIDE_PX = 640
LABEL_PX = 92
MARGIN_PX = 8
"""Right and below, for half of the last name's height."""
LABEL_CHARACTERS = 11
STRONGEST = {True: 0.45, False: 1.0}
"""Opacity of the strongest cell, by whether it holds a number that has to stay readable."""


@dataclass(frozen=True)
class Confusion:
    """Rows of one label with one other prediction."""

    label: int
    prediction: int
    count: int


def worst_confusions(matrix: NDArray[np.int64]) -> list[Confusion]:
    """Returns the largest cells of int64 [K, K] off the diagonal, the largest first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
    cells = [(int(i // len(matrix)), int(i % len(matrix))) for i in order]
    return [Confusion(label, guess, int(wrong[label, guess])) for label, guess in cells if wrong[label, guess]]


def drawn_classes(matrix: NDArray[np.int64]) -> list[int]:
    """Returns the classes that the heat map has room for, in their order."""
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return sorted(np.argsort(-wrong, kind="stable")[:MAX_CLASSES].tolist())


def heatmap(key: str, title: str, matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Draws labels downwards and predictions to the right.

    Cells on the diagonal are as strong as the share of their label that is right; wrong ones as the root of their
    share of the largest wrong one, so that a single wrong row can be seen.

    Args:
        key: Prefix of the ids, unique in the page.
        title: What it shows, for those who cannot see it.
        matrix: int64 [K, K], rows by label, then by prediction.
        classes: K names.
    """
    shown = drawn_classes(matrix)
    part = matrix[np.ix_(shown, shown)]
    cell, numbered = (SIDE_PX - LABEL_PX) / len(shown), len(shown) <= NUMBERED_CLASSES
    totals, most = matrix.sum(axis=1), max((one.count for one in worst_confusions(matrix)), default=1)
    parts = []
    for i, j in np.argwhere(part).tolist():
        count = int(part[i, j])
        share = count / int(totals[shown[i]]) if i == j else (count / most) ** 0.5
        x, y, opacity = LABEL_PX + j * cell, LABEL_PX + i * cell, STRONGEST[numbered] * (0.15 + 0.85 * share)
        box = f'x="{x:.1f}" y="{y:.1f}" width="{cell - 0.4:.1f}" height="{cell - 0.4:.1f}"'
        parts.append(f'<rect class="{"right" if i == j else "wrong"}" {box} fill-opacity="{opacity:.2f}"/>')
        if numbered:
            parts.append(
                f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle">{number(count)}</text>'
            )
    parts += _names(shown, cell, classes)
    size = f'viewBox="0 0 {SIDE_PX + MARGIN_PX} {SIDE_PX + MARGIN_PX}"'
    inner = SIDE_PX - LABEL_PX
    frame = f'<rect class="frame" x="{LABEL_PX}" y="{LABEL_PX}" width="{inner}" height="{inner}"/>'
    return (
        f'<svg class="heatmap" {size} role="img" aria-labelledby="{key}-title">'
        f'<title id="{key}-title">{text(title)}</title>{frame}{"".join(parts)}</svg>'
    )


def _names(shown: Sequence[int], cell: float, classes: Sequence[str]) -> list[str]:
    step = max(1, -(-14 // max(1, round(cell))))  # names are 14 px high: of smaller cells some are named
    parts = []
    for i in range(0, len(shown), step):
        name = classes[shown[i]]
        short = attribute(name if len(name) <= LABEL_CHARACTERS else name[: LABEL_CHARACTERS - 1] + "\u2026")
        middle, end = LABEL_PX + (i + 0.5) * cell, LABEL_PX - 5
        parts.append(f'<text x="{end}" y="{middle + 4:.1f}" text-anchor="end">{short}</text>')
        parts.append(f'<text transform="translate({middle + 4:.1f} {end}) rotate(-90)">{short}</text>')
    return parts
