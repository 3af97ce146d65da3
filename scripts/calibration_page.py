"""The blocks of docs/quality.md that come from docs/results/calibration.json."""

import statistics
from typing import Any


def calibration(result: dict[str, Any]) -> str:
    """Returns calibration before and after temperature scaling, a line for each run."""
    lines = [
        "| run | temperature | ECE before | after | NLL before | after | Brier before | after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in result["runs"]:
        before, after = run["before"], run["after"]
        lines.append(
            f"| `{run['preset']}`, {run['labels']:,} labels, seed {run['seed']} | {run['temperature']:.2f} "
            f"| {100 * before['ece']:.2f} % | {100 * after['ece']:.2f} % | {before['nll']:.4f} | {after['nll']:.4f} "
            f"| {before['brier']:.4f} | {after['brier']:.4f} |"
        )
    commits = ", ".join(sorted({run["commit"] for run in result["runs"]}))
    return "\n".join([*lines, "", f"`{result['command']}`, runs of commits {commits}."])


def outside(result: dict[str, Any]) -> str:
    """Returns AUROC of each score against each out-of-distribution set: the mean over runs of each preset."""
    runs = result["runs"]
    sets = list(runs[0]["auroc"]["realness"])
    lines = [f"| preset | score | {' | '.join(sets)} |", "|---|---|" + "---|" * len(sets)]
    for preset in sorted({run["preset"] for run in runs}):
        members = [run for run in runs if run["preset"] == preset]
        for score in runs[0]["auroc"]:
            means = [statistics.mean(run["auroc"][score][name] for run in members) for name in sets]
            shown = " | ".join(f"{mean:.3f}" for mean in means)
            lines.append(f"| `{preset}` ({len(members)} runs) | {score.replace('_', ' ')} | {shown} |")
    return "\n".join(lines)
