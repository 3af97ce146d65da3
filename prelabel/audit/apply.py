"""From people's answers to certificates and lanes: the whole of `prelabel audit apply`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel import __version__
from prelabel.audit.answers import NO_CLASS, read_answers
from prelabel.audit.applied import choices_of, note_applied, peeking
from prelabel.audit.certify import Certificate, answers_to_draw, certify, make_steps
from prelabel.audit.draw import check_promise
from prelabel.audit.lanes import LANES, Lanes, assign, uncertainty, write_lanes
from prelabel.audit.pile import Pile, probabilities_at, read_pile
from prelabel.audit.plan import Plan, other_draws, read_plan
from prelabel.audit.suspects import Kind, SuspectConfig, Suspects, find_suspects, mark_answers
from prelabel.errors import InputError
from prelabel.files import new_directory, write_text_atomically
from prelabel.temperature import fit_temperature

CERTIFICATE_FILE = "_lanes.json"
ASSUMPTIONS = (
    "the audited rows are those that `prelabel audit draw` chose at random, and all of them were answered",
    "the answers are right, and were given without a look at the predictions",
    "the promise is about just this pile and this model's labels, not about images that come later",
    "the draw with its options, alpha, confidence, --per-class and what makes a row suspect were chosen before the "
    "answers were seen",
)


@dataclass(frozen=True)
class ApplyConfig:
    """What is promised."""

    alpha: float | None = None
    """The error rate to promise; by default that of the draw. Choose another one only before you see answers."""
    confidence: float | None = None
    """How sure the promise is; by default as in the draw."""
    per_class: bool = False
    """Promise it for each predicted class, in all at once; a draw with --stratify class always does."""


@dataclass(frozen=True)
class Audit:
    """An audit with its answers."""

    pile: Pile
    """The predictions."""
    plan: Plan
    """The draw."""
    rows: NDArray[np.int64]
    """int64 [n], the audited rows."""
    answers: NDArray[np.int32]
    """int32 [n], -1..K-1, what people said; -1 for none of the classes."""

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which audited rows have a wrong label, bool [n]."""
        different: NDArray[np.bool_] = self.answers != self.pile.label[self.rows]
        return different


def apply(
    config: ApplyConfig, suspect: SuspectConfig, audit: Path, answers: Path, predictions: Path, output: Path
) -> dict[str, Any]:
    """Certifies, puts each row into a lane, and writes `output` whole or not at all.

    Args:
        config: What is promised.
        suspect: What makes a row suspect.
        audit: Output of `prelabel audit draw`.
        answers: CSV or Label Studio's JSON export.
        predictions: The predictions that the audit was drawn from.
        output: A new directory.

    Returns:
        The content of its `_lanes.json`.

    Raises:
        InputError: A file is damaged, or they do not belong together, or an option is out of range.
    """
    plan = read_plan(audit)
    alpha = plan.alpha if config.alpha is None else config.alpha
    confidence = plan.confidence if config.confidence is None else config.confidence
    check_promise(alpha, confidence)
    pile = read_pile(predictions)
    plan.check_pile(pile)
    rows = np.array(plan.rows, np.int64)
    if pile.ids_at(rows) != list(plan.ids):
        raise InputError(f"the rows in {audit} are not those of their ids: draw anew")
    done = Audit(pile, plan, rows, read_answers(answers, plan))
    per_class = config.per_class or plan.stratify == "class"
    with new_directory(output) as directory:
        suspects = find_suspects(pile, suspect)
        choices = choices_of(
            done.answers,
            {"duplicates": suspect.duplicates, "given_labels": suspect.given_labels},
            alpha=alpha,
            confidence=confidence,
            per_class=per_class,
            realness_quantile=suspect.realness_quantile,
        )
        certificates = make_certificates(done, suspects, alpha, 1.0 - confidence, per_class=per_class)
        temperature, fitted = temperature_of(done)
        mark_answers(suspects, pile, rows, done.answers)
        confirmed = rows[~done.wrong]
        about = uncertainty(pile, temperature)
        lanes = assign(pile, certificates, suspects, suspect.realness_quantile, confirmed, about)
        report = {
            "version": __version__,
            "model_id": pile.model_id,
            "manifest_hash": pile.manifest_hash,
            "predictions_sha256": pile.sha256,
            "alpha": alpha,
            "confidence": confidence,
            "per_class": per_class,
            "refused": _refusal(plan),
            "warnings": _warnings(done, alpha, confidence) + peeking(audit, choices),
            "assumptions": list(ASSUMPTIONS),
            "temperature": temperature,
            "temperature_fitted": fitted,
            "stratify": plan.stratify,
            "seed": plan.seed,
            "audited": len(rows),
            "wrong": int(done.wrong.sum()),
            "none_of_these": int((done.answers == NO_CLASS).sum()),
            "rows": len(pile),
            "predicted": int(pile.predicted.sum()),
            **_counts(done, lanes, suspects),
            "realness_quantile": suspect.realness_quantile,
            "realness_floor": suspects.realness_floor,
            "certificates": [_fields(one) for one in certificates],
        }
        thresholds = {one.class_name or "all": one.set.threshold for one in certificates if one.set}
        metadata = {name: report[name] for name in ("version", "alpha", "confidence", "temperature")}
        write_lanes(pile, lanes, metadata | {"thresholds": thresholds}, directory)
        write_text_atomically(directory / CERTIFICATE_FILE, json.dumps(report, indent=1) + "\n")
    note_applied(audit, choices)
    return report


