"""What the lanes save: hours of labelling, and how much could be accepted at other error rates."""

import json
import math
from pathlib import Path
from typing import Any

from prelabel.audit.apply import CERTIFICATE_FILE
from prelabel.audit.certify import COVERAGE, SECOND_COVERAGE, Step, certify
from prelabel.audit.chart import coverage_svg
from prelabel.errors import InputError
from prelabel.files import write_text_atomically

REPORT_FILE = "_report.json"
CHART_FILE = "_coverage.svg"
ALPHAS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2)
"""Error rates of the curve."""


def read_certificate(directory: Path) -> dict[str, Any]:
    """Reads the `_lanes.json` of `prelabel audit apply`.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = directory / CERTIFICATE_FILE
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        for one in fields["certificates"]:
            one["steps"] = tuple(Step(**step) for step in one["steps"])
        return fields
    except FileNotFoundError:
        raise InputError(f"{directory} holds no {CERTIFICATE_FILE}: make it with `prelabel audit apply`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): apply the answers again") from None


def what_it_takes(certificate: dict[str, Any]) -> str:
    """Returns what would certify a set where nothing is certified; of one of the certificates of `_lanes.json`."""
    needed, drawn = certificate["answers_to_draw"], certificate["drawn"]
    if not certificate["steps"]:
        return "every row is suspect"
    if needed is None:
        coverage = certificate.get("coverage", COVERAGE)  # lanes from before it was noted have the default
        return (
            f"at the error rates found among the most certain {100 * coverage:.3g} % and "
            f"{100 * SECOND_COVERAGE * coverage:.3g} %, no sample would do it: train with more labels, ask for a "
            "higher alpha, or draw with a smaller --coverage"
        )
    if needed <= drawn:
        return f"at the error rate found, most samples of {drawn:,} answers would do it"
    of_class = "" if certificate["class_name"] is None else " of this class"
    return f"at the error rate found, about {needed:,} answers{of_class}, not {drawn:,}, would do it"


def write_report(directory: Path, seconds_per_label: float) -> dict[str, Any]:
    """Writes `_report.json` and `_coverage.svg` into a lanes directory and returns the report.

    Args:
        directory: Output of `prelabel audit apply`.
        seconds_per_label: How long a person takes for an image, over 0.

    Raises:
        InputError: There are no lanes, or the time is out of range.
    """
    if not 0.0 < seconds_per_label < math.inf:
        raise InputError(f"--seconds-per-label {seconds_per_label} is not usable: a number over 0 wanted")
    made = read_certificate(directory)
    rows, hours = made["rows"], seconds_per_label / 3600.0
    left = {lane: made["lanes"][lane] - made["audited_in_lanes"][lane] for lane in ("review", "suspect")}
    # Images that the audit found wrong have their answer already.
    without, with_lanes = rows * hours, (made["audited"] + sum(left.values())) * hours
    curve = [{"alpha": alpha, "coverage": _coverage(made, alpha)} for alpha in ALPHAS]
    report = {
        "seconds_per_label": seconds_per_label,
        "rows": rows,
        "lanes": made["lanes"],
        "audited": made["audited"],
        "left_to_look_at": left,
        "hours_without": without,
        "hours_with": with_lanes,
        "hours_saved": without - with_lanes,
        "coverage_against_alpha": curve,
    }
    write_text_atomically(directory / REPORT_FILE, json.dumps(report, indent=1) + "\n")
    title = f"Share of {rows:,} rows that {made['audited']:,} answers certify, confidence {made['confidence']:.4g}"
    coverages = [entry["coverage"] for entry in curve]
    write_text_atomically(directory / CHART_FILE, coverage_svg(ALPHAS, coverages, made["alpha"], title))
    return report


def report_text(report: dict[str, Any], directory: Path) -> str:
    """Returns the report as lines for people."""
    lanes, left = report["lanes"], report["left_to_look_at"]
    shares = {name: 100 * number / report["rows"] for name, number in lanes.items()}
    lines = [
        f"{'lane':<10} {'rows':>12} {'share':>8} {'to look at':>12}",
        *(f"{name:<10} {lanes[name]:>12,} {shares[name]:>7.1f}% {left.get(name, 0):>12,}" for name in lanes),
        "",
        f"at {report['seconds_per_label']:g} s a label: {report['hours_without']:,.1f} h for all, "
        f"{report['hours_with']:,.1f} h with the lanes, the audit's {report['audited']:,} answers among them: "
        f"{report['hours_saved']:,.1f} h saved",
        "",
        f"{'alpha':<10} {'certified share of the pile':>28}",
        *(f"{100 * e['alpha']:<8g} % {100 * e['coverage']:>27.1f}%" for e in report["coverage_against_alpha"]),
        "",
        "Each line of the curve is a promise of its own: choosing one after looking at them is not covered by it.",
        f"{directory / REPORT_FILE}  {directory / CHART_FILE}",
    ]
    return "\n".join(lines)


def _coverage(made: dict[str, Any], alpha: float) -> float:
    """Returns the share of all rows, 0..1, that the answers certify at another error rate."""
    accepted = 0
    for one in made["certificates"]:
        coverage = one.get("coverage", COVERAGE)
        certificate = certify(
            one["steps"], one["frame"], one["drawn"], alpha, one["delta"], one["class_name"], coverage
        )
        accepted += certificate.set.size if certificate.set else 0
    return accepted / int(made["rows"])
