"""The options of the export."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Turn a training run into a verified ONNX model bundle.

    Example: python -m export --run runs/mnist
    """

    run: Path
    """The training run's folder."""
    output: Path | None = None
    """The bundle's folder, replaced if it is there. Default: RUN/bundle."""
    data: Path | None = None
    """Where real images for the checks are. Default: the data that the run was trained on."""
    precisions: bool = True
    """Try bfloat16, int8 and float16, too; those that answer as the Keras model does are part of the bundle."""
    unfinished: bool = False
    """Export the newest checkpoint of a run that has not reached its last step."""
