"""Audits made-up piles many times: how often which number of answers certifies a set, and how often that is wrong.

The piles are 60,000 rows in the order of their confidence, with a known share of wrong ones in each fiftieth. For each
pile and sample size a sample's answers are drawn (multivariate hypergeometric) and certified as `prelabel audit apply`
does it with the default `--coverage`. Results go to docs/results/audit_power.json.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from prelabel.audit.certify import COVERAGE, STEPS, accepted_step, starts
from prelabel.bounds import answers_needed
from prelabel.files import write_text_atomically
from scripts.provenance import provenance

COMMAND = "python -m scripts.audit_power"
ROWS = 60_000
DELTA = 0.05
ERRORS = (1, 5, 14)
"""`--errors` of the draws."""


@dataclass(frozen=True)
class Made:
    """A pile in words, and in numbers."""

    name: str
    alpha: float
    """What is to be promised about it."""
    rate: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """Share of the pile, the most certain first, float64 [s], 0..1 -> share of wrong ones there, 0..1."""


PILES = (
    Made(".5 % of the most certain 70 % are wrong", 0.01, lambda x: 0.005 + 0.3 * np.maximum(x - 0.7, 0.0)),
    Made("1 % of the most certain 70 % are wrong", 0.02, lambda x: 0.01 + 0.3 * np.maximum(x - 0.7, 0.0)),
    Made(".3 % are wrong, whatever the confidence", 0.01, lambda x: np.full_like(x, 0.003)),
    Made("3 % are wrong, most of them uncertain", 0.01, lambda x: 0.27 * x**8),
    Made("40 % are fine, 3 % of the rest are wrong", 0.01, lambda x: np.where(x < 0.4, 0.001, 0.03)),
    Made("1.08 % are wrong, whatever the confidence", 0.01, lambda x: np.full_like(x, 0.0108)),
)


@dataclass(frozen=True)
class Options:
    """Audit made-up piles many times: how often which number of answers certifies a set."""

    audits: int = 2000
    """Audits of each pile and sample size."""
    seed: int = 0
    """Decides the draws."""
    results: Path = Path("docs/results/audit_power.json")
    """Where the figures go."""


def main() -> None:
    """Simulates and writes the results."""
    options = tyro.cli(Options, prog=COMMAND)
    content = {
        **provenance(COMMAND),
        "rows": ROWS,
        "coverage": COVERAGE,
        "confidence": 1.0 - DELTA,
        "audits": options.audits,
        "seed": options.seed,
        "cases": [many_audits(pile, errors, options.audits, options.seed) for pile in PILES for errors in ERRORS],
    }
    write_text_atomically(options.results, json.dumps(content, indent=1) + "\n")


def many_audits(pile: Made, errors: int, audits: int, seed: int) -> dict[str, Any]:
    """Returns how often a draw for so many wrong answers certifies a set, how large, and how often it is too bad."""
    answers = math.ceil(answers_needed(errors, pile.alpha, DELTA) / COVERAGE)
    rows = np.full(STEPS, ROWS // STEPS)
    wrong = np.round(pile.rate((np.arange(STEPS) + 0.5) / STEPS) * rows).astype(np.int64)
    sizes, rates = np.cumsum(rows), np.cumsum(wrong) / np.cumsum(rows)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(
        np.concatenate([rows - wrong, wrong]), answers, size=audits, method="marginals"
    )
    wrong_answers = np.cumsum(drawn[:, STEPS:], axis=1)
    audited = np.cumsum(drawn[:, :STEPS], axis=1) + wrong_answers
    sequences = starts(sizes, ROWS, answers, pile.alpha, DELTA)
    found = [accepted_step(sizes, a, w, sequences, pile.alpha) for a, w in zip(audited, wrong_answers, strict=True)]
    accepted = np.array([one[0] for one in found if one is not None], np.int64)
    good = np.flatnonzero(rates <= pile.alpha)
    return {
        "pile": pile.name,
        "alpha": pile.alpha,
        "errors": errors,
        "answers": answers,
        "share_of_audits_with_a_set": len(accepted) / audits,
        "mean_coverage": float(sizes[accepted].sum() / ROWS / audits),
        "best_coverage": float(sizes[good[-1]] / ROWS) if len(good) else 0.0,
        "broken": int((rates[accepted] > pile.alpha).sum()),
    }


def table(result: dict[str, Any]) -> str:
    """Returns the audits as a table, a line for each pile and promise."""
    shown = [f"{'`--errors` ' if one == ERRORS[0] else ''}{one}" for one in ERRORS]
    lines = [f"| pile | promise | at best | {' | '.join(shown)} |", f"|---|---|---|{'---|' * len(ERRORS)}"]
    for pile in dict.fromkeys(one["pile"] for one in result["cases"]):
        cases = [one for one in result["cases"] if one["pile"] == pile]
        cells = [
            f"{one['answers']:,} answers: {100 * one['share_of_audits_with_a_set']:.0f} % of audits, "
            f"{100 * one['mean_coverage']:.0f} % accepted"
            for one in cases
        ]
        best = f"{100 * cases[0]['best_coverage']:.0f} %"
        lines.append(f"| {pile} | at most {100 * cases[0]['alpha']:g} % | {best} | {' | '.join(cells)} |")
    worst = max(one["broken"] for one in result["cases"]) / result["audits"]
    about = (
        f'{result["audits"]:,} simulated audits of each, of {result["rows"]:,} rows; "accepted" is the mean over all '
        f'audits, those without a set too; "at best" is what could be accepted if everything was known. '
        f"In none of the cases more than {100 * worst:.1f} % of the audits broke their promise; 5 % may."
    )
    return "\n".join([*lines, "", about, f"`{result['command']}`, commit {result['commit'][:12]}."])


if __name__ == "__main__":
    main()
