"""What memory this process has taken, and what this machine has."""

import os
import resource
import sys

from prelabel.errors import TrainingError
from training.recipe import Recipe


def peak_memory_bytes() -> int:
    """Returns the largest resident size of this process so far, TensorFlow's import included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_memory_bytes() -> int:
    """Returns the size of this machine's memory; a container may be allowed less."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def too_little_memory(reason: str, recipe: Recipe) -> TrainingError:
    """Returns the error for a step that does not fit, with the options that make it smaller.

    Args:
        reason: What TensorFlow says; its first line is repeated.
        recipe: Of the run.
    """
    ways = ["a smaller --image-size"]
    if half := recipe.unlabelled_batch // 2:
        smaller = f"unlabelled_batch={half}"
        if recipe.adversarial_batch > half:
            smaller += f" adversarial_batch={half}"
        ways.append(f"`--change {smaller}`")
    return TrainingError(
        f"a step does not fit into the device's memory ({reason.strip().splitlines()[0][:200]}): start over with "
        f"--overwrite and {' or '.join(ways)}, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
    )
