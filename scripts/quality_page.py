"""The blocks and pictures of docs/quality.md that come from docs/results/quality.json."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prelabel.files import write_atomically
from scripts.compare import ABLATIONS, VARIANTS, WHOLE

Entry = dict[str, Any]

SLIDES = (
    ("supervised", 100, "plain classifier, 100 labels", "70 %"),
    ("book", 100, "SGAN of the book, 100 labels", "89 %"),
    ("supervised", 10_000, "plain classifier, 10,000 labels", "98 %"),
    ("default", 100, "prelabel's default, 100 labels", ""),
)
"""(variant, labels, what it is, the book's figure)."""

PUBLISHED = (
    ("GANs in Action, chapter 7, SGAN", 100, "10.6", "one run"),
    ("CatGAN (Springenberg 2016)", 100, "1.91 ± 0.10", ""),
    ("VAT (Miyato 2018)", 100, "1.36", ""),
    ("Ladder network (Rasmus 2015)", 100, "1.06 ± 0.37", ""),
    ("Improved GAN (Salimans 2016)", 100, "0.93 ± 0.07", "10 draws"),
    ("Improved GAN (Salimans 2016)", 50, "2.21 ± 1.36", "10 draws"),
    ("Improved GAN (Salimans 2016)", 20, "16.8 ± 4.5", "10 draws"),
    ("Triple-GAN (Li 2017)", 100, "0.91 ± 0.58", "test set read each epoch"),
    ("Bad GAN (Dai 2017)", 100, "0.795 ± 0.098", "test set is the dev set"),
)
"""(system, labels, test error in percent, remark)."""

COLOURS = {
    "supervised": "tab:gray", "book": "tab:orange", "constant": "tab:olive", "fewer-steps": "tab:cyan",
    "long-ramp": "tab:purple", "half-ramp": "tab:pink", "wide-labels": "tab:brown", "default": "tab:blue",
}  # fmt: skip
NAMES = {
    "long-ramp": "default, ramp of 16 %",
    "half-ramp": "default, ramp of 8 %",
    "wide-labels": "default, 96 labelled images a step",
    "fewer-steps": "default, 5,000 steps",
    "constant": "default, 5,000 steps, constant",
}
"""What a variant is called where it is not a preset."""


def name_of(variant: str) -> str:
    """Returns what tables and plots call a variant."""
    return NAMES.get(variant, variant)


def of(runs: list[Entry], variant: str, labels: int) -> list[Entry]:
    """Returns the runs of a variant with a number of labels."""
    return [run for run in runs if (run["variant"], run["labels"]) == (variant, labels)]


def slides(runs: list[Entry]) -> str:
    """Returns the slides' table, in accuracy, as the slides have it."""
    lines = ["| | the book | mean | sd | worst | draws | all draws |", "|---|---|---|---|---|---|---|"]
    for variant, labels, title, book in SLIDES:
        values = [100.0 - run["test_error"] for run in of(runs, variant, labels)]
        if values:
            shown = " ".join(f"{value:.2f}" for value in values)
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            lines.append(
                f"| {title} | {book} | {statistics.mean(values):.2f} % | {deviation:.2f} | {min(values):.2f} % "
                f"| {len(values)} | {shown} |"
            )
    return "\n".join(lines)


def records(runs: list[Entry]) -> str:
    """Returns test errors by labels and preset."""
    lines = ["| labels | preset | mean error | sd | median | worst | draws | all draws |", "|" + "---|" * 8]
    for labels in sorted({run["labels"] for run in runs}):
        for preset in COLOURS:
            members = of(runs, preset, labels)
            values = [run["test_error"] for run in members]
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else 0.0
                seeds = [run["seed"] for run in members]
                which = "" if seeds == [*range(len(seeds))] else f" (draws {', '.join(map(str, seeds))})"
                lines.append(
                    f"| {labels:,} | {name_of(preset)} | {statistics.mean(values):.2f} % | {deviation:.2f} "
                    f"| {statistics.median(values):.2f} % | {max(values):.2f} % | {len(values)} "
                    f"| {' '.join(f'{value:.2f}' for value in values)}{which} |"
                )
    return "\n".join(lines)


def published(runs: list[Entry]) -> str:
    """Returns the published figures."""
    lines = ["| published | labels | test error | |", "|---|---|---|---|"]
    lines += [f"| {system} | {labels} | {error} % | {remark} |" for system, labels, error, remark in PUBLISHED]
    return "\n".join(lines)


def ablations(runs: list[Entry]) -> str:
    """Returns the ablation table at 100 labels; differences are taken over the draws that both have."""
    whole = {run["seed"]: run["test_error"] for run in of(runs, "short", 100)}
    lines = [
        "| recipe, 100 labels | steps | mean error | worst | draws | against the short default | seconds a run | on |",
        "|" + "---|" * 8,
    ]
    for name in (*WHOLE, *ABLATIONS):
        members = of(runs, name, 100)
        values = [run["test_error"] for run in members]
        if not values:
            continue
        paired = [run["test_error"] - whole[run["seed"]] for run in members if run["seed"] in whole]
        comparable = paired and name in ABLATIONS and name != "short"
        against = f"{statistics.mean(paired):+.2f}" if comparable else ""
        lines.append(
            f"| {VARIANTS[name].title} | {members[0]['steps']:,} "
            f"| {statistics.mean(values):.2f} % | {max(values):.2f} % | {len(values)} "
            f"| {against} | {statistics.median(run['seconds'] for run in members):,.0f} | {processors(members)} |"
        )
    return "\n".join(lines)


def processors(runs: list[Entry]) -> str:
    """Returns the makers and names of the processors that runs were made on."""
    names = {run["machine"]["cpu"].replace("(R)", "").removesuffix(" Processor") for run in runs}
    return ", ".join(sorted(names))


def origin(runs: list[Entry]) -> str:
    """Returns where the runs come from."""
    commits = ", ".join(sorted({run["commit"][:12] for run in runs}))
    machines = ", ".join(sorted({f"{run['machine']['cores']} cores of {run['machine']['cpu']}" for run in runs}))
    return f"`make compare`, commits {commits}, {machines}; two runs side by side, one thread each."


def cost(runs: list[Entry]) -> str:
    """Returns time and memory of the default's runs with 100 labels, two of them at a time."""
    members = of(runs, "default", 100)
    if not members:
        return "No run of `default` with 100 labels is measured yet."
    seconds = [run["seconds"] for run in members]
    memory = [run["memory_above_import_bytes"] for run in members if "memory_above_import_bytes" in run]
    lines = [
        "| a run of `default`, 100 labels, beside another one | median | most | runs |",
        "|---|---|---|---|",
        f"| seconds, one core each, with other work | {statistics.median(seconds):,.0f} | {max(seconds):,.0f} "
        f"| {len(seconds)} |",
    ]
    if memory:
        lines.append(
            f"| MiB of memory above importing TensorFlow | {statistics.median(memory) / 2**20:,.0f} "
            f"| {max(memory) / 2**20:,.0f} | {len(memory)} |"
        )
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[list[Entry]], str]] = {
    "slides": slides, "records": records, "published": published, "ablations": ablations, "cost": cost,
    "origin": origin,
}  # fmt: skip


