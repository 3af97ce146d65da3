"""Measures how large the server's environments are on disk and writes docs/results/install_size.json.

Installs each lock file into an empty folder with the options that the image is built with (wheels only, hashes
required, bytecode included) and adds up the files. Usage: python -m scripts.install_size
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from prelabel.errors import InputError, PrelabelError
from prelabel.files import write_text_atomically
from scripts.provenance import provenance

COMMAND = "python -m scripts.install_size"
LOCKS = {"serve-cpu": Path("locks/serve-cpu.txt"), "serve": Path("locks/serve.txt")}


@dataclass(frozen=True)
class Options:
    """Install the server's lock files into empty folders, and write down how large they are on disk."""

    output: Path = Path("docs/results/install_size.json")
    """The figures."""


def folder_bytes(folder: Path) -> int:
    """Returns the sum of the sizes in bytes of all regular files below a folder; links count nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def install(lock: Path, folder: Path) -> None:
    """Installs a lock file into an empty folder.

    Raises:
        InputError: The lock file does not exist, or pip cannot install it.
    """
    if not lock.is_file():
        raise InputError(f"{lock} does not exist: run this from the root of the checkout")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
    command += ["--only-binary=:all:", "--require-hashes", "--target", str(folder), "--requirement", str(lock)]
    if status := subprocess.run(command, check=False).returncode:
        raise InputError(f"pip could not install {lock} (status {status}): its own message stands above")


def measure(lock: Path) -> dict[str, object]:
    """Returns what a lock file installs: bytes in all, number of distributions, the five largest packages in bytes."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        install(lock, folder)
        packages = {child.name: folder_bytes(child) for child in folder.iterdir() if child.is_dir()}
        largest = sorted(packages, key=lambda name: packages[name], reverse=True)[:5]
        return {
            "lock": lock.as_posix(),
            "bytes": folder_bytes(folder),
            "distributions": len(list(folder.glob("*.dist-info"))),
            "largest_bytes": {name: packages[name] for name in largest},
            "has_tensorflow": "tensorflow" in packages,
        }


def main() -> None:
    """Measures both environments and writes the report."""
    options = tyro.cli(Options, prog=COMMAND)
    report = provenance(COMMAND) | {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "environments": {name: measure(lock) for name, lock in LOCKS.items()},
    }
    text = json.dumps(report, indent=2) + "\n"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.output, text)
    print(text, end="")


if __name__ == "__main__":
    try:
        main()
    except PrelabelError as error:
        sys.exit(f"install_size: {error}")
