"""The tables and pictures of docs/quality.md that come from docs/results/calibration.json."""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prelabel.files import write_atomically

FEWEST_SHOWN = 10
"""Images that a bin must hold to be drawn: the accuracy of fewer is noise."""

Run = dict[str, Any]
"""An entry of `runs` in the results; `scripts.calibration.measure` says what is in it."""


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


def plot_reliability(path: Path, runs: Sequence[Run]) -> None:
    """Draws accuracy over confidence, before and after, into a PNG: a panel for each preset and number of labels."""
    # The Figure class needs no display; see `training.recorder`.
    from matplotlib.figure import Figure

    panels = list(groups(runs))
    figure = Figure(figsize=(max(5.5, 4 * len(panels)), 4.6), layout="constrained")
    for axes, (title, members) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
        for name, colour in (("before", "C1"), ("after", "C0")):
            bins = [one for one in pooled([run["reliability"][name] for run in members]) if one[0] >= FEWEST_SHOWN]
            counts = np.array([one[0] for one in bins])
            error = statistics.mean(run[name]["ece"] for run in members)
            axes.plot([one[1] for one in bins], [one[2] for one in bins], color=colour, linewidth=1)
            # Area by share of the images, with a floor: all bins should be visible.
            axes.scatter(
                [one[1] for one in bins], [one[2] for one in bins], 12 + 250 * counts / counts.sum(),
                color=colour, alpha=0.8, linewidths=0, label=f"{name}: ECE {100 * error:.2f} %",
            )  # fmt: skip
        temperatures = ", ".join(f"{run['temperature']:.2f}" for run in members)
        axes.set_title(f"{title}\ntemperature {temperatures}", fontsize="medium")
        axes.set_xlabel(f"confidence (bins of {FEWEST_SHOWN} images or more)")
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.03)
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
        for handle in axes.legend(loc="upper left", fontsize="small").legend_handles:
            handle.set_sizes([30])
    figure.axes[0].set_ylabel("accuracy")
    figure.suptitle("Before and after temperature scaling, MNIST's test split")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))


def pooled(bins_of_runs: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[int, float, float]]:
    """Returns (count, confidence, accuracy) over all images of several runs, of each bin that is not empty."""
    result = []
    for bins in zip(*bins_of_runs, strict=True):
        filled = [one for one in bins if one["count"]]
        if count := sum(one["count"] for one in filled):
            confidence, accuracy = (
                sum(one["count"] * one[name] for one in filled) / count for name in ("confidence", "accuracy")
            )
            result.append((count, confidence, accuracy))
    return result


def plot_ood(path: Path, runs: Sequence[Run]) -> None:
    """Draws AUROC of each score against each set into a PNG: each run as a small dot, their mean as a large one."""
    from matplotlib.figure import Figure

    panels = list(groups(runs))
    sets = list(runs[0]["auroc"]["realness"])
    figure = Figure(figsize=(max(5.5, 4 * len(panels)), 4.4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, members) in zip(all_axes, panels, strict=True):
        axes.axvline(0.5, color="grey", linestyle="--", linewidth=1)
        for position, score in enumerate(runs[0]["auroc"]):
            height = np.arange(len(sets)) + 0.22 * (position - 1)
            values = np.array([[run["auroc"][score][name] for name in sets] for run in members])
            axes.scatter(values, np.broadcast_to(height, values.shape), 10, color=f"C{position}", alpha=0.5)
            axes.scatter(values.mean(axis=0), height, 50, color=f"C{position}", label=score.replace("_", " "))
        axes.set_yticks(range(len(sets)), sets)
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("AUROC (dashed: chance)")
        axes.grid(alpha=0.3, axis="x")
    all_axes[0].invert_yaxis()
    all_axes[0].set_xlim(min(0.5, *(axes.dataLim.x0 for axes in all_axes)) - 0.03, 1.02)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    figure.suptitle("MNIST's test split against out-of-distribution images")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))


def groups(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """Yields (title, runs) of each preset and number of labels."""

    def key(run: Run) -> tuple[str, int]:
        return run["preset"], run["labels"]

    for (preset, labels), members in itertools.groupby(sorted(runs, key=key), key):
        group = list(members)
        yield f"{preset}, {labels:,} labels, {len(group)} run{'s' * (len(group) > 1)}", group
