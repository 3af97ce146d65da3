"""The whole audit: what apply writes for people's answers, and what the report says about it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from prelabel.audit.apply import ApplyConfig, apply
from prelabel.audit.draw import DrawConfig, draw
from prelabel.audit.pile import probabilities_at, read_pile
from prelabel.audit.plan import Plan, write_plan
from prelabel.audit.report import write_report
from prelabel.audit.review import review_order
from prelabel.audit.suspects import SuspectConfig
from prelabel.errors import InputError
from prelabel.table import read_predictions, table_info
from prelabel.temperature import apply_temperature, fit_temperature
from support.piles import CLASSES, KnownPile, make_pile

SUSPECT = SuspectConfig()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownPile:
    return make_pile(tmp_path_factory.mktemp("pile") / "predictions", 4000, failed={3: "broken", 3999: "broken"})


def answered(known: KnownPile, folder: Path, config: DrawConfig) -> Plan:
    """Draws, and answers with the truth."""
    plan = draw(read_pile(known.directory), config)
    folder.mkdir()
    write_plan(folder, plan)
    lines = [f"{name},{CLASSES[known.truth[row]]}" for name, row in zip(plan.ids, plan.rows, strict=True)]
    (folder / "answers.csv").write_text("\n".join(["id,answer", *lines]) + "\n")
    return plan


def applied(known: KnownPile, folder: Path, config: ApplyConfig | None = None, **changes: Any) -> dict[str, Any]:
    return apply(
        config or ApplyConfig(),
        changes.get("suspect", SUSPECT),
        folder / "audit",
        changes.get("answers", folder / "audit/answers.csv"),
        changes.get("predictions", known.directory),
        folder / "lanes",
    )


@pytest.fixture
def plan(known: KnownPile, tmp_path: Path) -> Plan:
    return answered(known, tmp_path / "audit", DrawConfig(alpha=0.02, size=900))


def test_predictions_come_back_with_lanes(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    made = applied(known, tmp_path)
    before, after = read_predictions(known.directory), read_predictions(tmp_path / "lanes")
    assert table_info(after) == table_info(before)
    assert after.select(before.schema.names).equals(before)
    assert after.schema.names[len(before.schema) :] == [
        "lane",
        "lane_reason",
        "review_rank",
        "calibrated_confidence",
    ]
    assert [str(after.schema.field(i).type) for i in range(-4, 0)] == ["string", "string", "int64", "float"]
    after.validate(full=True)
    assert sorted(path.name for path in (tmp_path / "lanes").iterdir()) == [
        "_lanes.json",
        *sorted(path.name for path in known.directory.glob("part-*")),
    ]
    assert json.loads((tmp_path / "lanes/_lanes.json").read_text()) == json.loads(json.dumps(made))
    lanes = after["lane"].to_pylist()
    assert made["lanes"] == {name: lanes.count(name) for name in ("accept", "review", "suspect")}
    metadata = pq.read_metadata(next((tmp_path / "lanes").glob("*.parquet"))).metadata
    assert json.loads(metadata[b"prelabel_lanes"])["temperature"] == made["temperature"]
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert list(features) == after.schema.names


def test_what_is_accepted_is_the_certified_set_and_what_people_confirmed(
    known: KnownPile, plan: Plan, tmp_path: Path
) -> None:
    made = applied(known, tmp_path)
    (certificate,) = made["certificates"]
    step = certificate["steps"][certificate["accepted"]]
    assert certificate["bound"] <= 0.02
    table = read_predictions(tmp_path / "lanes")
    accepted = np.array(table["lane"].to_pylist()) == "accept"
    assert (known.truth != known.label)[accepted].mean() <= 0.02
    confidence = table["confidence"].to_numpy()
    candidates = table["realness"].fill_null(0).to_numpy() >= np.float32(made["realness_floor"])
    assert step["size"] == (candidates & (confidence >= np.float32(step["threshold"]))).sum()
    assert candidates.sum() == certificate["steps"][-1]["size"] == 3998 - 40
    reasons = np.array(table["lane_reason"].to_pylist())
    inside = accepted & (reasons != "a person gave this label in the audit")
    assert confidence[inside].min() >= np.float32(step["threshold"])
    assert f"confidence at least {step['threshold']:.9g}: at most 2 % are wrong" in reasons[inside]
    rows = np.array(plan.rows)
    right = known.truth[rows] == known.label[rows]
    assert accepted[rows[right]].all()
    assert not accepted[rows[~right]].any()
    assert (np.array(table["lane"].to_pylist())[rows[~right]] == "suspect").all()
    # The certified set, less what was found wrong in it, and more what was found right outside.
    outside = rows[right][reasons[rows[right]] == "a person gave this label in the audit"]
    assert accepted.sum() == inside.sum() + len(outside)


def test_ranks_number_each_lane_from_one(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    applied(known, tmp_path)
    rows = read_predictions(tmp_path / "lanes").to_pylist()
    for lane in ("review", "suspect"):
        members = [row for row in rows if row["lane"] == lane]
        assert sorted(row["review_rank"] for row in members) == list(range(1, len(members) + 1))
    assert {row["review_rank"] for row in rows if row["lane"] == "accept"} == {None}
    suspects = sorted((row for row in rows if row["lane"] == "suspect"), key=lambda row: row["review_rank"])
    kinds = [row["lane_reason"].split(" ")[0] for row in suspects]
    assert list(dict.fromkeys(kinds)) == ["a", "realness", "no"]  # a person says ..., realness ..., no prediction
    realness = [row["realness"] for row in suspects if row["lane_reason"].startswith("realness")]
    assert realness == sorted(realness)
    assert [row["error"] for row in suspects[-2:]] == ["broken", "broken"]
    assert [row["calibrated_confidence"] for row in suspects[-2:]] == [None, None]


def test_the_temperature_is_fitted_on_the_answers(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    made = applied(known, tmp_path)
    rows = np.array(plan.rows)
    temperature = fit_temperature(probabilities_at(known.directory, rows), known.truth[rows])
    assert made["temperature"] == pytest.approx(temperature)
    assert made["temperature_fitted"]
    table = read_predictions(tmp_path / "lanes")
    scaled = apply_temperature(probabilities_at(known.directory, np.array([17, 2000])), temperature).max(axis=1)
    assert table["calibrated_confidence"].take([17, 2000]).to_pylist() == pytest.approx(scaled.tolist(), rel=1e-6)


def test_answers_without_a_wrong_one_leave_the_temperature_at_one(known: KnownPile, tmp_path: Path) -> None:
    answered(dataclasses.replace(known, truth=known.label), tmp_path / "audit", DrawConfig(size=50))
    made = applied(known, tmp_path)
    assert (made["temperature"], made["temperature_fitted"], made["wrong"]) == (1.0, False, 0)


def test_a_sample_that_is_too_small_accepts_nothing_and_says_what_it_takes(known: KnownPile, tmp_path: Path) -> None:
    plan = answered(known, tmp_path / "audit", DrawConfig(size=40))
    made = applied(known, tmp_path)
    (certificate,) = made["certificates"]
    assert certificate["accepted"] is None
    assert certificate["answers_to_draw"] >= 299
    table = read_predictions(tmp_path / "lanes").to_pylist()
    accepted = {row["id"] for row in table if row["lane"] == "accept"}
    assert accepted == {n for n, r in zip(plan.ids, plan.rows, strict=True) if known.truth[r] == known.label[r]}
    assert {row["lane_reason"] for row in table if row["lane"] == "review"} == {"no confidence is certified"}


@pytest.mark.parametrize("stratify", ["none", "class"])
def test_a_promise_for_each_class(known: KnownPile, tmp_path: Path, stratify: Any) -> None:
    answered(known, tmp_path / "audit", DrawConfig(alpha=0.05, size=1500, stratify=stratify))
    made = applied(known, tmp_path, ApplyConfig(per_class=stratify == "none"))
    assert made["per_class"]
    assert [one["class_name"] for one in made["certificates"]] == list(CLASSES)
    table = read_predictions(tmp_path / "lanes")
    lanes, reasons = np.array(table["lane"].to_pylist()), np.array(table["lane_reason"].to_pylist())
    for k, one in enumerate(made["certificates"]):
        assert one["delta"] == pytest.approx(0.05 / 3)
        assert one["frame"] == sum(label == CLASSES[k] for label in table["label"].to_pylist())
        threshold = one["steps"][one["accepted"]]["threshold"]
        expected = f"confidence at least {threshold:.9g} for class {CLASSES[k]!r}: at most 5 % are wrong"
        members = (known.label == k) & (lanes == "accept")
        assert expected in reasons[members]
        assert (known.truth != known.label)[members].mean() <= 0.05
    assert sum(one["drawn"] for one in made["certificates"]) == 1500


def test_a_draw_stratified_by_confidence_certifies_nothing_and_says_why(known: KnownPile, tmp_path: Path) -> None:
    plan = answered(known, tmp_path / "audit", DrawConfig(size=900, stratify="confidence"))
    made = applied(known, tmp_path)
    assert "certifies nothing" in made["refused"]
    assert made["certificates"] == []
    rows = np.array(plan.rows)
    weights = np.array([1 / plan.strata[s].inclusion_probability for s in plan.stratum])
    temperature = fit_temperature(probabilities_at(known.directory, rows), known.truth[rows], weights)
    assert made["temperature"] == pytest.approx(temperature)
    reasons = read_predictions(tmp_path / "lanes", ["lane", "lane_reason"]).to_pylist()
    assert {row["lane_reason"] for row in reasons if row["lane"] == "review"} == {"nothing is certified"}


def test_another_alpha_than_that_of_the_draw_is_on_record(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    made = applied(known, tmp_path, ApplyConfig(alpha=0.05))
    assert made["alpha"] == 0.05
    assert any("are not those of the draw (0.02, 0.95)" in warning for warning in made["warnings"])


def test_what_does_not_belong_together_leaves_nothing_behind(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    other = make_pile(tmp_path / "other", 4000, seed=1)
    with pytest.raises(InputError, match="not those that the audit was drawn from"):
        applied(known, tmp_path, predictions=other.directory)
    short = tmp_path / "short.csv"
    short.write_text("id,answer\n")
    with pytest.raises(InputError, match="lacks 900 of 900 answers"):
        applied(known, tmp_path, answers=short)
    with pytest.raises(InputError, match="--alpha 2 is not usable"):
        applied(known, tmp_path, ApplyConfig(alpha=2))
    with pytest.raises(InputError, match="does not exist"):
        applied(known, tmp_path, suspect=SuspectConfig(given_labels=tmp_path / "nothing.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "other", "short.csv"]
    (tmp_path / "lanes").mkdir()
    (tmp_path / "lanes/mine").touch()
    with pytest.raises(InputError, match="lanes is there already"):
        applied(known, tmp_path)


def test_the_report_counts_hours_and_draws_the_curve(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    made = applied(known, tmp_path)
    report = write_report(tmp_path / "lanes", 9.0)
    assert json.loads((tmp_path / "lanes/_report.json").read_text()) == report
    assert report["hours_without"] == pytest.approx(10.0)
    left = report["left_to_look_at"]
    assert left["review"] == made["lanes"]["review"]
    assert left["suspect"] == made["lanes"]["suspect"] - made["wrong"]
    assert report["hours_with"] == pytest.approx((900 + left["review"] + left["suspect"]) / 400)
    assert report["hours_saved"] == pytest.approx(10.0 - report["hours_with"])
    curve = {entry["alpha"]: entry["coverage"] for entry in report["coverage_against_alpha"]}
    (certificate,) = made["certificates"]
    assert curve[0.02] == certificate["steps"][certificate["accepted"]]["size"] / 4000
    assert curve[0.001] == 0.0
    assert curve[0.2] > 0.9
    svg = ElementTree.parse(tmp_path / "lanes/_coverage.svg").getroot()
    named = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.1 %", "1 %", "20 %"} < set(named)
    points = svg.find(".//{http://www.w3.org/2000/svg}polyline").get("points").split()
    assert len(points) == len(curve)
    assert len(read_predictions(tmp_path / "lanes")) == 4000  # the report is none of the predictions


def test_a_report_needs_lanes_and_a_time(known: KnownPile, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make it with `prelabel audit apply`"):
        write_report(tmp_path, 5.0)
    (tmp_path / "_lanes.json").write_text('{"certificates": [{}]}')
    with pytest.raises(InputError, match=r"_lanes\.json is damaged"):
        write_report(tmp_path, 5.0)
    with pytest.raises(InputError, match="--seconds-per-label inf"):
        write_report(tmp_path / "lanes", math.inf)
    with pytest.raises(InputError, match="--seconds-per-label 0"):
        write_report(tmp_path, 0)


def test_review_starts_with_the_uncertain_and_takes_turns() -> None:
    entropy = np.array([0.9, 0.8, 0.7, 0.3, 0.01], np.float32)
    label = np.array([0, 0, 0, 1, 2], np.int32)
    runner_up = np.array([1, 1, 1, 0, 0], np.int32)
    assert review_order(entropy, label, runner_up).tolist() == [0, 1, 3, 2, 4]
    assert review_order(entropy[:0], label[:0], runner_up[:0]).tolist() == []


def test_one_confusion_does_not_fill_the_head_of_the_list() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.choice(6, 10_000, p=[0.95, 0.01, 0.01, 0.01, 0.01, 0.01])
    entropy = generator.uniform(0.5, 0.7, 10_000).astype(np.float32)
    label, runner_up = (pairs // 2).astype(np.int32), ((pairs // 2 + 1 + pairs % 2) % 3).astype(np.int32)
    order = review_order(entropy, label, runner_up)
    assert sorted(order.tolist()) == list(range(10_000))
    assert np.bincount(pairs[order[:60]], minlength=6).min() >= 8
    for pair in range(6):
        own = entropy[order[pairs[order] == pair]]
        assert (np.diff(own) <= 0).all()
