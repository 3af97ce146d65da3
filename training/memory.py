"""What memory this process has taken, and what this machine has."""

import os
import resource
import sys


def peak_memory_bytes() -> int:
    """Returns the largest resident size of this process so far, TensorFlow's import included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_memory_bytes() -> int:
    """Returns the size of this machine's memory; a container may be allowed less."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
