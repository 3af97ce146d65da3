"""Counting, parts and table of the speed measurement; the steps themselves are measured, not tested."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.training_speed import PEELS, RECIPE, Options, breakdown, image_counts, summarise, table, variants

PARTS = {"whole": 100.0, **dict(zip(PEELS, (90.0, 70.0, 55.0, 30.0), strict=True))}
PARTS |= {"batches": 1.0, "generator": 15.0, "average": 2.0}


def test_every_forward_pass_through_d_counts() -> None:
    recipe = dataclasses.replace(
        RECIPE, labelled_batch=1, unlabelled_batch=10, adversarial_batch=100, generated_batch=1000
    )
    assert sum(image_counts(recipe).values()) == 1 + 2 * 10 + 2 * 100 + 2 * 1000
    assert sum(image_counts(dataclasses.replace(recipe, adversarial_weight=0.0)).values()) == 1 + 2 * 10 + 2 * 1000
    alone = dataclasses.replace(recipe, adversarial_weight=0.0, information_weight=0.0, generated_batch=0)
    assert sum(image_counts(alone).values()) == 1 + 10


def test_parts_add_up_to_the_step() -> None:
    parts = breakdown(PARTS)
    assert sum(parts.values()) == pytest.approx(PARTS["whole"])
    assert parts["adversarial search and loss"] == 20.0
    assert parts["generated images in D's update"] == 10.0
    assert parts["D on labelled and strong views, Adam, metrics"] == 27.0


def test_parts_and_compilation_are_measured_once_and_torch_only_with_an_interpreter() -> None:
    assert list(variants(Options())) == ["ours-1", "eager-1", "ours-2", "jit-2", "eager-2", "parts-2"]
    assert "torch-1" in variants(Options(torch_python=Path("python")))


def test_ratios_are_taken_round_by_round() -> None:
    turns = {
        "ours-1": [{"step": 10.0}, {"step": 20.0}, {"step": 10.0}],
        "eager-1": [{"step": 50.0}, {"step": 100.0}, {"step": 60.0}],
        "jit-2": [{"step": 5.0}] * 3,
    }
    result = summarise(turns)
    assert result["ratios"] == {"eager-1": {"median": 5.0, "min": 5.0, "max": 6.0}}
    assert result["ms"]["ours-1"] == [10.0, 20.0, 10.0]


def test_the_table_shows_speeds_ratios_parts_and_what_did_not_run() -> None:
    turns = {"ours-1": [{"step": 10.0}], "eager-1": [{"step": 50.0}], "parts-2": [PARTS]}
    result = {
        "command": "measure", "commit": "0123456789abcdef", "machine": {"cpu": "fast", "cores": 2},
        "versions": {"keras": "3"}, "rounds": 1, "steps": 40, "eager_steps": 8,
        "images_through_d": {"labelled": 80, "generated": 400}, "failed": {"jit-2": "no kernel | none"},
        **summarise(turns),
    }  # fmt: skip
    lines = table(result).splitlines()
    assert lines[2].endswith("| 1 | 10.0 (10.0 to 10.0) | 100.0 | 48,000 |  |  |")
    assert lines[3].endswith("| 20.0 | 9,600 | 5.00 x (5.00 to 5.00) | 4 x |")
    assert lines[4].endswith("| 2 | does not run: no kernel / none | | | | |")
    assert "| G's update | 15.0 (15.0 to 15.0) | 15 % |" in lines
    assert lines[-2] == "`measure`, commit 0123456789ab, 2 cores of fast; keras 3."
    assert len({line.count("|") for line in lines[:5]}) == 1


def test_rendering_does_not_import_tensorflow() -> None:
    command = "import sys, scripts.training_speed; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=Path(__file__).parents[3])
