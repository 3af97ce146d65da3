"""Which rows are suspect whatever their confidence, and why."""

import contextlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.audit.label_errors import likely_label_errors
from prelabel.audit.pile import Pile, read_pile
from prelabel.audit.suspects import Kind, SuspectConfig, find_suspects, mark_answers
from prelabel.duplicates.table import DuplicatesInfo
from prelabel.errors import InputError
from support.piles import CLASSES, KnownPile, make_pile, write_predictions

NONE = SuspectConfig(realness_quantile=0.0)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownPile:
    return make_pile(tmp_path_factory.mktemp("pile") / "predictions", 1000, failed={5: "broken"})


@pytest.fixture
def pile(known: KnownPile) -> Pile:
    return read_pile(known.directory)


def test_the_least_real_and_the_undecodable(pile: Pile) -> None:
    suspects = find_suspects(pile, SuspectConfig(realness_quantile=0.02))
    low = np.flatnonzero(suspects.kind == Kind.REALNESS).tolist()
    assert low == [row for row in range(21) if row != 5]  # realness grows with the row
    assert np.flatnonzero(suspects.kind == Kind.UNDECODABLE).tolist() == [5]
    assert suspects.reason(3, 0.02) == f"realness under {suspects.realness_floor:.6g}, the 2 % quantile of the pile"
    assert suspects.reason(5, 0.02) == "no prediction: see `error`"
    assert np.flatnonzero(find_suspects(pile, NONE).kind).tolist() == [5]


def test_rows_of_equal_realness_are_no_suspects(tmp_path: Path) -> None:
    """A model whose realness says nothing."""
    probabilities = np.full((100, 3), 1 / 3, np.float32)
    write_predictions(tmp_path / "p", probabilities, np.full(100, 0.5, np.float32))
    assert not find_suspects(read_pile(tmp_path / "p"), SuspectConfig(realness_quantile=0.1)).kind.any()


def write_duplicates(path: Path, pairs: list[tuple[str, str | None]]) -> SuspectConfig:
    columns = {
        "id": [one for one, _ in pairs],
        "duplicate_of": [other for _, other in pairs],
        "distance": pa.array([1] * len(pairs), pa.int32()),
        "kind": ["near"] * len(pairs),
    }
    pq.write_table(pa.table(columns), path)
    return SuspectConfig(realness_quantile=0.0, duplicates=path)


def test_near_duplicates_with_another_label(pile: Pile, known: KnownPile, tmp_path: Path) -> None:
    cats, dogs = (np.flatnonzero(pile.label == k) for k in (0, 1))
    names = known.ids
    config = write_duplicates(
        tmp_path / "duplicates.parquet",
        [
            (names[cats[0]], names[dogs[0]]),
            (names[cats[1]], names[cats[2]]),
            (names[5], names[cats[3]]),
            (names[7], None),
        ],
    )
    suspects = find_suspects(pile, config)
    assert np.flatnonzero(suspects.kind == Kind.DUPLICATE).tolist() == sorted([cats[0], dogs[0]])
    assert suspects.reason(cats[0], 0.0) == f"near-duplicate of {names[dogs[0]]}, whose label is 'dog'"
    assert suspects.reason(dogs[0], 0.0) == f"near-duplicate of {names[cats[0]]}, whose label is 'cat'"


def test_duplicates_of_another_input_are_refused(pile: Pile, known: KnownPile, tmp_path: Path) -> None:
    config = write_duplicates(tmp_path / "d.parquet", [(known.ids[1], known.ids[0])])
    info = DuplicatesInfo("1", pile.manifest_hash, len(pile), 0, 0, 1, 4, 3.0)
    for made_of, refused in ((info, False), (replace(info, manifest_hash="another"), True)):
        table = pq.read_table(tmp_path / "d.parquet").replace_schema_metadata({"prelabel": json.dumps(asdict(made_of))})
        pq.write_table(table, tmp_path / "d.parquet")
        with pytest.raises(InputError, match="is about another input") if refused else contextlib.nullcontext():
            find_suspects(pile, config)


