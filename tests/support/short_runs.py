"""Trainings of a few steps."""

from pathlib import Path
from typing import Any

from training.config import Options


def options(data: Path, output: Path, **changes: Any) -> Options:
    """Options of a run of 12 steps with 6 labels."""
    defaults: dict[str, Any] = {"labels": 6, "steps": 12, "checkpoint_every": 4, "evaluate_every": 6}
    return Options(data, output, progress="none", **{**defaults, **changes})
