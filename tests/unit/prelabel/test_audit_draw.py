"""Drawing the rows that people look at, and the tasks that are made of them."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from prelabel.audit.draw import DrawConfig, arithmetic, draw
from prelabel.audit.pile import Pile, probabilities_at, read_pile
from prelabel.audit.plan import LEDGER_FILE, Plan, note_draw, other_draws, read_plan, write_plan
from prelabel.audit.tasks import copy_images, write_tasks
from prelabel.errors import InputError
from prelabel.sources import open_source
from prelabel.table import read_predictions
from support.piles import CLASSES, KnownPile, make_pile
from support.samples import ListSource, write_pile


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownPile:
    return make_pile(tmp_path_factory.mktemp("pile") / "predictions", failed={5: "broken", 2500: "broken"})


@pytest.fixture
def pile(known: KnownPile) -> Pile:
    return read_pile(known.directory)


def test_a_pile_holds_what_the_files_say(pile: Pile, known: KnownPile) -> None:
    assert len(pile) == 3000
    assert np.flatnonzero(~pile.predicted).tolist() == [5, 2500]
    assert np.isnan(pile.confidence[[5, 2500]]).all()
    assert (pile.label[pile.predicted] == known.label[pile.predicted]).all()
    assert pile.ids_at(np.array([2999, 0])) == [known.ids[2999], known.ids[0]]
    rows = np.array([2999, 0, 1500, 1])  # of three files, in any order
    wanted = read_predictions(known.directory)["probabilities"].take(rows.tolist()).to_pylist()
    assert probabilities_at(known.directory, rows).tolist() == wanted
    assert np.isnan(probabilities_at(known.directory, np.array([5]))).all()


def test_the_draw_is_uniform_over_the_rows_with_a_prediction(pile: Pile) -> None:
    counts = np.zeros(len(pile), int)
    for seed in range(300):
        rows = np.array(draw(pile, DrawConfig(size=600, seed=seed)).rows)
        assert len(np.unique(rows)) == 600
        counts[rows] += 1
    assert not counts[~pile.predicted].any()
    # Each count is binomial with mean 60 and sd 6.9; and no place in the pile is preferred.
    assert 20 < counts[pile.predicted].min() <= counts.max() < 100
    thirds = [part.sum() for part in np.array_split(counts, 3)]
    assert max(thirds) / min(thirds) < 1.03


def test_a_seed_gives_the_same_draw_and_another_pile_another(pile: Pile) -> None:
    one = draw(pile, DrawConfig(size=50, seed=3))
    assert draw(pile, DrawConfig(size=50, seed=3)).rows == one.rows
    assert draw(pile, DrawConfig(size=50, seed=4)).rows != one.rows
    assert draw(dataclasses.replace(pile, sha256="f" * 64), DrawConfig(size=50, seed=3)).rows != one.rows


def test_the_size_follows_from_the_promise(pile: Pile) -> None:
    assert len(draw(pile, DrawConfig(errors=0, coverage=1.0)).rows) == 299
    assert len(draw(pile, DrawConfig()).rows) == 789  # 473 in 60 % of the pile
    assert len(draw(pile, DrawConfig(alpha=0.0001)).rows) == 2998
    text = arithmetic(DrawConfig(), draw(pile, DrawConfig()))
    assert "at most 1 % wrong with 95 % confidence" in text
    assert "299 with 0, 473 with 1, 628 with 2" in text


def test_strata_of_classes_write_down_their_inclusion_probabilities(pile: Pile, tmp_path: Path) -> None:
    plan = draw(pile, DrawConfig(size=100, stratify="class"))
    assert [(one.name, one.drawn) for one in plan.strata] == [("cat", 34), ("dog", 33), ("owl", 33)]
    for row, stratum in zip(plan.rows, plan.stratum, strict=True):
        assert pile.label[row] == stratum
    assert len(set(plan.stratum[:10])) > 1  # mixed
    write_plan(tmp_path, plan)
    written = json.loads((tmp_path / "_audit.json").read_text())["strata"][1]
    assert written["inclusion_probability"] == 33 / written["size"] == 33 / (pile.label == 1).sum()
    assert "in all 3 classes at once" in arithmetic(DrawConfig(stratify="class"), plan)
    assert {one.drawn for one in draw(pile, DrawConfig(alpha=0.05, stratify="class")).strata} == {199}  # 119 in 60 %


def test_strata_of_confidence_hold_as_many_rows_each(pile: Pile) -> None:
    plan = draw(pile, DrawConfig(size=100, stratify="confidence"))
    assert {one.drawn for one in plan.strata} == {10}
    assert "nothing can be certified with it" in arithmetic(DrawConfig(stratify="confidence"), plan)
    assert {one.size for one in plan.strata} == {299, 300}
    means = [
        pile.confidence[[r for r, s in zip(plan.rows, plan.stratum, strict=True) if s == i]].mean() for i in range(10)
    ]
    assert means == sorted(means)


def test_a_plan_is_read_as_it_was_written(pile: Pile, tmp_path: Path) -> None:
    plan = draw(pile, DrawConfig(size=20, stratify="class"))
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    plan.check_pile(pile)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_id": "m2"}, "whose model_id is m1"),
        ({"manifest_hash": "other"}, "whose manifest_hash is hash"),
        ({"sha256": "f" * 64}, "are not those that the audit was drawn from"),
    ],
)
def test_a_plan_is_of_just_these_predictions(pile: Pile, changes: dict[str, str], message: str) -> None:
    plan = draw(pile, DrawConfig(size=20))
    with pytest.raises(InputError, match=message):
        plan.check_pile(dataclasses.replace(pile, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"strata": 3}', b"\xff"])
def test_a_damaged_plan_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="make it with `prelabel audit draw`"):
        read_plan(tmp_path)
    (tmp_path / "_audit.json").write_bytes(content)
    with pytest.raises(InputError, match=r"_audit\.json is damaged"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DrawConfig(alpha=0), "--alpha 0 is not usable"),
        (DrawConfig(alpha=1e-18), "--alpha 1e-18 is not usable: 1e-06 or more"),
        (DrawConfig(confidence=95), "--confidence 95 is not usable"),
        (DrawConfig(size=2999), "has 2,998 predictions"),
        (DrawConfig(size=0), "--size 0"),
        (DrawConfig(seed=-1), "--seed -1"),
        (DrawConfig(errors=-1), "--errors -1"),
        (DrawConfig(coverage=1.1), "--coverage 1.1"),
    ],
)
def test_options_out_of_range_are_named(pile: Pile, config: DrawConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(pile, config)


def test_a_second_draw_is_on_record_and_the_same_draw_is_no_second_one(tmp_path: Path) -> None:
    pile = read_pile(make_pile(tmp_path / "predictions", 50).directory)
    first, second = (draw(pile, DrawConfig(size=10, seed=seed)) for seed in range(2))
    note_draw(pile, first, Path("one"))
    note_draw(pile, first, Path("one again"))
    assert other_draws(pile, first) == []
    assert [entry["output"] for entry in other_draws(pile, second)] == ["one", "one again"]
    assert other_draws(dataclasses.replace(pile, sha256="f" * 64), second) == []
    looser = draw(pile, DrawConfig(size=10, seed=0, alpha=0.05))
    assert looser.rows == first.rows
    assert [entry["output"] for entry in other_draws(pile, looser)] == ["one", "one again"]
    assert len(read_pile(pile.directory)) == 50  # the ledger is none of the predictions
    (pile.directory / LEDGER_FILE).write_text("[3]")
    with pytest.raises(InputError, match=r"_audits\.json is damaged"):
        other_draws(pile, second)


def some_plan(pile: Pile, classes: tuple[str, ...] = CLASSES) -> Plan:
    return dataclasses.replace(draw(pile, DrawConfig(size=4)), ids=("a", "b,c", 'é"', "d"), classes=classes)


def test_the_tasks_hold_no_prediction(pile: Pile, tmp_path: Path) -> None:
    plan = some_plan(pile, ("cat & dog", '"owl"'))
    write_tasks(tmp_path, plan, ["p1", "p2", "p3", "p4"])
    with (tmp_path / "tasks.csv").open(newline="") as file:
        assert list(csv.reader(file))[:3] == [["id", "path", "answer"], ["a", "p1", ""], ["b,c", "p2", ""]]
    tasks = json.loads((tmp_path / "label_studio.json").read_text())
    assert tasks[2] == {"data": {"image": "p3", "uid": 'é"'}}
    config = ElementTree.parse(tmp_path / "label_studio_config.xml")
    assert [one.get("value") for one in config.iter("Choice")] == ["cat & dog", '"owl"', "none of these"]


def test_the_tasks_name_the_copies_and_are_no_formulas(pile: Pile, tmp_path: Path) -> None:
    plan = dataclasses.replace(some_plan(pile), ids=("=1+1", "b c", "'d", "e"))
    copies = [f"0000{i}.png" for i in range(4)]
    write_tasks(tmp_path, plan, ["p1", "p2", "p3", "p4"], copies)
    with (tmp_path / "tasks.csv").open(newline="") as file:
        assert list(csv.reader(file))[:4] == [
            ["id", "path", "image", "answer"],
            ["'=1+1", "p1", "images/00000.png", ""],
            ["b c", "p2", "images/00001.png", ""],
            ["''d", "p3", "images/00002.png", ""],
        ]
    assert addresses(tmp_path) == [f"/data/local-files/?d=images/{name}" for name in copies]


def test_tasks_without_copies_have_the_addresses_of_the_ids(pile: Pile, tmp_path: Path) -> None:
    plan = dataclasses.replace(some_plan(pile), ids=("a b", "c", "d", "e"))
    write_tasks(tmp_path, plan, ["p1", "p2", "p3", "p4"], image_url_prefix="https://h/x/")
    assert addresses(tmp_path)[:2] == ["https://h/x/a%20b", "https://h/x/c"]
    write_tasks(tmp_path, plan, ["p1", "p2", "p3", "p4"], ["0.png"] * 4, image_url_prefix="s3://h/x/")
    assert addresses(tmp_path) == ["s3://h/x/0.png"] * 4


def addresses(directory: Path) -> list[str]:
    return [task["data"]["image"] for task in json.loads((directory / "label_studio.json").read_text())]


def test_images_are_copied_in_the_order_of_the_tasks(pile: Pile, tmp_path: Path) -> None:
    folder = write_pile(tmp_path / "photos", 6)
    source = open_source(folder)
    plan = dataclasses.replace(some_plan(pile), manifest_hash=source.manifest_hash, rows=(5, 0, 3, 1))
    names = copy_images(tmp_path / "images", plan, source)
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png"]
    for name, row in zip(names, plan.rows, strict=True):
        assert (tmp_path / "images" / name).read_bytes() == (folder / f"{row:04d}.png").read_bytes()


def test_pixels_become_png(pile: Pile, tmp_path: Path) -> None:
    plan = dataclasses.replace(some_plan(pile), manifest_hash="manifest", rows=(7, 300, 2, 1))
    names = copy_images(tmp_path / "images", plan, ListSource(400))
    with Image.open(io.BytesIO((tmp_path / "images" / names[1]).read_bytes())) as image:
        assert np.asarray(image).tolist() == [[300 % 256, 1], [0, 0]]


def test_copies_have_the_endings_of_their_formats(pile: Pile, tmp_path: Path) -> None:
    """Phones write JPEG files with several pictures (MPO), which no browser knows by the name of Pillow's format."""
    (tmp_path / "photos").mkdir()
    two = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    two[0].save(tmp_path / "photos/a.jpg", "MPO", save_all=True, append_images=two[1:])
    two[0].save(tmp_path / "photos/b.png", "JPEG")
    two[0].save(tmp_path / "photos/c.tiff")
    two[0].save(tmp_path / "photos/d.gif")
    source = open_source(tmp_path / "photos")
    plan = dataclasses.replace(some_plan(pile), manifest_hash=source.manifest_hash, rows=(0, 1, 2, 3))
    assert copy_images(tmp_path / "images", plan, source) == ["00000.jpg", "00001.jpg", "00002.tif", "00003.gif"]


def test_images_of_another_input_or_gone_are_refused(pile: Pile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the images are another input"):
        copy_images(tmp_path / "images", some_plan(pile), ListSource(400))
    plan = dataclasses.replace(some_plan(pile), manifest_hash="manifest", rows=(7, 3, 2, 1))
    with pytest.raises(InputError, match="image 00003 cannot be read any more"):
        copy_images(tmp_path / "images", plan, ListSource(400, frozenset({3})))
