"""Measures how fast the training step of the preset `default` is on MNIST and a CPU, against other ways to write it.

Every variant is a process of its own, since thread counts are fixed when TensorFlow starts. All are started and warmed
up, then take steps in turn: what the machine does meanwhile hits all of them. PyTorch needs an interpreter with torch
and numpy in it, in a throw-away environment. Results go to docs/results/training_speed.json.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from scripts.provenance import provenance
from training.recipe import PRESETS, Recipe
from training.threads import VARIABLE, operation_threads

DATA = Path("data/mnist")
LABELS = 100
RECIPE = PRESETS["default"]
COMMAND = "python -m scripts.training_speed"

Kind = Literal["ours", "jit", "eager", "torch", "parts"]
KINDS: dict[Kind, str] = {
    "ours": "`training.step`, as `training.train` drives it",
    "jit": "the same with `jit_compile=True`",
    "eager": "the same networks, losses and batches as a plain eager loop, an update for each loss",
    "torch": "the same step in PyTorch, eager",
    "parts": "parts of our step",
}
AIMS: dict[Kind, float] = {"eager": 4.0, "torch": 1.0}
"""How many times as fast ours should be."""

PEELS: dict[str, dict[str, Any]] = {
    "random views": {"augment": False},
    "adversarial search and loss": {"adversarial_weight": 0.0},
    "weak pass, mutual information": {"information_weight": 0.0},
    "gan": {"generated_batch": 0, "unsupervised_weight": 0.0},
}
"""Changes of the recipe, each on top of those before, that leave out a part; the difference in time is the part's."""


@dataclass(frozen=True)
class Options:
    """Measure the speed of the training step; about five minutes on two free cores."""

    torch_python: Path | None = None
    """A Python interpreter that has torch and numpy; without it PyTorch is not measured."""
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """What to measure."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads; `jit` and `parts` are measured with the largest alone."""
    rounds: int = 5
    """Turns that each variant gets; medians and extremes are over these."""
    steps: int = 40
    """Steps of a turn."""
    eager_steps: int = 8
    """Steps of a turn of the eager loop."""
    warmup: int = 5
    """Steps of each variant before the first turn."""
    results: Path = Path("docs/results/training_speed.json")
    """Where results go."""


def main() -> None:
    """Starts the variants, lets them take turns and writes the results."""
    options = tyro.cli(Options, prog=COMMAND)
    if min(options.rounds, options.steps, options.eager_steps, options.warmup, *options.threads) < 1:
        raise InputError("--rounds, --steps, --eager-steps, --warmup and --threads must be 1 or more")
    if options.torch_python and not options.torch_python.is_file():
        raise InputError(f"--torch-python {options.torch_python} is no file: give a Python interpreter that has torch")
    with contextlib.ExitStack() as stack:
        plan = variants(options)
        workers = {name: stack.enter_context(start(*plan[name], options)) for name in plan}
        versions: dict[str, str] = {}
        failed: dict[str, str] = {}
        for name in plan:
            said = answer(name, workers[name])
            versions |= said.get("versions", {})
            if "failed" in said:
                failed[name] = said["failed"]
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in plan if name not in failed}
        for number in range(options.rounds):
            for name in sorted(turns, key=list(plan).index, reverse=number % 2 == 1):
                steps = options.eager_steps if plan[name][0] == "eager" else options.steps
                worker = workers[name]
                assert worker.stdin is not None
                print(steps, file=worker.stdin, flush=True)
                turns[name].append({run: 1e3 * s / steps for run, s in answer(name, worker).items()})
                print(f"round {number + 1}, {name}: {max(turns[name][-1].values()):.1f} ms a step", flush=True)
    result = {
        **provenance(COMMAND), "versions": versions, "rounds": options.rounds, "steps": options.steps,
        "eager_steps": options.eager_steps, "images_through_d": image_counts(RECIPE), "failed": failed,
        **summarise(turns),
    }  # fmt: skip
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.results, json.dumps(result, indent=1) + "\n")
    print(table(result))


def variants(options: Options) -> dict[str, tuple[Kind, int]]:
    """Returns (kind, threads) by name."""
    most = max(options.threads)
    return {
        f"{kind}-{threads}": (kind, threads)
        for threads in options.threads
        for kind in options.kinds
        if (kind not in ("jit", "parts") or threads == most) and (kind != "torch" or options.torch_python)
    }


