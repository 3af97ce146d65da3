import json
from pathlib import Path

import pytest

from scripts import runs


def write(path: Path, names: list[str]) -> None:
    path.write_text(json.dumps({"runs": [{"name": name, "by": "before"} for name in names]}))


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_results_are_added_in_the_plans_order_and_others_stay(side_by_side: int, tmp_path: Path) -> None:
    results, order = tmp_path / "docs" / "results.json", ["a", "b", "c", "d"]
    results.parent.mkdir()
    write(results, ["b", "d"])
    runs.measure(
        ["c", "b", "a"], lambda name: {"name": name, "by": "now"}, results, "make it",
        lambda entry: order.index(entry["name"]), side_by_side,
    )  # fmt: skip
    found = [(entry["name"], entry["by"]) for entry in runs.load(results)]
    assert found == [("a", "now"), ("b", "now"), ("c", "now"), ("d", "before")]
    assert json.loads(results.read_text())["command"] == "make it"


def test_what_ended_before_a_failure_is_kept(tmp_path: Path) -> None:
    def fail_on_b(name: str) -> runs.Entry:
        if name == "b":
            raise SystemExit("b failed: see its log")
        return {"name": name}

    with pytest.raises(SystemExit, match="b failed"):
        runs.measure(["a", "b", "c"], fail_on_b, tmp_path / "r.json", "make it", lambda entry: ord(entry["name"]), 1)
    assert [entry["name"] for entry in runs.load(tmp_path / "r.json")] == ["a"]


def test_a_training_that_fails_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"failed: see .*x\.log"):
        runs.train(tmp_path / "x", ["--data", str(tmp_path / "nothing")], 2)
    assert "does not exist" in (tmp_path / "x.log").read_text()
