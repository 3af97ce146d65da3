"""Many trainings side by side, each a process, and their results, written after each one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from prelabel.files import write_text_atomically
from scripts.provenance import provenance

Entry = dict[str, Any]
"""One run in a results file."""
Run = TypeVar("Run")
"""How a plan names a run."""


def train(directory: Path, arguments: Sequence[str], side_by_side: int) -> None:
    """Runs `python -m training` into a folder, or goes on with it; a finished one returns at once.

    Exits with the log's name where training fails.
    """
    command = [sys.executable, "-m", "training", "--output", str(directory), "--progress", "none", *arguments]
    threads = {} if side_by_side == 1 else {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    log = directory.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        done = subprocess.run(command, env={**os.environ, **threads}, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: see {log}")
    summary = read_json(directory / "training.json")
    print(f"{directory.name}: {100.0 * (1.0 - summary['test_accuracy']):.2f} % test error", flush=True)


def measure(
    plan: Sequence[Run],
    measure_one: Callable[[Run], Entry],
    results: Path,
    command: str,
    order: Callable[[Entry], int],
    side_by_side: int,
) -> None:
    """Measures the runs of a plan, `side_by_side` at a time, and adds each to the results as soon as it has ended.

    Entries of other runs stay; `order` gives an entry its place.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(side_by_side) as pool:
        for entry in pool.map(measure_one, plan):
            entries = sorted([*(known for known in load(results) if order(known) != order(entry)), entry], key=order)
            write_text_atomically(results, to_json({**provenance(command), "runs": entries}))


def to_json(content: dict[str, Any]) -> str:
    """Returns a results file's text."""
    return json.dumps(content, indent=1) + "\n"


def load(results: Path) -> list[Entry]:
    """Returns the runs measured so far."""
    runs: list[Entry] = read_json(results)["runs"] if results.exists() else []
    return runs


def read_json(path: Path) -> dict[str, Any]:
    """Returns a file's content."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content