def number_ticks(axis: Any) -> None:
    """Labels a logarithmic axis with plain numbers: 0.5, 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_errors(path: Path, runs: list[Entry]) -> None:
    """Draws test error over labels, both logarithmic: each draw a point, the mean a line."""
    # The Figure class needs no display; see `training.recorder`.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for preset, colour in COLOURS.items():
        counts = sorted({run["labels"] for run in runs if run["variant"] == preset})
        groups = [[run["test_error"] for run in of(runs, preset, labels)] for labels in counts]
        for labels, values in zip(counts, groups, strict=True):
            axes.scatter([labels] * len(values), values, 14, color=colour, alpha=0.6)
        axes.plot(
            counts, [statistics.mean(values) for values in groups], color=colour, label=name_of(preset), linewidth=2
        )
    for system, labels, error, _ in PUBLISHED:
        axes.scatter([labels], [float(error.split()[0])], 30, color="black", marker="x")
        if labels == 100 and system.startswith(("GANs", "Bad")):
            axes.annotate(
                system.split(" (")[0].split(",")[0], (labels, float(error.split()[0])), (6, -3),
                textcoords="offset points", fontsize="x-small",
            )  # fmt: skip
    axes.scatter([], [], 30, color="black", marker="x", label="published")
    axes.set(xscale="log", yscale="log", xlabel="labelled images", ylabel="MNIST test error, %")
    number_ticks(axes.xaxis)
    number_ticks(axes.yaxis)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))


def plot_curves(path: Path, runs: list[Entry]) -> None:
    """Draws the error on hidden labels over the course of 100-label runs: a line for each draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for preset, colour in COLOURS.items():
        for position, run in enumerate(run for run in of(runs, preset, 100) if run["curve"]):
            steps, accuracies = zip(*run["curve"], strict=True)
            label = name_of(preset) if position == 0 else None
            axes.plot(
                [step / run["steps"] for step in steps], [100.0 * (1.0 - value) for value in accuracies],
                color=colour, linewidth=1, alpha=0.7, label=label,
            )  # fmt: skip
    axes.set(yscale="log", xlabel="share of the run", ylabel="error on hidden training labels, %")
    number_ticks(axes.yaxis)
    axes.set_title("100 labels of MNIST, each draw")
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend(fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))
