"""Bar charts and the reliability diagram as SVG in the page: its style sheet gives them their colours.

They are 380 px wide, so that on a telephone their text keeps its size.
"""

import math
from collections.abc import Sequence

from prelabel.calibration import ReliabilityBin
from prelabel.report.text import number, text

WIDTH_PX, HEIGHT_PX = 380, 260
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 46, 12, 12, 44
_INNER_WIDTH, _INNER_HEIGHT = WIDTH_PX - LEFT_PX - RIGHT_PX, HEIGHT_PX - TOP_PX - BOTTOM_PX


def histogram(key: str, title: str, axis: str, counts: Sequence[int]) -> str:
    """Draws counts over bins of equal width from 0 to 1, on a logarithmic scale: the rare ones are those of interest.

    Args:
        key: Prefix of the ids, unique in the page.
        title: What it shows, for those who cannot see it.
        axis: Name of the horizontal axis.
        counts: Rows in each bin.
    """
    decades = max(1, math.ceil(math.log10(max(counts, default=0) + 1)))

    def height(count: int) -> float:
        return _INNER_HEIGHT * math.log10(count + 1) / decades

    parts = [_across(_y(0.0), "0")]
    parts += [_across(_y(decade / decades), _short(10**decade)) for decade in range(1, decades + 1)]
    width = _INNER_WIDTH / len(counts)
    for i, count in enumerate(counts):
        if count:
            tall = height(count)
            label = f"{i / len(counts):.2f} to {(i + 1) / len(counts):.2f}: {number(count)} rows"
            parts.append(
                f'<rect class="bar" x="{LEFT_PX + i * width + 1:.1f}" y="{TOP_PX + _INNER_HEIGHT - tall:.1f}" '
                f'width="{width - 2:.1f}" height="{tall:.1f}"><title>{label}</title></rect>'
            )
    parts += _bottom(axis)
    return _svg(key, title, parts)


def reliability(
    key: str, title: str, bins: Sequence[ReliabilityBin], calibrated: Sequence[ReliabilityBin] | None
) -> str:
    """Draws accuracy over mean confidence of each bin; on the diagonal, confidence is what it says.

    Args:
        key: Prefix of the ids, unique in the page.
        title: What it shows, for those who cannot see it.
        bins: As the model says.
        calibrated: After temperature scaling, None where there are no lanes.
    """
    parts = [_across(_y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts.append(
        f'<line class="diagonal" x1="{_x(0.0):.1f}" y1="{_y(0.0):.1f}" x2="{_x(1.0):.1f}" y2="{_y(1.0):.1f}"/>'
    )
    parts += _line("raw", bins)
    if calibrated is not None:
        parts += _line("calibrated", calibrated)
    return _svg(key, title, parts + _bottom("confidence"))


def _line(kind: str, bins: Sequence[ReliabilityBin]) -> list[str]:
    filled = [
        (one.confidence, one.accuracy, one.count)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    points = " ".join(f"{_x(confidence):.1f},{_y(accuracy):.1f}" for confidence, accuracy, _ in filled)
    parts = [f'<polyline class="line {kind}" points="{points}"/>']
    for confidence, accuracy, count in filled:
        label = f"{kind}: confidence {confidence:.4f}, accuracy {accuracy:.4f}, {number(count)} rows"
        x, y = _x(confidence), _y(accuracy)
        # Two shapes: colour alone does not tell the lines apart.
        shape = (
            f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            if kind == "raw"
            else f'<rect class="dot {kind}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">'
        )
        parts.append(f"{shape}<title>{label}</title></{'circle' if kind == 'raw' else 'rect'}>")
    return parts


def _short(value: int) -> str:
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            return f"{value // unit:,}{name}"
    return str(value)


def _x(share: float) -> float:
    return LEFT_PX + _INNER_WIDTH * min(share, 1.0)


def _y(share: float) -> float:
    return TOP_PX + _INNER_HEIGHT * (1.0 - share)


def _across(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT_PX}" y1="{y:.1f}" x2="{WIDTH_PX - RIGHT_PX}" y2="{y:.1f}"/>'
        f'<text x="{LEFT_PX - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _bottom(axis: str) -> list[str]:
    y = HEIGHT_PX - BOTTOM_PX + 17
    ticks = [
        f'<text x="{_x(share):.1f}" y="{y}" text-anchor="middle">{share:g}</text>'
        for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    middle = LEFT_PX + _INNER_WIDTH / 2
    return [*ticks, f'<text x="{middle:.1f}" y="{HEIGHT_PX - 8}" text-anchor="middle">{text(axis)}</text>']


def _svg(key: str, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" role="img" aria-labelledby="{key}-title">'
        f'<title id="{key}-title">{text(title)}</title>{"".join(parts)}</svg>'
    )
