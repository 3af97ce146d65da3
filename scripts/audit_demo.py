"""Audits the pre-labels of `make demo` many times, with MNIST's hidden labels in the place of people.

For each promise and sample size, many seeds: the sample is drawn as `prelabel audit draw` draws it, answered with the
true labels, and certified as `prelabel audit apply` does; then the true error rate of what was certified is looked up.
Beside it, on the same answers, what a threshold does that is chosen because the error rate in the sample looks good
enough. With seed 0 the lanes are also written and read back. Results go to docs/results/audit.json.

The hidden labels are those of the training split: the test split is not touched.
"""

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from prelabel.audit.apply import ApplyConfig, Audit, apply, make_certificates
from prelabel.audit.certify import Step
from prelabel.audit.draw import DrawConfig, draw
from prelabel.audit.pile import Pile, read_pile
from prelabel.audit.plan import write_plan
from prelabel.audit.report import write_report
from prelabel.audit.suspects import SuspectConfig, find_suspects
from prelabel.files import write_text_atomically
from prelabel.sources.idx import read_idx
from prelabel.storage_local import LocalStorage
from prelabel.table import read_predictions
from scripts.provenance import provenance

COMMAND = "python -m scripts.audit_demo"
CASES = (DrawConfig(alpha=0.01, size=473), DrawConfig(alpha=0.01), DrawConfig(alpha=0.005))
"""473 answers have room for one wrong one in the whole pile; the others are what `prelabel audit draw` takes."""
HEAD = 500
"""Rows of the review list whose error rate is compared with that of the whole list."""

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Options:
    """Audit the pre-labels of `make demo` with MNIST's hidden labels."""

    predictions: Path = Path("runs/demo/predictions")
    """Output of `make demo`; nothing is written there."""
    labels: Path = Path("data/mnist/train-labels-idx1-ubyte.gz")
    """The true labels of the pile."""
    seeds: int = 1000
    """Audits of each case."""
    seconds_per_label: float = 5.0
    """For the hours that are saved."""
    results: Path = Path("docs/results/audit.json")
    """Where the figures go."""


def main() -> None:
    """Measures and writes the results."""
    options = tyro.cli(Options, prog=COMMAND)
    pile = read_pile(options.predictions)
    truth = read_idx(LocalStorage(options.labels.parent), options.labels.name, 1).astype(np.int32)
    assert pile.classes == tuple(str(digit) for digit in range(10))
    cases = []
    for config in CASES:
        found = many_audits(pile, truth, config, options.seeds)
        cases.append(found | {"lanes": one_audit(pile, truth, config, options.seconds_per_label)})
        print(json.dumps(cases[-1]), flush=True)
    content = {
        **provenance(COMMAND),
        "rows": len(pile),
        "model_id": pile.model_id,
        "error": float((pile.label != truth).mean()),
        "confidence": CASES[0].confidence,
        "seeds": options.seeds,
        "seconds_per_label": options.seconds_per_label,
        "cases": cases,
    }
    write_text_atomically(options.results, json.dumps(content, indent=1) + "\n")


def many_audits(pile: Pile, truth: Labels, config: DrawConfig, seeds: int) -> dict[str, Any]:
    """Returns what `seeds` audits certified and how wrong that is, and the same for a naive threshold."""
    suspects = find_suspects(pile, SuspectConfig())
    candidates = suspects.kind == 0
    wrong = pile.label != truth
    certified, naive = [], []
    for seed in range(seeds):
        plan = draw(pile, dataclasses.replace(config, seed=seed))
        rows = np.array(plan.rows)
        audit = Audit(pile, plan, rows, truth[rows])
        (one,) = make_certificates(audit, suspects, config.alpha, 1.0 - config.confidence, per_class=False)
        seems_good = [step for step in one.steps if step.audited and step.wrong <= config.alpha * step.audited]
        certified.append(_truth_of(one.set, pile, candidates, wrong))
        naive.append(_truth_of(seems_good[-1] if seems_good else None, pile, candidates, wrong))
    return {
        "alpha": config.alpha,
        "answers": len(plan.rows),
        "certified": _summary(certified, len(pile), config.alpha),
        "naive": _summary(naive, len(pile), config.alpha),
    }


