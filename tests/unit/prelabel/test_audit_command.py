"""`prelabel audit` as a user types it."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from prelabel import __main__ as cli
from prelabel.audit.certify import Step, certify
from prelabel.audit.plan import LEDGER_FILE
from prelabel.audit.report import what_it_takes
from prelabel.shards import Run
from support.piles import CLASSES, KnownPile, make_pile


@pytest.fixture
def known(tmp_path: Path) -> KnownPile:
    return make_pile(tmp_path / "predictions", 3000)


def run(*arguments: object) -> int:
    return cli.main(["audit", *(str(one) for one in arguments)])


def fill_in(known: KnownPile, audit: Path) -> Path:
    row_of = {name: row for row, name in enumerate(known.ids)}
    with (audit / "tasks.csv").open(newline="") as file:
        tasks = list(csv.DictReader(file))
    with (audit / "tasks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "path", "answer"])
        writer.writeheader()
        writer.writerows({**task, "answer": CLASSES[known.truth[row_of[task["id"]]]]} for task in tasks)
    return audit / "tasks.csv"


def apply(known: KnownPile, *more: object) -> int:
    audit = known.directory.parent / "audit"
    files = ("--audit", audit, "--answers", fill_in(known, audit), "--predictions", known.directory)
    return run("apply", *files, "--output", known.directory.parent / "lanes", *more)


def test_draw_apply_report(known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = ("draw", "--predictions", known.directory, "--output", tmp_path / "audit", "--alpha", 0.03)
    assert run(*draw, "--size", 700) == 0
    text = capsys.readouterr().out
    assert "at most 3 % wrong with 95 % confidence" in text
    assert "drawn: 700 of 3,000 rows" in text
    assert "warning" not in text
    assert apply(known) == 0
    text = capsys.readouterr().out
    assert "certified: " in text
    assert "at most 3 % wrong with 95 % confidence" in text
    assert "the promise assumes:\n  - the audited rows are those" in text
    assert run("report", "--lanes", tmp_path / "lanes") == 0
    text = capsys.readouterr().out
    assert "at 5 s a label: 4.2 h for all" in text
    assert str(tmp_path / "lanes/_coverage.svg") in text


def test_nothing_certified_is_status_4_and_says_what_it_takes(
    known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("draw", "--predictions", known.directory, "--output", tmp_path / "audit", "--size", 30) == 0
    assert apply(known) == 4
    text = capsys.readouterr().out
    assert "not certified at 1 % wrong with 95 % confidence: of " in text
    assert " rows with a confidence of at least 0." in text
    assert "answers, not 30, would do it" in text
    assert json.loads((tmp_path / "lanes/_lanes.json").read_text())["certificates"][0]["accepted"] is None


def test_the_coverage_of_the_draw_is_where_apply_starts(known: KnownPile, tmp_path: Path) -> None:
    draw = ("draw", "--predictions", known.directory, "--output", tmp_path / "audit", "--coverage", 0.9)
    assert run(*draw, "--size", 789) == 0
    plan = json.loads((tmp_path / "audit/_audit.json").read_text())
    assert plan["coverage"] == 0.9
    assert apply(known) == 0
    made = json.loads((tmp_path / "lanes/_lanes.json").read_text())
    (one,) = made["certificates"]
    first = one["steps"][one["start"]]
    assert 0.9 <= first["size"] / 3000 < 0.93
    # More than 1 % of these were found wrong: the smaller sets of the second sequence are certified.
    assert one["second_start"] <= one["accepted"] < one["start"]
    assert one["level"] == pytest.approx(0.01)
    # Draws and lanes from before the coverage was noted have the default.
    del plan["coverage"], one["coverage"]
    (tmp_path / "audit/_audit.json").write_text(json.dumps(plan))
    (tmp_path / "lanes/_lanes.json").write_text(json.dumps(made))
    assert run("report", "--lanes", tmp_path / "lanes") == 0
    (tmp_path / "lanes").rename(tmp_path / "before")
    apply(known)
    (one,) = json.loads((tmp_path / "lanes/_lanes.json").read_text())["certificates"]
    assert 0.6 <= one["steps"][one["start"]]["size"] / 3000 < 0.63


def test_where_no_sample_would_do_it_says_what_else_to_try() -> None:
    steps = (Step(0.9, 2000, 200, 10), Step(0.5, 6000, 600, 30))
    text = what_it_takes(asdict(certify(steps, 6000, 600, 0.01, 0.05, coverage=0.9)) | {"answers_to_draw": None})
    assert "among the most certain 90 % and 45 %, no sample would do it" in text


def test_choosing_until_the_lanes_please_is_warned_of(
    known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("draw", "--predictions", known.directory, "--output", tmp_path / "audit", "--size", 300) == 0
    answers = fill_in(known, tmp_path / "audit")
    files = ("--audit", tmp_path / "audit", "--answers", answers, "--predictions", known.directory)
    capsys.readouterr()

    def warnings(name: str, *more: object) -> list[str]:
        assert run("apply", *files, "--output", tmp_path / name, *more) in (0, 4)
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]

    assert warnings("first") == warnings("again") == []
    (one,) = warnings("other", "--realness-quantile", 0.1, "--per-class")
    assert "applied before with other --per-class and --realness-quantile:" in one
    answers.write_text(answers.read_text().replace(",cat\n", ",dog\n", 1))
    other, corrected = warnings("corrected")
    assert "other --per-class and --realness-quantile" in other
    assert "applied before with other answers" in corrected
    (tmp_path / "audit/_applied.json").write_text("[3]")
    assert run("apply", *files, "--output", tmp_path / "damaged") == 2
    assert "_applied.json is damaged" in capsys.readouterr().err
    assert not (tmp_path / "damaged").exists()


def test_a_run_that_is_not_finished_is_warned_of(
    known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = known.directory / "_run.json"
    draw = ("draw", "--predictions", known.directory, "--output")
    for images, warned in ((3001, True), (3000, False)):
        run_file.write_text(json.dumps(asdict(Run("pile", "hash", images, "m1", CLASSES, 1000))))
        assert run(*draw, tmp_path / str(images)) == 0
        assert ("has 3,000 of the 3,001 images" in capsys.readouterr().out) == warned


def test_lanes_are_not_drawn_from(known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A draw from them would not be counted with the one that they are of."""
    assert run("draw", "--predictions", known.directory, "--output", tmp_path / "audit", "--size", 30) == 0
    apply(known)
    assert run("draw", "--predictions", tmp_path / "lanes", "--output", tmp_path / "again", "--size", 30) == 2
    assert "lanes has the lanes of an audit: draw from the predictions" in capsys.readouterr().err


def test_a_second_draw_is_warned_of_then_and_when_it_is_applied(
    known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("lost", "audit")):
        assert run("draw", "--predictions", known.directory, "--output", tmp_path / name, "--seed", seed) == 0
    assert f"were drawn from before ({tmp_path / 'lost'}" in capsys.readouterr().out
    assert len(json.loads((known.directory / LEDGER_FILE).read_text())) == 2
    apply(known)
    assert "warning: 2 draws of different samples" in capsys.readouterr().out
    (warning,) = json.loads((tmp_path / "lanes/_lanes.json").read_text())["warnings"]
    assert "2 draws of different samples" in warning


def test_a_draw_never_overwrites_answers(known: KnownPile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = ("draw", "--predictions", known.directory, "--output", tmp_path / "audit", "--size", 5)
    assert run(*draw) == 0
    fill_in(known, tmp_path / "audit")
    before = (tmp_path / "audit/tasks.csv").read_bytes()
    assert run(*draw) == 2
    assert "audit is there already: choose a new or empty directory" in capsys.readouterr().err
    assert (tmp_path / "audit/tasks.csv").read_bytes() == before
    assert len(json.loads((known.directory / LEDGER_FILE).read_text())) == 1
