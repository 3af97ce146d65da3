"""What an import costs, and what works without the extras."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import prelabel.errors
from prelabel.errors import PrelabelError

BLOCKED = """
import sys
for name in ("pyarrow", "onnxruntime", "openvino", "ray", "tensorflow", "keras"):
    sys.modules[name] = None  # importing it is an ImportError
from prelabel.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_importing_the_package_and_its_command_line_loads_no_extra() -> None:
    done = python("import sys, prelabel, prelabel.__main__, prelabel.client, prelabel.sources; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "prelabel.bulk" in loaded
    assert not loaded & {
        "pyarrow",
        "onnxruntime",
        "openvino",
        "ray",
        "tensorflow",
        "keras",
        "onnx",
        "training",
        "export",
        "serving",
    }


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["info", "--help"], ["plan", "--help"], ["--version"]]
)
def test_help_works_without_the_extras(arguments: list[str]) -> None:
    done = python(BLOCKED, *arguments)
    assert done.returncode == 0, done.stderr
    assert "prelabel" in done.stdout


def test_a_missing_extra_is_named_with_its_install_command(tiny_bundle: Path, tmp_path: Path) -> None:
    pile, table = tmp_path / "pile", tmp_path / "table.parquet"
    pile.mkdir()
    (pile / "a.png").touch()
    table.touch()
    options = ("--model", tiny_bundle, "--output", tmp_path / "out")
    done = python(BLOCKED, "run", "--input", table, *options)
    assert done.returncode == 2
    assert done.stderr == "error: reading Parquet needs pyarrow: pip install 'prelabel[parquet]'\n"
    done = python(BLOCKED, "run", "--input", pile, *options)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "runtime onnxruntime is not installed: pip install 'prelabel[cpu]'" in line
    assert "runtime openvino is not installed: pip install 'prelabel[openvino]'" in line
    done = python(BLOCKED.replace('"pyarrow", ', ""), "run", "--input", pile, *options, "--runner", "ray")
    assert done.returncode == 2
    assert "error: --runner ray needs Ray: pip install 'prelabel[scale]'\n" in done.stderr
    done = python(BLOCKED.replace('"onnxruntime", ', ""), "run", "--input", pile, *options, "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr == "error: Parquet files need pyarrow: pip install 'prelabel[parquet]'\n"


def test_label_studio_without_its_extra_is_one_line(tmp_path: Path) -> None:
    code = "import os; os.environ['LABEL_STUDIO_API_KEY'] = 'x'" + BLOCKED.replace('"pyarrow"', '"urllib3"')
    done = python(
        code, "pull", "label-studio", "--url", "http://localhost:1", "--project", 1, "--output", tmp_path / "out"
    )
    assert done.returncode == 2
    assert done.stderr == "error: Label Studio is reached with urllib3: pip install 'prelabel[label-studio]'\n"


def test_every_error_class_is_documented_and_in_the_tree() -> None:
    tree = inspect.getdoc(prelabel.errors)
    assert tree is not None
    classes = [one for one in vars(prelabel.errors).values() if inspect.isclass(one)]
    assert len(classes) >= 10
    for one in classes:
        assert issubclass(one, PrelabelError)
        assert one.__doc__
        assert any(line.strip("│├└─ ").split(" ")[0] == one.__name__ for line in tree.splitlines()), one
