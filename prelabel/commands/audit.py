"""`prelabel audit draw`, `apply` and `report`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from prelabel.audit.apply import ApplyConfig, apply
from prelabel.audit.draw import DrawConfig, arithmetic, draw
from prelabel.audit.pile import read_pile
from prelabel.audit.plan import note_draw, other_draws, write_plan
from prelabel.audit.report import report_text, what_it_takes, write_report
from prelabel.audit.suspects import SuspectConfig
from prelabel.audit.tasks import CSV_FILE, IMAGE_FOLDER, LABEL_STUDIO_FILE, copy_images, write_tasks
from prelabel.commands.exits import EXIT_NOT_CERTIFIED
from prelabel.files import new_directory
from prelabel.output import unfinished_text
from prelabel.sources import open_source
from prelabel.table import read_predictions

HELP = """Labels with a guarantee: people look at a random sample, and what it certifies is accepted.

For example:
    prelabel audit draw --predictions predictions --output audit --images photos
    prelabel audit apply --audit audit --answers audit/tasks.csv --predictions predictions --output lanes
    prelabel audit report --lanes lanes"""
DRAW_HELP = """Draws the random sample that people are to label, and writes it as tasks for them.

For example, for "at most 1 % of the accepted labels is wrong", and for one such promise in each class:
    prelabel audit draw --predictions predictions --output audit --images photos
    prelabel audit draw --predictions predictions --output audit --alpha 0.05 --stratify class

The output holds tasks.csv (fill in the column `answer`), label_studio.json with its labelling configuration, and, with
--images, the images. None of it shows the predictions: a person who sees them agrees too easily. An image of no class
is answered with `none of these`. Draw once: every draw is noted beside the predictions."""
APPLY_HELP = """Reads people's answers, certifies what may be accepted, and writes the predictions again with lanes.

For example:
    prelabel audit apply --audit audit --answers audit/tasks.csv --predictions predictions --output lanes

New columns: `lane` (accept, review, suspect), `lane_reason`, `review_rank` (1 is looked at first, in review and in
suspect), `calibrated_confidence`. `_lanes.json` is the certificate.

Exit status:
    0    a set is certified, with --per-class in every class
    2    the answers could not be applied
    4    lanes are written, but nothing is certified, or not in every class: the text says what it would take"""
REPORT_HELP = """Says what the lanes save: hours of labelling, and what could be accepted at other error rates.

For example:
    prelabel audit report --lanes lanes --seconds-per-label 5

Writes `_report.json` and the curve `_coverage.svg` into the lanes' directory."""


@dataclass(frozen=True)
class Draw:
    """Options of `prelabel audit draw`."""

    predictions: Path
    """Output directory of `prelabel run`."""
    output: Path
    """New directory for the tasks."""
    draw: Annotated[DrawConfig, tyro.conf.arg(name="")] = field(default_factory=DrawConfig)
    """How it is drawn."""
    images: Path | None = None
    """The images, as they were given to `prelabel run`: those drawn are copied into the output."""
    image_url_prefix: str | None = None
    """What makes an image's id an address that Label Studio can open, such as s3://bucket/photos/; of copied images it
    stands before the file name, and is /data/local-files/?d=images/ by default, for the output as document root."""


@dataclass(frozen=True)
class Apply:
    """Options of `prelabel audit apply`."""

    audit: Path
    """Output directory of `prelabel audit draw`."""
    answers: Path
    """The filled-in tasks.csv, or Label Studio's export in its format JSON (.json)."""
    predictions: Path
    """The predictions that the audit was drawn from."""
    output: Path
    """New directory for the predictions with lanes."""
    promise: Annotated[ApplyConfig, tyro.conf.arg(name="")] = field(default_factory=ApplyConfig)
    """What is promised."""
    suspects: Annotated[SuspectConfig, tyro.conf.arg(name="")] = field(default_factory=SuspectConfig)
    """What makes a row suspect."""


@dataclass(frozen=True)
class Report:
    """Options of `prelabel audit report`."""

    lanes: Path
    """Output directory of `prelabel audit apply`."""
    seconds_per_label: float = 5.0
    """How long a person takes for an image."""


