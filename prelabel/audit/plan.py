"""`_audit.json`: what was drawn, of which predictions, with which promise in mind; and the ledger of all draws.

The ledger `_audits.json` lies beside the predictions. Who draws again until the sample is a lucky one breaks the
promise, so every draw is noted there, and drawing and applying say how many there were.
"""

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prelabel import __version__
from prelabel.audit.certify import COVERAGE
from prelabel.audit.pile import Pile
from prelabel.errors import InputError
from prelabel.files import write_text_atomically

logger = logging.getLogger(__name__)

PLAN_FILE = "_audit.json"
# Readers of Parquet data sets pass over names that start with an underscore.
LEDGER_FILE = "_audits.json"

Stratify = Literal["none", "class", "confidence"]


@dataclass(frozen=True)
class Stratum:
    """Rows of which a number was drawn uniformly."""

    name: str
    """The class, the interval of confidence, or "all"."""
    size: int
    """Rows with a prediction in it."""
    drawn: int
    """Rows drawn."""

    @property
    def inclusion_probability(self) -> float:
        """The chance of each of its rows to be drawn, 0..1."""
        return self.drawn / self.size if self.size else 0.0


@dataclass(frozen=True)
class Plan:
    """A draw; the content of `_audit.json`."""

    predictions_sha256: str
    """Hash of the predictions that were drawn from."""
    model_id: str
    """The model that made them."""
    manifest_hash: str
    """Hash of the input."""
    classes: tuple[str, ...]
    """Class names in label order."""
    alpha: float
    """The error rate that is to be promised, over 0 and under 1."""
    confidence: float
    """The confidence of the promise, over 0 and under 1."""
    stratify: Stratify
    """How the rows were divided before drawing."""
    seed: int
    """Decides the draw, together with the predictions."""
    strata: tuple[Stratum, ...]
    """One or more."""
    rows: tuple[int, ...]
    """Positions of the drawn rows in the predictions, in the order of the tasks."""
    ids: tuple[str, ...]
    """Their ids."""
    stratum: tuple[int, ...]
    """Index of the stratum of each."""
    drawn_at: str
    """When, UTC."""
    version: str = __version__
    """Version of prelabel that drew."""
    coverage: float = COVERAGE
    """The share of the pile that is to be certified at least, over 0 and at most 1; draws from before it was noted have
    the default, which no answer has a part in either."""

    @property
    def sample_sha256(self) -> str:
        """Hash of the drawn rows: the same draw again is no second one."""
        return hashlib.sha256(repr(sorted(self.rows)).encode()).hexdigest()

    def check_pile(self, pile: Pile) -> None:
        """Raises `InputError` unless the plan is of these predictions."""
        for name in ("model_id", "manifest_hash", "classes"):
            if getattr(self, name) != getattr(pile, name):
                raise InputError(
                    f"the audit was drawn from predictions whose {name} is {getattr(self, name)}, but that of "
                    f"{pile.directory} is {getattr(pile, name)}: give the predictions that it was drawn from"
                )
        if self.predictions_sha256 != pile.sha256:
            raise InputError(
                f"the predictions in {pile.directory} are not those that the audit was drawn from (hash "
                f"{pile.sha256[:12]}, not {self.predictions_sha256[:12]}): its guarantee is about those; draw anew"
            )


def write_plan(directory: Path, plan: Plan) -> None:
    """Writes `_audit.json`, with the inclusion probability of each stratum spelt out."""
    fields = dataclasses.asdict(plan)
    for stratum, entry in zip(plan.strata, fields["strata"], strict=True):
        entry["inclusion_probability"] = stratum.inclusion_probability
    write_text_atomically(directory / PLAN_FILE, json.dumps(fields, indent=1) + "\n")


def read_plan(directory: Path) -> Plan:
    """Reads the `_audit.json` of a draw.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = directory / PLAN_FILE
    try:
        fields = json.loads(path.read_bytes())
        names = [field.name for field in dataclasses.fields(Stratum)]
        strata = tuple(Stratum(**{name: entry[name] for name in names}) for entry in fields["strata"])
        lists = {name: tuple(fields[name]) for name in ("classes", "rows", "ids", "stratum")}
        return Plan(**{**fields, **lists, "strata": strata})
    except FileNotFoundError:
        raise InputError(f"{directory} holds no {PLAN_FILE}: make it with `prelabel audit draw`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): draw anew") from None


def other_draws(pile: Pile, plan: Plan) -> list[dict[str, Any]]:
    """Returns what the ledger says about other draws from just these predictions, oldest first.

    Others are those of other rows, and those with another promise in mind: who draws the same rows again with a looser
    one may have seen their answers. Draws from before promises were noted are taken to have had this one.

    Raises:
        InputError: The ledger is damaged.
    """
    return [
        entry
        for entry in _read_ledger(pile)
        if entry["predictions_sha256"] == pile.sha256
        and (
            entry["sample_sha256"] != plan.sample_sha256
            or any(entry.get(name, value) != value for name, value in _promise(plan).items())
        )
    ]


def _promise(plan: Plan) -> dict[str, float]:
    return {"alpha": plan.alpha, "confidence": plan.confidence, "coverage": plan.coverage}


def note_draw(pile: Pile, plan: Plan, output: Path) -> None:
    """Notes a draw in the ledger; where the predictions cannot be written to, says so in the log.

    Raises:
        InputError: The ledger is damaged.
    """
    entry = {
        "predictions_sha256": plan.predictions_sha256,
        "drawn_at": plan.drawn_at,
        "output": str(output),
        "sample_sha256": plan.sample_sha256,
        "seed": plan.seed,
        "stratify": plan.stratify,
        "rows": len(plan.rows),
        **_promise(plan),
    }
    try:
        text = json.dumps([*_read_ledger(pile), entry], indent=1)
        write_text_atomically(pile.directory / LEDGER_FILE, text + "\n")
    except OSError as error:
        logger.warning(
            "warning: %s cannot be written (%s): a second draw will not be noticed, so keep this one",
            pile.directory / LEDGER_FILE,
            error.strerror,
        )


def _read_ledger(pile: Pile) -> list[dict[str, Any]]:
    path = pile.directory / LEDGER_FILE
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())
        if any(not {"predictions_sha256", "sample_sha256"} <= entry.keys() for entry in entries):
            raise ValueError("an entry without hashes")
        return entries
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): it lists the draws from these predictions; mend it") from None
