"""Lets a container build install packages the way this host does.

Merges this host's pip settings (files and environment) into one pip.conf for the container, and prints the host files
and folders that it names (local wheel folders, certificates, constraints), one a line as HOST_PATH:CONTAINER_PATH. A
build that mounts those, and the file as /etc/pip.conf, finds packages where this host finds them, and nothing but
empty mount points stays in the image.
"""

import ast
import configparser
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

CONTAINER_ROOT = "/mnt/host"
"""Not the paths' own places: a package that is installed in the container may want to write there."""


@dataclass(frozen=True)
class Options:
    """Merge this host's pip settings into a pip.conf for a container, and print what that has to mount."""

    output: tyro.conf.Positional[Path]
    """The pip.conf."""


def host_settings() -> dict[str, str]:
    """Returns pip's effective settings, option -> value; the environment is stronger than the files."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    files: dict[str, str] = {}
    environment: dict[str, str] = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section == ":env:":
            environment[option] = str(ast.literal_eval(value))
        elif section in {"global", "install"}:
            files[option] = str(ast.literal_eval(value))
    return files | environment


def main() -> None:
    """Writes the pip.conf and prints what to mount."""
    options = tyro.cli(Options, prog="python scripts/host_pip.py")
    mounts: dict[Path, str] = {}

    def in_container(word: str) -> str:
        path = Path(word.removeprefix("file://"))
        if not (path.is_absolute() and path.exists()):
            return word
        # A simple index links to files beside itself, so the folder above it is wanted too.
        root = path.parent if path.is_dir() and path.name == "simple" else path
        place = mounts.setdefault(root, f"{CONTAINER_ROOT}/{len(mounts)}")
        scheme = "file://" if word.startswith("file://") else ""
        return scheme + (Path(place) / path.relative_to(root)).as_posix()

    config = configparser.RawConfigParser()
    config["global"] = {
        option: " ".join(in_container(word) for word in value.split()) for option, value in host_settings().items()
    }
    with options.output.open("w") as file:
        config.write(file)
    for path, place in mounts.items():
        print(f"{path}:{place}")


if __name__ == "__main__":
    main()