@dataclass(frozen=True)
class Audit:
    """Options of `prelabel audit`."""

    action: Annotated[
        Annotated[Draw, tyro.conf.subcommand("draw", description=DRAW_HELP)]
        | Annotated[Apply, tyro.conf.subcommand("apply", description=APPLY_HELP)]
        | Annotated[Report, tyro.conf.subcommand("report", description=REPORT_HELP)],
        tyro.conf.arg(name=""),
    ]
    """What to do."""


def execute(options: Audit) -> int:
    """Does `prelabel audit`."""
    match options.action:
        case Draw():
            return _draw(options.action)
        case Apply():
            return _apply(options.action)
        case Report():
            return _report(options.action)


def _draw(options: Draw) -> int:
    pile = read_pile(options.predictions)
    plan = draw(pile, options.draw)
    others = other_draws(pile, plan)
    paths = read_predictions(options.predictions, ["path"])["path"].take(list(plan.rows)).to_pylist()
    with new_directory(options.output) as directory:
        copies = None
        if options.images is not None:
            copies = copy_images(directory / IMAGE_FOLDER, plan, open_source(options.images))
        write_tasks(directory, plan, paths, copies, options.image_url_prefix)
        write_plan(directory, plan)
        note_draw(pile, plan, options.output)
    print(arithmetic(options.draw, plan))
    if unfinished := unfinished_text(options.predictions, len(pile)):
        print(f"{unfinished}, and with them these answers are worth nothing: finish it before you draw")
    if others:
        print(
            f"warning: these predictions were drawn from before ({others[-1]['output']}, {others[-1]['drawn_at']}): "
            "the promise holds only for one draw, chosen before any answer was seen"
        )
    print(f"fill in {options.output / CSV_FILE}, or import {options.output / LABEL_STUDIO_FILE} into Label Studio")
    return 0


def _apply(options: Apply) -> int:
    made = apply(options.promise, options.suspects, options.audit, options.answers, options.predictions, options.output)
    print(_certificate_text(made, options.output))
    certified = made["certificates"] and all(one["accepted"] is not None for one in made["certificates"])
    return 0 if certified else EXIT_NOT_CERTIFIED


def _report(options: Report) -> int:
    print(report_text(write_report(options.lanes, options.seconds_per_label), options.lanes))
    return 0


def _certificate_text(made: dict[str, Any], output: Path) -> str:
    lanes = made["lanes"]
    promise = f"{100 * made['alpha']:g} % wrong with {100 * made['confidence']:g} % confidence"
    fit = f"temperature {made['temperature']:.3f}"
    lines = [
        f"{made['audited']:,} answers, {made['wrong']:,} of them unlike the prediction; "
        + (fit if made["temperature_fitted"] else "temperature 1, as no answer names another class"),
        *(f"warning: {one}" for one in made["warnings"]),
        *([made["refused"]] if made["refused"] else []),
        *(_one_certificate(one, promise) for one in made["certificates"]),
        f"lanes in {output}: " + "  ".join(f"{name} {number:,}" for name, number in lanes.items()),
        "the promise assumes:",
        *(f"  - {one}" for one in made["assumptions"]),
    ]
    return "\n".join(lines)


def _one_certificate(one: dict[str, Any], promise: str) -> str:
    of_class = f"class {one['class_name']!r}: " if one["class_name"] is not None else ""
    if one["accepted"] is not None:
        step = one["steps"][one["accepted"]]
        return (
            f"{of_class}certified: {step['size']:,} of {one['frame']:,} rows, confidence at least "
            f"{step['threshold']:.9g}: at most {promise} ({step['wrong']} of {step['audited']:,} audited there are "
            f"wrong; bound {100 * one['bound']:.2f} %)"
        )
    if not one["steps"]:
        return f"{of_class}not certified: {what_it_takes(one)}"
    tried = [one["steps"][i] for i in (one["start"], one["second_start"]) if i is not None]
    found = " and ".join(
        f"of {step['size']:,} rows with a confidence of at least {step['threshold']:.9g}, {step['audited']:,} were "
        f"audited, {step['wrong']} of them wrong"
        for step in tried
    )
    return f"{of_class}not certified at {promise}: {found}; {what_it_takes(one)}"
