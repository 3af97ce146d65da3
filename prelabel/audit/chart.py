"""Coverage against alpha as SVG, drawn by hand: a plotting library would weigh more than the rest of the package."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH_PX, HEIGHT_PX = 640, 360
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 60, 20, 40, 50
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Error rates that the axis names."""
_STYLE = """
  <style>
    text { font: 13px sans-serif; fill: #333 } line { stroke: #ccc }
    .curve { fill: none; stroke: #1f77b4; stroke-width: 2 }
    .promise { stroke: #d62728; stroke-dasharray: 4 3 } .back { fill: white }
    @media (prefers-color-scheme: dark) { text { fill: #ddd } line { stroke: #555 } .back { fill: #1b1b1b } }
  </style>"""


def coverage_svg(alphas: Sequence[float], coverages: Sequence[float], promised: float, title: str) -> str:
    """Draws the share of the pile that is certified over the error rate that is promised, on a logarithmic axis.

    Args:
        alphas: Ascending, over 0.
        coverages: As many, 0..1.
        promised: The alpha of the lanes, which a line marks.
        title: Above the drawing.
    """
    low, high = math.log(alphas[0]), math.log(alphas[-1])

    def x(alpha: float) -> float:
        return LEFT_PX + (WIDTH_PX - LEFT_PX - RIGHT_PX) * (math.log(alpha) - low) / (high - low)

    def y(coverage: float) -> float:
        return HEIGHT_PX - BOTTOM_PX - (HEIGHT_PX - TOP_PX - BOTTOM_PX) * coverage

    parts = [f'<text x="{LEFT_PX}" y="24">{escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line x1="{LEFT_PX}" x2="{WIDTH_PX - RIGHT_PX}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        parts.append(f'<text x="{LEFT_PX - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for alpha in (tick for tick in TICKS if alphas[0] <= tick <= alphas[-1]):
        place = f'x="{x(alpha):.1f}" y="{HEIGHT_PX - BOTTOM_PX + 18}"'
        parts.append(f'<text {place} text-anchor="middle">{100 * alpha:g} %</text>')
    middle = (LEFT_PX + WIDTH_PX - RIGHT_PX) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT_PX - 10}" text-anchor="middle">error rate promised (alpha)</text>')
    if alphas[0] <= promised <= alphas[-1]:
        place = f'x1="{x(promised):.1f}" x2="{x(promised):.1f}" y1="{y(1.0):.1f}" y2="{y(0.0):.1f}"'
        parts.append(f'<line class="promise" {place}/>')
    points = " ".join(f"{x(a):.1f},{y(c):.1f}" for a, c in zip(alphas, coverages, strict=True))
    parts.append(f'<polyline class="curve" points="{points}"/>')
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" role="img">{_STYLE}\n'
        f'  <rect class="back" width="{WIDTH_PX}" height="{HEIGHT_PX}"/>\n  {body}\n</svg>\n'
    )
