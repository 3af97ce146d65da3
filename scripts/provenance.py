"""What every file in docs/results says about its origin: the command that makes it, the commit, the machine."""

import os
import subprocess
from pathlib import Path


def provenance(command: str) -> dict[str, object]:
    """Returns command, commit (with `-dirty` where files differ from it) and machine; no host names, no paths."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {"command": command, "commit": commit, "machine": machine()}


def machine() -> dict[str, str | int]:
    """Returns the processor's name and the number of its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else "unknown", "cores": os.cpu_count() or 0}
