"""What an audit certified, under which assumptions."""

import re
from typing import Any

from prelabel.audit.report import what_it_takes
from prelabel.report.markup import paragraph, section, table
from prelabel.report.text import UNKNOWN, name, number, percent, text

_COMMAND = re.compile("`([^`]*)`")
_CODE = r"<code>\1</code>"


def guarantee(made: dict[str, Any]) -> str:
    """Returns the certificate (from `prelabel.audit.report.read_certificate`) as a part of the page."""
    promise = f"at most {100 * made['alpha']:g} % are wrong, with {100 * made['confidence']:g} % confidence"
    certified = [one for one in made["certificates"] if one["accepted"] is not None]
    if made["refused"]:
        verdict = f"Nothing is certified: {made['refused']}."
    elif not certified:
        verdict = f"Nothing is certified: no set of which {promise}."
    elif made["per_class"]:
        verdict = (
            f"Certified for {number(len(certified))} of {number(len(made['certificates']))} predicted classes, in all "
            f"of them at once: of the accepted rows of a class, {promise}."
        )
    else:
        verdict = f"Certified: of the accepted rows, {promise}."
    answers = (
        f"People gave {number(made['audited'])} answers; {number(made['wrong'])} of them are unlike the prediction, "
        f"{number(made['none_of_these'])} say that it is none of the classes. Temperature {made['temperature']:.4g}"
        + ("." if made["temperature_fitted"] else ": not fitted, as no answer names another class.")
    )
    warnings = "".join(f'<p class="warning">Warning: {text(one)}.</p>' for one in made["warnings"])
    assumptions = "".join(f"<li>{_COMMAND.sub(_CODE, text(one))}</li>" for one in made["assumptions"])
    return section(
        "guarantee",
        "The guarantee",
        f'<p class="verdict">{text(verdict)}</p>',
        warnings,
        paragraph(answers),
        _certificates(made["certificates"]),
        f"<p>It assumes that:</p><ul>{assumptions}</ul>",
    )


def _certificates(certificates: list[dict[str, Any]]) -> str:
    if not certificates:
        return ""
    certified = [one for one in certificates if one["accepted"] is not None]
    lines = [_line(one)[: None if len(certified) < len(certificates) else -1] for one in certificates]
    header = ["of", "rows", "certified", "confidence at least", "audited there", "wrong there", "bound"]
    if len(certified) < len(certificates):
        header.append("what it would take")
    return table("Certificates", header, lines)


def _line(one: dict[str, Any]) -> list[str]:
    of = "all rows" if one["class_name"] is None else name(one["class_name"])
    if one["accepted"] is not None:
        step = one["steps"][one["accepted"]]
        return [
            of,
            number(one["frame"]),
            number(step.size),
            f"{step.threshold:.9g}",
            number(step.audited),
            number(step.wrong),
            percent(one["bound"]),
            "",
        ]
    return [of, number(one["frame"]), "0", *[UNKNOWN] * 4, text(what_it_takes(one))]
