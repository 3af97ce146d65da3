"""What every file in docs/results says about its origin: the command that makes it, the commit, the machine."""

import os
from pathlib import Path

from training.provenance import code_version


def provenance(command: str) -> dict[str, object]:
    """Returns command, commit (with `-dirty` where code differs from it) and machine; no host names, no paths."""
    return {"command": command, "commit": code_version(40), "machine": machine()}


def machine() -> dict[str, str | int]:
    """Returns the processor's name and the number of its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else "unknown", "cores": os.cpu_count() or 0}