def start(kind: Kind, threads: int, options: Options) -> subprocess.Popen[str]:
    """Starts a variant's process; it ends when its standard input does."""
    command = [sys.executable, "-m", "scripts.training_speed_tensorflow", kind, str(options.warmup)]
    if kind == "torch":
        given = {**torch_constants(), "threads": threads, "warmup": options.warmup}
        command = [str(options.torch_python), "scripts/training_speed_torch.py", json.dumps(given)]
    # The eager loop runs one operation after the other, so each takes all threads.
    fixed = {
        VARIABLE: str(threads if kind == "eager" else operation_threads(threads)),
        **{name: str(threads) for name in ("TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")},
    }
    environment = {**os.environ, **fixed, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def torch_constants() -> dict[str, Any]:
    """Returns what the PyTorch step is told of ours."""
    from training.adversarial import SEARCH_RADIUS
    from training.augment import ELASTIC_GRID, VIEWS
    from training.step import INFORMATION_DECAY

    weak, strong = (dataclasses.asdict(view) for view in VIEWS["digits"])
    return {
        "recipe": dataclasses.asdict(RECIPE), "weak": weak, "strong": strong, "elastic_grid": ELASTIC_GRID,
        "search_radius": SEARCH_RADIUS, "information_decay": INFORMATION_DECAY, "classes": 10,
        "labels_per_class": LABELS // 10, "images": str(DATA / "train-images-idx3-ubyte.gz"),
        "labels": str(DATA / "train-labels-idx1-ubyte.gz"),
    }  # fmt: skip


def answer(name: str, worker: subprocess.Popen[str]) -> dict[str, Any]:
    """Returns what a variant's process says next.

    Raises:
        PrelabelError: It has ended.
    """
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise PrelabelError(f"{name} ended with exit status {worker.wait()}: its own message stands above")
    said: dict[str, Any] = json.loads(line)
    return said


def image_counts(recipe: Recipe) -> dict[str, int]:
    """Returns the images that go forward through D in a fused step, by what they are there for."""
    searched = recipe.adversarial_batch if recipe.adversarial_weight else 0
    weak = recipe.unlabelled_batch if recipe.information_weight or recipe.adversarial_weight else 0
    return {
        "labelled": recipe.labelled_batch,
        "strong": recipe.unlabelled_batch,
        "weak": weak,
        "adversarial_search": searched,
        "adversarial": searched,
        "generated_for_d": recipe.generated_batch,
        "generated_for_g": recipe.generated_batch,
    }


def breakdown(ms: dict[str, float]) -> dict[str, float]:
    """Returns the parts of a step in ms, from the times of the step, of what `PEELS` leaves of it, and of single parts.

    Each of `PEELS` is the difference to what was left before; D on labelled and strong views is the rest.
    """
    left = [ms["whole"], *(ms[name] for name in PEELS)]
    peeled = {name: before - after for name, before, after in zip(PEELS, left, left[1:], strict=False)}
    gan = peeled.pop("gan")
    return {
        "batches: samplers, gather, scaling": ms["batches"],
        **peeled,
        "generated images in D's update": gan - ms["generator"],
        "G's update": ms["generator"],
        "moving average of D": ms["average"],
        "D on labelled and strong views, Adam, metrics": left[-1] - ms["batches"] - ms["average"],
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Returns median, least and most of the turns."""
    known = list(values)
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def summarise(turns: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Returns milliseconds a step, how many times as fast ours is, and parts, from the turns' ms by variant and run.

    Ratios and parts are taken in each round and then summed up: what slows a round down slows both sides.
    """
    steps = {name: [turn["step"] for turn in taken] for name, taken in turns.items() if not name.startswith("parts")}
    ratios = {}
    for name, times in steps.items():
        ours = steps.get(f"ours-{name.partition('-')[2]}", [])
        if not name.startswith("ours") and ours:
            ratios[name] = spread(theirs / own for theirs, own in zip(times, ours, strict=True))
    shares = {}
    for name, taken in turns.items():
        if name.startswith("parts"):
            broken = [breakdown(turn) for turn in taken]
            shares[name] = {part: spread(ms[part] for ms in broken) for part in broken[0]}
            shares[name]["whole step"] = spread(turn["whole"] for turn in taken)
    return {"ms": steps, "ratios": ratios, "parts_ms": shares}


def table(result: dict[str, Any]) -> str:
    """Returns the variants' speeds and the parts of our step, in Markdown."""
    images = sum(result["images_through_d"].values())
    lines = ["| a step of `default`, CPU | threads | ms | steps/s | images/s through D | ours is faster by | aim |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, times in result["ms"].items():
        kind, threads = name.split("-")
        ms, ratio = spread(times), result["ratios"].get(name)
        faster = f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else ""
        lines.append(
            f"| {KINDS[kind]} | {threads} | {ms['median']:.1f} ({ms['min']:.1f} to {ms['max']:.1f}) "
            f"| {1e3 / ms['median']:.1f} | {1e3 * images / ms['median']:,.0f} | {faster} "
            f"| {f'{AIMS[kind]:g} x' if kind in AIMS else ''} |"
        )
    for name, reason in result["failed"].items():
        kind, threads = name.split("-")
        lines.append(f"| {KINDS[kind]} | {threads} | does not run: {reason.replace('|', '/')} | | | | |")
    for name, parts in result["parts_ms"].items():
        whole = parts["whole step"]["median"]
        lines += ["", f"| part of our step, {name.split('-')[1]} threads | ms | share |", "|---|---|---|"]
        for part, ms in parts.items():
            extremes = f"({ms['min']:.1f} to {ms['max']:.1f})"
            lines.append(f"| {part} | {ms['median']:.1f} {extremes} | {100 * ms['median'] / whole:.0f} % |")
    versions = ", ".join(f"{name} {number}" for name, number in sorted(result["versions"].items()))
    machine = f"{result['machine']['cores']} cores of {result['machine']['cpu']}"
    lines += ["", f"`{result['command']}`, commit {result['commit'][:12]}, {machine}; {versions}."]
    lines.append(
        f"Medians and extremes of {result['rounds']} turns of {result['steps']} steps ({result['eager_steps']} of the "
        f"eager loop), taken in turn. {images} images go through D in a step."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except PrelabelError as error:
        sys.exit(f"training_speed: {error}")
