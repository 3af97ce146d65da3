"""Renders the measured figures of docs/results/*.json into the marked blocks of README.md: `make docs`."""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

README = Path("README.md")
RESULTS = Path("docs/results")

ROWS = (
    ("supervised", 100, "plain classifier, 100 labels", "70 %"),
    ("book", 100, "SGAN of the book, 100 labels", "89 %"),
    ("supervised", 10_000, "plain classifier, 10,000 labels", "98 %"),
    ("default", 100, "prelabel's default, 100 labels", ""),
)
"""(preset, labels, what it is, the book's figure)."""


def main() -> None:
    """Rewrites README.md."""
    README.write_text(render(README.read_text()))


def render(text: str) -> str:
    """Returns the text with the content of each `<!-- figures: NAME -->` block made anew from the results."""
    blocks: dict[str, Callable[[], str]] = {"accuracy": accuracy, "demo": demo, "install": install}

    def block(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{blocks[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def accuracy() -> str:
    """Returns the table of test accuracies."""
    results = load("training")
    lines = ["| | the book | mean | sd | worst | draws | all draws |", "|---|---|---|---|---|---|---|"]
    for preset, labels, title, book in ROWS:
        runs = [run for run in results["runs"] if (run["preset"], run["labels"]) == (preset, labels)]
        values = [100.0 - run["test_error"] for run in runs]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        shown = " ".join(f"{value:.2f}" for value in values)
        lines.append(
            f"| {title} | {book} | {statistics.mean(values):.2f} % | {deviation:.2f} | {min(values):.2f} % "
            f"| {len(values)} | {shown} |"
        )
    commits = sorted({run["commit"] for run in results["runs"]})
    lines.append("")
    lines.append(f"Test accuracy on MNIST; `{results['command']}`, commit {', '.join(commits)}, {machine(results)}.")
    return "\n".join(lines)


def demo() -> str:
    """Returns the figures of `make demo`."""
    result = load("demo")
    return "\n".join(
        [
            "| `make demo` | |",
            "|---|---|",
            f"| wall time without installation | {result['wall_s'] / 60:.1f} min |",
            f"| test accuracy, 100 labels, seed {result['seed']} | {100 * result['test_accuracy']:.2f} % |",
            f"| pre-labels that are right, of {result['images']:,} | {100 * result['prelabel_accuracy']:.2f} % |",
            f"| pre-labelling end to end, through gRPC | {result['images_per_s']:,.0f} images/s |",
            "",
            f"`{result['command']}`, commit {result['commit'][:12]}, {machine(result)}; not yet measured on a GPU.",
        ]
    )


def install() -> str:
    """Returns the sizes of the serving environments."""
    result = load("install_size")
    lines = ["| serving environment (no TensorFlow in it) | installed |", "|---|---|"]
    for name, environment in result["environments"].items():
        assert not environment["has_tensorflow"]
        lines.append(f"| `{environment['lock']}` ({name}) | {environment['bytes'] / 1e6:,.0f} MB |")
    lines.append("")
    lines.append(f"`{result['command']}`, commit {result['commit'][:12]}.")
    return "\n".join(lines)


def load(name: str) -> dict[str, Any]:
    """Reads one result file."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def machine(result: dict[str, Any]) -> str:
    """Returns the machine in words."""
    return f"{result['machine']['cores']} cores of {result['machine']['cpu']}"


if __name__ == "__main__":
    main()
