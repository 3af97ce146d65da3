"""Reads what `prelabel convert` writes with the real libraries, and notes their versions: `make test-adapters`."""

import argparse
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from prelabel.files import write_text_atomically
from scripts.provenance import provenance

OUTPUT = Path("docs/results/adapters.json")
REPORT = Path(".pytest_cache/adapters.xml")
LIBRARIES = {
    "cvat": "datumaro",
    "cvat-function": "cvat-sdk",
    "fiftyone": "fiftyone",
    "huggingface": "datasets",
    "webdataset": "webdataset",
}
"""Format -> the library that reads it back."""


def table(result: dict[str, Any]) -> str:
    """Returns the formats and the versions of the libraries that read them back."""
    lines = ["| format | read back by |", "|---|---|"]
    lines += [f"| `{name}` | {one['library']} {one['version']} |" for name, one in result["formats"].items()]
    lines += ["", f"`{result['command']}`, commit {result['commit'][:12]}: {result['tests']} tests passed."]
    return "\n".join(lines)


def main() -> int:
    """Runs the tests and returns their exit status; writes the versions down if all passed and that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write the versions to {OUTPUT}, if all tests pass")
    options = parser.parse_args()
    # The libraries warn about their own dependencies.
    command = [sys.executable, "-m", "pytest", "tests/adapters", "-W", "default", f"--junitxml={REPORT}"]
    status = subprocess.run(command, check=False).returncode
    if status or not options.record:
        return status
    suite = ElementTree.parse(REPORT).getroot().find("testsuite")
    assert suite is not None, "pytest writes one"
    report = provenance("make test-adapters ARGS=--record") | {
        "tests": int(suite.attrib["tests"]) - int(suite.attrib["skipped"]),
        "formats": {
            name: {"library": library, "version": importlib.metadata.version(library)}
            for name, library in LIBRARIES.items()
        },
    }
    write_text_atomically(OUTPUT, json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
