"""Which rows people are to look at: a uniform draw, or one from each stratum, and how large it has to be."""

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.audit.certify import COVERAGE
from prelabel.audit.pile import Pile, holds_lanes
from prelabel.audit.plan import Plan, Stratify, Stratum
from prelabel.bounds import answers_needed
from prelabel.errors import InputError

LEAST_ALPHA = 1e-6
"""To show less, three million answers would have to be right."""
CONFIDENCE_STRATA = 10
"""Strata of equal size: a dot of the reliability diagram each."""
ERRORS_SHOWN = 4


@dataclass(frozen=True)
class DrawConfig:
    """How a sample is drawn."""

    alpha: float = 0.01
    """The error rate to promise: at most this share of the accepted labels is wrong."""
    confidence: float = 0.95
    """How sure the promise is: 0.95 lets one audit in twenty be an unlucky one."""
    size: int | None = None
    """Rows to draw; by default what --alpha, --confidence, --errors and --coverage need."""
    errors: int = 1
    """Wrong answers among the accepted that the sample has room for: with none, one slip spoils the audit."""
    coverage: float = COVERAGE
    """The smallest share of the pile that is worth accepting; the sample has enough answers in it, and in more, and
    `apply` starts there. Choose it before you see any answer."""
    stratify: Stratify = "none"
    """By `class`: as many of each predicted class, for a promise about each. By `confidence`: for calibration only."""
    seed: int = 0
    """Decides the draw, together with the predictions. Choose it before you see any answer, and once."""


def check_promise(alpha: float, confidence: float) -> None:
    """Raises `InputError` unless both lie between 0 and 1, and alpha is one that answers can show."""
    for name, value in (("alpha", alpha), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise InputError(f"--{name} {value} is not usable: a number between 0 and 1 wanted, such as 0.01 or 0.95")
    if alpha < LEAST_ALPHA:
        raise InputError(f"--alpha {alpha} is not usable: {LEAST_ALPHA:g} or more wanted, such as 0.01")


def draw(pile: Pile, config: DrawConfig) -> Plan:
    """Draws the sample: uniformly without replacement from the rows with a prediction, or from each of their strata.

    Raises:
        InputError: An option is out of range, there are fewer rows than are to be drawn, or they have lanes already.
    """
    check_promise(config.alpha, config.confidence)
    if config.seed < 0:
        raise InputError(f"--seed {config.seed} is not usable: 0 or more wanted")
    if config.errors < 0:
        raise InputError(f"--errors {config.errors} is not usable: 0 or more wanted")
    if not 0.0 < config.coverage <= 1.0:
        raise InputError(f"--coverage {config.coverage} is not usable: over 0 and at most 1 wanted")
    if holds_lanes(pile.directory):
        raise InputError(
            f"{pile.directory} has the lanes of an audit: draw from the predictions that the audit was drawn from, "
            "where all draws are counted"
        )
    predicted = int(pile.predicted.sum())
    if config.size is not None and not 1 <= config.size <= predicted:
        raise InputError(f"--size {config.size} is not usable: {pile.directory} has {predicted:,} predictions")
    groups = list(_strata(pile, config.stratify))
    # Another sample for other predictions: the seed of the label draw, say, must not select the images trained on.
    generator = np.random.default_rng([config.seed, int(pile.sha256[:16], 16)])
    strata, rows, stratum = [], [], []
    for i, (name, members) in enumerate(groups):
        drawn = min(len(members), _wanted(config, len(groups), i))
        strata.append(Stratum(name, len(members), drawn))
        rows.append(generator.choice(members, drawn, replace=False))
        stratum.append(np.full(drawn, i))
    # One stratum after the other would tell the person what the model says.
    order = generator.permutation(sum(len(one) for one in rows))
    chosen = np.concatenate(rows)[order]
    return Plan(
        predictions_sha256=pile.sha256,
        model_id=pile.model_id,
        manifest_hash=pile.manifest_hash,
        classes=pile.classes,
        alpha=config.alpha,
        confidence=config.confidence,
        stratify=config.stratify,
        coverage=config.coverage,
        seed=config.seed,
        strata=tuple(strata),
        rows=tuple(chosen.tolist()),
        ids=tuple(pile.ids_at(chosen)),
        stratum=tuple(np.concatenate(stratum)[order].tolist()),
        drawn_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def arithmetic(config: DrawConfig, plan: Plan) -> str:
    """Returns in words what the sample can show: answers needed by wrong answers found."""
    parts = len(plan.strata) if config.stratify == "class" else 1
    delta = (1.0 - config.confidence) / parts
    where = "accepted set" if parts == 1 else "accepted set of each class"
    needed = ", ".join(
        f"{answers_needed(errors, config.alpha, delta):,} with {errors}" for errors in range(ERRORS_SHOWN)
    )
    together = "" if parts == 1 else f", in all {parts} classes at once"
    lines = [
        f"at most {100 * config.alpha:g} % wrong with {100 * config.confidence:g} % confidence{together} takes, in the "
        f"{where}, so many answers by wrong ones: {needed}",
        f"drawn: {len(plan.rows):,} of {sum(one.size for one in plan.strata):,} rows with a prediction",
    ]
    for one in plan.strata if len(plan.strata) > 1 else ():
        lines.append(f"  {one.name}: {one.drawn:,} of {one.size:,} (each row's chance {one.inclusion_probability:.4g})")
    if config.stratify == "confidence":
        lines.append("a draw by confidence is for calibration: nothing can be certified with it")
    return "\n".join(lines)


def _strata(pile: Pile, stratify: Stratify) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yields (name, int64 rows) of each stratum that has rows."""
    predicted = np.flatnonzero(pile.predicted)
    if stratify == "none":
        yield "all", predicted
    elif stratify == "class":
        for k, name in enumerate(pile.classes):
            if len(members := np.flatnonzero(pile.label == k)):
                yield name, members
    else:
        ordered = predicted[np.argsort(pile.confidence[predicted], kind="stable")]
        for members in np.array_split(ordered, min(CONFIDENCE_STRATA, len(ordered))):
            low, high = pile.confidence[members[[0, -1]]]
            yield f"confidence {low:.4f} to {high:.4f}", members


def _wanted(config: DrawConfig, strata: int, i: int) -> int:
    """Returns how many rows to draw from stratum i, before its size is looked at."""
    if config.size is not None:
        return config.size // strata + (i < config.size % strata)
    if config.stratify == "class":
        delta = (1.0 - config.confidence) / strata
        return math.ceil(answers_needed(config.errors, config.alpha, delta) / config.coverage)
    total = math.ceil(answers_needed(config.errors, config.alpha, 1.0 - config.confidence) / config.coverage)
    return total // strata + (i < total % strata)
