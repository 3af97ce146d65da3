"""Results and picture of the BatchNormalization measurement; the trap itself is in unit/training/test_batchnorm.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from prelabel.errors import InputError
from scripts.batchnorm_trap import VARIANTS, Options, add_run, plot, read_runs, table

STEPS = [2, 4, 5]


def test_the_last_step_is_evaluated_once() -> None:
    assert Options(steps=5, every=2).evaluated_steps() == STEPS
    assert Options(steps=4, every=2).evaluated_steps() == [2, 4]
    with pytest.raises(InputError, match="--every 0"):
        Options(every=0).evaluated_steps()


def test_results_grow_run_by_run_and_are_plotted(tmp_path: Path) -> None:
    results, image = tmp_path / "batchnorm.json", tmp_path / "batchnorm.png"
    assert read_runs(results, STEPS) == []
    for seed in (1, 0):
        for variant in reversed(VARIANTS):
            add_run(results, {"variant": variant, "seed": seed, "steps": STEPS, "accuracy": [0.1, 0.5, 0.9]})
    runs = read_runs(results, STEPS)
    assert [(run["variant"], run["seed"]) for run in runs] == [(v, seed) for v in VARIANTS for seed in (0, 1)]
    content = json.loads(results.read_text())
    assert content["commit"] == runs[0]["commit"]
    assert content["versions"]["keras"]
    lines = table(content).splitlines()
    assert lines[0] == "| the book's SGAN, 100 labels | 2 steps | 4 steps | 5 steps | draws |"
    assert lines[2].endswith("| 10.0 % (10.0 10.0) | 50.0 % (50.0 50.0) | 90.0 % (90.0 90.0) | 2 |")
    assert len(lines) == 2 + len(VARIANTS) + 2
    plot(image, runs)
    with Image.open(image) as picture:
        assert picture.size == (800, 450)


def test_runs_of_other_lengths_are_not_mixed(tmp_path: Path) -> None:
    results = tmp_path / "batchnorm.json"
    add_run(results, {"variant": "port", "seed": 0, "steps": STEPS, "accuracy": [0.1, 0.1, 0.1]})
    with pytest.raises(InputError, match="port, seed 0, evaluated after 3 steps up to 5, not 1 up to 7"):
        read_runs(results, [7])


def test_reading_and_plotting_do_not_import_tensorflow() -> None:
    command = "import sys, scripts.batchnorm_trap; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=Path(__file__).parents[3])