def test_a_bad_table_of_duplicates_is_named(pile: Pile, known: KnownPile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ids that are not in the predictions: elsewhere"):
        find_suspects(pile, write_duplicates(tmp_path / "d.parquet", [("elsewhere", known.ids[0])]))
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet is no table of duplicates \(id and duplicate_of\)"):
        find_suspects(pile, SuspectConfig(duplicates=tmp_path / "d.parquet"))
    with pytest.raises(InputError, match=r"nothing\.parquet is no table of duplicates"):
        find_suspects(pile, SuspectConfig(duplicates=tmp_path / "nothing.parquet"))


def test_answers_that_differ_are_the_first_suspects(pile: Pile, known: KnownPile) -> None:
    suspects = find_suspects(pile, SuspectConfig(realness_quantile=0.02))
    rows = np.array([0, 500, 501])
    answers = np.array([(pile.label[0] + 1) % 3, -1, pile.label[501]], np.int32)
    mark_answers(suspects, pile, rows, answers)
    assert suspects.kind[rows].tolist() == [Kind.ANSWER, Kind.ANSWER, Kind.NONE]
    assert suspects.reason(0, 0.02) == f"a person says {CLASSES[answers[0]]!r} (audit)"
    assert suspects.reason(500, 0.02) == "a person says that it is none of the classes (audit)"


def write_labels(path: Path, known: KnownPile, labels: np.ndarray) -> SuspectConfig:
    lines = [f"{name},{CLASSES[k]}" for name, k in zip(known.ids, labels, strict=True)]
    path.write_text("\n".join(["id,label", *lines, f"{known.ids[0]},"]) + "\n")
    return SuspectConfig(realness_quantile=0.0, given_labels=path)


def test_cleanlab_finds_the_wrong_labels_that_came_with_images(pile: Pile, known: KnownPile, tmp_path: Path) -> None:
    given = known.truth.copy()
    sure = np.flatnonzero((pile.confidence > 0.99) & (known.truth == pile.label))
    flipped = np.random.default_rng(0).choice(sure, 40, replace=False)
    given[flipped] = (given[flipped] + 1) % 3
    suspects = find_suspects(pile, write_labels(tmp_path / "labels.csv", known, given))
    found = np.flatnonzero(suspects.kind == Kind.GIVEN_LABEL)
    assert np.isin(flipped, found).all()
    assert len(found) < 80
    name = CLASSES[given[flipped[0]]]
    assert suspects.reason(flipped[0], 0.0) == f"its given label {name!r} is likely wrong (cleanlab)"
    assert suspects.severity[found].max() == len(found) - 1


def test_label_errors_among_classes_that_do_not_all_occur() -> None:
    probabilities = np.full((60, 4), 0.01, np.float32)
    truth = np.repeat([0, 2], 30)
    probabilities[np.arange(60), truth] = 0.97
    labels = truth.astype(np.int32)
    labels[[3, 50]] = [2, 0]
    assert sorted(likely_label_errors(labels, probabilities)) == [3, 50]


def test_given_labels_by_numbers_whose_zeros_a_spreadsheet_took_away(tmp_path: Path) -> None:
    probabilities = np.tile(np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01]], np.float32), (30, 1))
    write_predictions(tmp_path / "p", probabilities, ids=[f"{i:06d}" for i in range(60)])
    given = [f"{i},{CLASSES[i % 2 if i != 7 else 0]}" for i in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *given]))
    config = SuspectConfig(realness_quantile=0.0, given_labels=tmp_path / "labels.csv")
    assert np.flatnonzero(find_suspects(read_pile(tmp_path / "p"), config).kind).tolist() == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\n", "holds no labels"),
        ("id,label\nset/00001.png,cow\n", "'cow', which is no class"),
        ("id,label\nx,cat\n", "ids that are not in the predictions: x"),
        ("id,label\nset/00001.png,cat\nset/00001.png,dog\n", "gives an id a label twice"),
        ("id,label\nset/00001.png,cat\nset/00002.png,cat\n", r"labels\.csv: its labels are all 'cat'"),
        ("id,label\nset/00001.png,none of these\n", r"labels\.csv: its labels are of no class"),
        ("id,answer\n", "has no column 'label'"),
    ],
)
def test_bad_given_labels_are_named(pile: Pile, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        find_suspects(pile, SuspectConfig(given_labels=path))


def test_a_quantile_out_of_range_is_named(pile: Pile) -> None:
    with pytest.raises(InputError, match=r"--realness-quantile 1\.0"):
        find_suspects(pile, SuspectConfig(realness_quantile=1.0))


def test_without_cleanlab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)  # importing it is an ImportError
    with pytest.raises(InputError, match=r"pip install 'prelabel\[audit\]'"):
        likely_label_errors(np.array([0, 1], np.int32), np.full((2, 2), 0.5, np.float32))
