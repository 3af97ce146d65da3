"""Which code made a result."""

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def code_version(length: int = 12) -> str:
    """Returns the checkout's commit, with `-dirty` where files differ from it, or `unknown` outside a checkout.

    Files in docs/ do not count: measuring writes results there, and its later runs are of the same code.
    """
    try:
        commit = _git("rev-parse", f"--short={length}", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed.strip() else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
