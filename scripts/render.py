"""Renders the figures of docs/results/*.json into the marked blocks of README.md and docs/*.md: `make docs`."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from scripts import (
    adapter_tests,
    audit_demo,
    audit_power,
    batchnorm_trap,
    bulk_page,
    calibration_page,
    duplicates,
    graph_speed,
    other_data,
    quality_page,
    select_bench,
    select_rounds,
    select_training,
    serving_page,
    training_speed,
)
from scripts.label_studio import page as label_studio_page

PAGES = (
    Path("README.md"),
    Path("docs/quality.md"),
    Path("docs/serving.md"),
    Path("docs/audit.md"),
    Path("docs/tools.md"),
    Path("docs/bulk.md"),
    Path("docs/select.md"),
    Path("docs/label-studio.md"),
)
IMAGES = Path("docs/images")
RESULTS = Path("docs/results")


@dataclass(frozen=True)
class Options:
    """Render the figures of docs/results/*.json into README.md and docs/*.md, and draw their pictures."""


def main() -> None:
    """Rewrites the pages and draws their pictures."""
    tyro.cli(Options, prog="python -m scripts.render")
    for page in PAGES:
        page.write_text(render(page.read_text()))
    runs = load("quality")["runs"]
    quality_page.plot_errors(IMAGES / "error_against_labels.png", runs)
    quality_page.plot_curves(IMAGES / "quality_curves.png", runs)
    serving_page.plots(IMAGES, load("serving"))


def render(text: str) -> str:
    """Returns the text with the content of each `<!-- figures: NAME -->` block made anew from the results."""
    blocks: dict[str, Callable[[], str]] = {"demo": demo, "install": install}
    for name, make in quality_page.BLOCKS.items():
        blocks[name] = functools.partial(make, load("quality")["runs"])
    for name, make_from in (("calibration", calibration_page.calibration), ("outside", calibration_page.outside)):
        blocks[name] = functools.partial(lambda make: make(load("calibration")), make_from)
    blocks["adapters"] = lambda: adapter_tests.table(load("adapters"))
    blocks["other-data"] = lambda: other_data.table(load("other_data"))
    blocks["audit"] = lambda: audit_demo.table(load("audit"))
    blocks["audit-lanes"] = lambda: audit_demo.lanes_table(load("audit"))
    blocks["audit-power"] = lambda: audit_power.table(load("audit_power"))
    blocks["batchnorm"] = lambda: batchnorm_trap.table(load("batchnorm"))
    blocks["duplicates"] = lambda: duplicates.thresholds_table(load("duplicates"))
    blocks["duplicates-found"] = lambda: duplicates.found_table(load("duplicates"))
    blocks["graph"] = lambda: graph_speed.table(load("graph_speed"))
    blocks["label-studio"] = lambda: label_studio_page.table(load("label_studio"))
    blocks["serving"] = lambda: serving_page.targets(load("serving"))
    for name, make_from in (
        ("bulk-speed", bulk_page.speed), ("bulk-growth", bulk_page.growth), ("bulk-paper", bulk_page.on_paper),
        ("bulk-cluster", bulk_page.cluster),
    ):  # fmt: skip
        blocks[name] = functools.partial(_of_bulk, make_from)
    blocks["select"] = lambda: select_bench.first_table(load("select"))
    blocks["select-methods"] = lambda: select_bench.methods_table(load("select"))
    blocks["select-next"] = lambda: select_bench.next_table(load("select"))
    blocks["select-rounds"] = lambda: select_rounds.table(load("select_rounds"))
    blocks["select-training"] = lambda: select_training.table(load("select_training"))
    blocks["speed"] = lambda: training_speed.table(load("training_speed"))

    def block(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{blocks[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: ([\w-]+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def demo() -> str:
    """Returns the figures of `make demo`."""
    result = load("demo")
    return "\n".join(
        [
            "| `make demo` | |",
            "|---|---|",
            f"| wall time without installation | {result['wall_s'] / 60:.1f} min |",
            *([f"| of that, training | {result['train_s'] / 60:.1f} min |"] if "train_s" in result else []),
            f"| test accuracy, 100 labels, seed {result['seed']} | {100 * result['test_accuracy']:.2f} % |",
            f"| pre-labels that are right, of {result['images']:,} | {100 * result['prelabel_accuracy']:.2f} % |",
            f"| pre-labelling end to end, through gRPC | {result['images_per_s']:,.0f} images/s |",
            "",
            f"`{result['command']}`, commit {result['commit'][:12]}, {machine(result)}; not yet measured on a GPU.",
        ]
    )


def _of_bulk(make: Callable[[dict[str, Any]], str]) -> str:
    return make(load("bulk"))


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
