"""What `prelabel report` says about lanes, and about the audit that they come from."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from prelabel.audit.apply import ApplyConfig, apply
from prelabel.audit.draw import DrawConfig, draw
from prelabel.audit.pile import read_pile
from prelabel.audit.plan import Plan, write_plan
from prelabel.audit.suspects import SuspectConfig
from prelabel.table import read_predictions
from support.piles import CLASSES, KnownPile, make_pile
from support.reports import NOTHING, page_of, shown


def drawn_and_answered(folder: Path, count: int, config: DrawConfig) -> tuple[KnownPile, Plan]:
    """Makes a pile with one error row and draws from it; people answer everything rightly in tasks.csv."""
    pile = make_pile(folder / "predictions", count, failed={3: "broken"})
    plan = draw(read_pile(pile.directory), config)
    write_plan(folder, plan)
    answers = [f"{name},{CLASSES[pile.truth[row]]}" for name, row in zip(plan.ids, plan.rows, strict=True)]
    (folder / "tasks.csv").write_text("\n".join(["id,answer", *answers]) + "\n")
    return pile, plan


def test_lanes_and_their_certificate(tmp_path: Path) -> None:
    pile, plan = drawn_and_answered(tmp_path, 3000, DrawConfig(alpha=0.02, size=900))
    lanes = tmp_path / "lanes"
    made = apply(ApplyConfig(), SuspectConfig(), tmp_path, tmp_path / "tasks.csv", pile.directory, lanes)
    (pile.directory / "_run.json").write_text(
        json.dumps({"model_id": "m1", "manifest_hash": "hash", "input": "<b>photos", "classes": list(CLASSES)})
    )
    # The answered tasks are labels, too.
    inputs = replace(NOTHING, predictions=lanes, run=pile.directory, labels=str(tmp_path / "tasks.csv"))
    source, page = page_of(inputs, tmp_path)
    table = read_predictions(lanes)
    lane = np.array(table["lane"].to_pylist())
    assert (
        f"{(table['error'].is_null().to_numpy() & np.isin(np.arange(3000), plan.rows)).sum():,} rows have one"
        in page.text
    )
    # They decide the lanes of their own rows, so errors are not counted by lane.
    for line, name in zip(page.tables["Lanes"][1:], ("accept", "review", "suspect"), strict=True):
        assert line == [name, f"{(lane == name).sum():,}", shown((lane == name).mean(), 1)]
    (certificate,) = made["certificates"]
    step = certificate["steps"][certificate["accepted"]]
    assert page.tables["Certificates"][1] == [
        "all rows",
        "2,999",
        f"{step['size']:,}",
        f"{step['threshold']:.9g}",
        f"{step['audited']:,}",
        f"{step['wrong']:,}",
        shown(certificate["bound"]),
    ]
    assert "Certified: of the accepted rows, at most 2 % are wrong, with 95 % confidence." in page.text
    for assumption in made["assumptions"]:
        assert assumption.replace("`", "") in page.text
    classes = page.tables["Classes"]
    assert classes[0][3:6] == ["accept", "review", "suspect"]
    labels = np.array(table["label"].to_pylist())
    assert classes[1][3] == f"{((lane == 'accept') & (labels == 'cat')).sum():,}"
    assert "By calibrated confidence" in page.tables
    suspects = source.split('<section id="suspects"')[1].split("</section>")[0]
    first = next(row for row in table.to_pylist() if row["lane"] == "suspect" and row["review_rank"] == 1)
    assert re.findall(r"<dt>Id</dt><dd><bdi>([^<]+)</bdi>", suspects)[0] == first["id"]
    assert "<b>photos" in page.text


def test_errors_by_lane_are_counted_by_labels_that_decided_no_lane(tmp_path: Path) -> None:
    pile, _ = drawn_and_answered(tmp_path, 3000, DrawConfig(alpha=0.02, size=900))
    lanes = tmp_path / "lanes"
    apply(ApplyConfig(), SuspectConfig(), tmp_path, tmp_path / "tasks.csv", pile.directory, lanes)
    table = read_predictions(lanes)
    every = [
        f"{identity},{CLASSES[truth]}" for identity, truth in zip(table["id"].to_pylist(), pile.truth, strict=True)
    ]
    (tmp_path / "truth.csv").write_text("\n".join(["id,label", *every]) + "\n")
    _, page = page_of(replace(NOTHING, predictions=lanes, labels=str(tmp_path / "truth.csv")), tmp_path)
    lane, unlike = np.array(table["lane"].to_pylist()), pile.label != pile.truth
    for line, name in zip(page.tables["Lanes"][1:], ("accept", "review", "suspect"), strict=True):
        labelled = (lane == name) & table["error"].is_null().to_numpy()
        assert line[3:] == [
            f"{labelled.sum():,}",
            f"{(labelled & unlike).sum():,}",
            shown((labelled & unlike).sum() / labelled.sum()) if labelled.any() else "\u2013",
        ]


def test_a_sample_that_certifies_nothing_says_what_it_takes(tmp_path: Path) -> None:
    pile, _ = drawn_and_answered(tmp_path, 500, DrawConfig(size=40))
    made = apply(ApplyConfig(), SuspectConfig(), tmp_path, tmp_path / "tasks.csv", pile.directory, tmp_path / "lanes")
    _, page = page_of(replace(NOTHING, predictions=tmp_path / "lanes"), tmp_path)
    assert "Nothing is certified: no set of which at most 1 % are wrong" in page.text
    assert f"{made['certificates'][0]['answers_to_draw']:,} answers, not 40" in page.tables["Certificates"][1][-1]
