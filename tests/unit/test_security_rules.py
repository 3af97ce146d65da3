"""What no module of ours does, whatever it is for."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    path
    for package in ("prelabel", "serving", "training", "export", "scripts")
    for path in (ROOT / package).rglob("*.py")
]
RUN_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
"""Modules whose readers run what a file tells them to."""


def violations(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in RUN_CODE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUN_CODE:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {one.arg: ast.unparse(one.value) for one in node.keywords}
            if name.endswith(("np.load", "numpy.load")) and keywords.get("allow_pickle") != "False":
                found.append(f"{name} without allow_pickle=False")
            if name.endswith(("read_pickle", "to_pickle", "torch.load")) or name in ("eval", "exec"):
                found.append(name)
            if keywords.get("allow_pickle") == "True" or keywords.get("verify") == "False":
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_reads_what_could_run_code(path: Path) -> None:
    assert violations(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "frame.to_pickle('x')",
        "eval('1')",
    ],
)
def test_the_rule_sees_a_violation(source: str) -> None:
    assert violations(source)
