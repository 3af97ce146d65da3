"""Measures what folding does for the exported graph of the preset `default` on a CPU: `export.fold` against without.

Both graphs take turns in one process with one thread, since a server answers several batches side by side instead of
one with several threads. Weights are random and as after training, nothing is zero or one: speed does not depend on
what was learnt. Results go to docs/results/graph_speed.json.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from prelabel.files import write_text_atomically
from prelabel.images import ImageSpec
from scripts.provenance import provenance

COMMAND = "python -m scripts.graph_speed"
SPECS = (ImageSpec(28, 28, 1), ImageSpec(64, 64, 3))
CLASSES = 10


@dataclass(frozen=True)
class Options:
    """Measure the exported graph with and without folding; under a minute on a free core."""

    batches: tuple[int, ...] = (1, 32, 256)
    """Images of a batch."""
    rounds: int = 15
    """Turns of each graph; medians and extremes are over these."""
    images: int = 2048
    """Images of a turn, at least."""
    results: Path = Path("docs/results/graph_speed.json")
    """Where results go."""


def main() -> None:
    """Measures and writes the results."""
    options = tyro.cli(Options, prog=COMMAND)
    measured = [measure(spec, batch, options) for spec in SPECS for batch in options.batches]
    import onnxruntime

    versions = {"onnxruntime": onnxruntime.__version__}
    result = {**provenance(COMMAND), "versions": versions, "rounds": options.rounds, "threads": 1, "graphs": measured}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.results, json.dumps(result, indent=1) + "\n")
    print(table(result))


def measure(spec: ImageSpec, batch: int, options: Options) -> dict[str, Any]:
    """Returns images/s of both graphs in each round, for images of a size in batches."""
    # Imported here: results are read and rendered without the seconds that TensorFlow takes.
    import numpy as np
    import onnxruntime
    import tensorflow as tf

    from export.convert import to_onnx
    from training.models import build_discriminator
    from training.recipe import PRESETS

    discriminator = build_discriminator(spec, CLASSES, PRESETS["default"], 0)
    for number, variable in enumerate(discriminator.variables):
        variable.assign(variable + tf.random.stateless_uniform(variable.shape, [number, 0], 0.01, 0.03))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(
            to_onnx(discriminator, folded=folded).SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        for name, folded in (("as converted", False), ("folded", True))
    }
    images = np.random.default_rng(0).integers(0, 256, (batch, *spec.shape), np.uint8)
    runs = -(-options.images // batch)
    speeds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(options.rounds + 1):
        for name, session in sessions.items():
            started = time.perf_counter()
            for _ in range(runs):
                session.run(None, {"images": images})
            if number:  # the first round warms up
                speeds[name].append(runs * batch / (time.perf_counter() - started))
    ratios = [new / old for new, old in zip(speeds["folded"], speeds["as converted"], strict=True)]
    return {"size": spec.shape, "batch": batch, "images_per_s": speeds, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    """Returns images/s and their ratio, in Markdown."""
    lines = ["| images | batch | as converted, images/s | folded, images/s | faster by |", "|---|---|---|---|---|"]
    for entry in result["graphs"]:
        before, after = (statistics.median(entry["images_per_s"][name]) for name in ("as converted", "folded"))
        ratios = entry["ratios"]
        lines.append(
            f"| {'x'.join(map(str, entry['size']))} | {entry['batch']} | {before:,.0f} | {after:,.0f} "
            f"| {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    machine = f"{result['machine']['cores']} cores of {result['machine']['cpu']}"
    lines += ["", f"`{result['command']}`, commit {result['commit'][:12]}, {machine}, one thread, "]
    lines[-1] += f"ONNX Runtime {result['versions']['onnxruntime']}; medians and extremes of {result['rounds']} rounds."
    return "\n".join(lines)


if __name__ == "__main__":
    main()