def make_certificates(
    audit: Audit, suspects: Suspects, alpha: float, delta: float, *, per_class: bool
) -> list[Certificate]:
    """Certifies what the draw allows; a list without entries where it allows nothing.

    For all rows at once the draw must be uniform over them. Within a predicted class both a uniform draw and one that
    is stratified by class are uniform. With c classes each is tested with level delta / c (Bonferroni), so that with
    confidence 1 - delta the promise holds in all of them at once.

    Args:
        audit: With answers.
        suspects: Found without them.
        alpha: Error rate, over 0 and under 1.
        delta: Chance that the promise is broken, over 0 and under 1.
        per_class: One certificate for each predicted class that occurs.
    """
    pile = audit.pile
    if _refusal(audit.plan):
        return []
    if per_class:
        present = np.flatnonzero(np.bincount(pile.label[pile.predicted], minlength=len(pile.classes)))
        groups: list[tuple[str | None, NDArray[np.bool_]]] = [(pile.classes[k], pile.label == k) for k in present]
    else:
        groups = [(None, pile.predicted)]
    certificates = []
    for name, members in groups:
        candidates = members & (suspects.kind == Kind.NONE)
        drawn = members[audit.rows]
        inside = candidates[audit.rows]
        steps = make_steps(pile.confidence[candidates], pile.confidence[audit.rows[inside]], audit.wrong[inside])
        frame, in_frame = int(members.sum()), int(drawn.sum())
        coverage = audit.plan.coverage
        certificates.append(certify(steps, frame, in_frame, alpha, delta / len(groups), name, coverage))
    return certificates


def temperature_of(audit: Audit) -> tuple[float, bool]:
    """Returns the temperature that fits the answers, and whether it could be fitted; 1 where none names another class.

    A row counts for as many as its stratum's inclusion probability says.
    """
    usable = audit.answers != NO_CLASS
    if not audit.wrong[usable].any():
        return 1.0, False
    weights = np.array([1.0 / audit.plan.strata[i].inclusion_probability for i in audit.plan.stratum])
    probabilities = probabilities_at(audit.pile.directory, audit.rows[usable])
    return fit_temperature(probabilities, audit.answers[usable], weights[usable]), True


def _refusal(plan: Plan) -> str | None:
    if plan.stratify != "confidence":
        return None
    return (
        "a draw with --stratify confidence certifies nothing: its rows are no uniform draw of any set of high "
        "confidence; draw with --stratify none or class"
    )


def _warnings(audit: Audit, alpha: float, confidence: float) -> list[str]:
    warnings = []
    if others := other_draws(audit.pile, audit.plan):
        warnings.append(
            f"{1 + len(others)} draws of different samples, or with different promises, were made from these "
            "predictions: the promise holds only for one that was chosen before any answer was seen"
        )
    plan = audit.plan
    if (alpha, confidence) != (plan.alpha, plan.confidence):
        warnings.append(
            f"alpha {alpha:g} and confidence {confidence:g} are not those of the draw ({plan.alpha:g}, "
            f"{plan.confidence:g}): the promise holds only if they were chosen before any answer was seen"
        )
    return warnings


def _counts(audit: Audit, lanes: Lanes, suspects: Suspects) -> dict[str, Any]:
    in_suspect = suspects.kind[lanes.lane == LANES.index("suspect")]
    return {
        "lanes": {name: int((lanes.lane == i).sum()) for i, name in enumerate(LANES)},
        "suspects": {kind.name.lower(): int((in_suspect == kind).sum()) for kind in Kind if kind},
        # A person has looked at these already.
        "audited_in_lanes": {name: int((lanes.lane[audit.rows] == i).sum()) for i, name in enumerate(LANES)},
    }


def _fields(certificate: Certificate) -> dict[str, Any]:
    return {
        **asdict(certificate),
        "bound": certificate.bound,
        "answers_to_draw": None if certificate.set else answers_to_draw(certificate),
    }
