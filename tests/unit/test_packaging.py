"""What is installed and what is not."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("training", "export", "serving")


def test_no_installed_distribution_owns_a_stage() -> None:
    """The stages are packages of the checkout; an installed one of the same name would shadow or be shadowed."""
    owners = importlib.metadata.packages_distributions()
    assert {stage: owners[stage] for stage in STAGES if stage in owners} == {}


@pytest.mark.parametrize("package", ["prelabel", "serving"])
def test_no_module_of_the_package_imports_tensorflow(package: str) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / package).rglob("*.py")
        if path.name not in ("__main__.py", "__init__.py")
    ]
    assert modules
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += "print(sorted({'tensorflow', 'keras', 'tf2onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("lock", sorted(path.name for path in (ROOT / "locks").glob("*.txt")))
def test_lock_files_hold_versions_and_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / "locks" / lock).read_text()
    requirements = re.findall(r"^[a-z0-9][\w.\[\]-]*(==|@|>=)", text, re.MULTILINE)
    assert requirements
    assert set(requirements) == {"=="}
    assert "--hash=sha256:" in text
    assert "://" not in text


@pytest.mark.parametrize("lock", ["serve.txt", "serve-cpu.txt"])
def test_serving_locks_hold_no_training_stack(lock: str) -> None:
    text = (ROOT / "locks" / lock).read_text()
    assert not re.search(r"^(tensorflow|keras|tf2onnx|torch)\b", text, re.MULTILINE)


def test_the_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    # Under `make test` the inner make would say that it enters and leaves the directory.
    command = ["make", "--no-print-directory", "help"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env=environment)
    assert {line.split()[1] for line in done.stdout.splitlines()} == targets