def one_audit(pile: Pile, truth: Labels, config: DrawConfig, seconds_per_label: float) -> dict[str, Any]:
    """Returns what the files of an audit with seed 0 say, and how right their lanes are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = draw(pile, config)
        write_plan(folder, plan)
        lines = [f"{one},{truth[row]}" for one, row in zip(plan.ids, plan.rows, strict=True)]
        (folder / "answers.csv").write_text("\n".join(["id,answer", *lines]) + "\n")
        made = apply(ApplyConfig(), SuspectConfig(), folder, folder / "answers.csv", pile.directory, folder / "lanes")
        report = write_report(folder / "lanes", seconds_per_label)
        table = read_predictions(folder / "lanes", ["lane", "review_rank"])
    lane, wrong = np.array(table["lane"].to_pylist()), pile.label != truth
    rank = table["review_rank"].fill_null(0).to_numpy()
    return {
        "seed": config.seed,
        "temperature": made["temperature"],
        "wrong_answers": made["wrong"],
        "rows": made["lanes"],
        "error": {kind: float(wrong[lane == kind].mean()) for kind in made["lanes"]},
        "error_of_review_head": float(wrong[(lane == "review") & (rank <= HEAD)].mean()),
        "hours_without": report["hours_without"],
        "hours_with": report["hours_with"],
    }


def _truth_of(
    step: Step | None, pile: Pile, candidates: NDArray[np.bool_], wrong: NDArray[np.bool_]
) -> tuple[int, int]:
    """Returns how many rows a set has, and how many of them are wrong."""
    if step is None:
        return 0, 0
    inside = candidates & (pile.confidence >= np.float32(step.threshold))
    return int(inside.sum()), int(wrong[inside].sum())


def _summary(sets: list[tuple[int, int]], rows: int, alpha: float) -> dict[str, float]:
    sizes, wrong = np.array(sets).T
    errors = wrong[sizes > 0] / sizes[sizes > 0]
    return {
        "share_of_audits_with_a_set": float((sizes > 0).mean()),
        "mean_coverage": float(sizes.mean() / rows),
        "mean_error": float(errors.mean()) if len(errors) else 0.0,
        "worst_error": float(errors.max(initial=0.0)),
        "broken": int((errors > alpha).sum()),
    }


def table(result: dict[str, Any]) -> str:
    """Returns the audits as a table: certified, and by a naive threshold."""
    lines = [
        "| promise | answers | threshold | audits with a set | accepted, mean | true error, mean | worst | broken |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in result["cases"]:
        for name in ("certified", "naive"):
            figures = one[name]
            cells = [
                f"at most {100 * one['alpha']:g} %",
                f"{one['answers']:,}",
                name,
                f"{100 * figures['share_of_audits_with_a_set']:.1f} %",
                f"{100 * figures['mean_coverage']:.1f} %",
                f"{100 * figures['mean_error']:.2f} %",
                f"{100 * figures['worst_error']:.2f} %",
                f"{figures['broken']:,} of {result['seeds']:,}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`{result['command']}`, commit {result['commit'][:12]}."])


def lanes_table(result: dict[str, Any]) -> str:
    """Returns the lanes of the audits with seed 0 as a table."""
    lines = [
        f"| promise | lane | rows | true error | hours at {result['seconds_per_label']:g} s a label |",
        "|---|---|---|---|---|",
    ]
    for one in result["cases"]:
        lanes = one["lanes"]
        for kind, rows in lanes["rows"].items():
            note = f" (first {HEAD}: {100 * lanes['error_of_review_head']:.1f} %)" if kind == "review" else ""
            hours = f"{lanes['hours_with']:.1f}, not {lanes['hours_without']:.1f}" if kind == "accept" else ""
            promise = f"{100 * one['alpha']:g} %, {one['answers']:,} answers" if kind == "accept" else ""
            lines.append(f"| {promise} | `{kind}` | {rows:,} | {100 * lanes['error'][kind]:.2f} %{note} | {hours} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
