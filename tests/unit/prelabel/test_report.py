"""The page of `prelabel report`: well-formed, closed to the network, and its numbers are those of the predictions."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.bundle import load_bundle
from prelabel.errors import InputError
from prelabel.report.causes import MAX_CAUSES, Causes
from prelabel.report.text import attribute, text
from prelabel.shards import OTHER_CAUSES
from prelabel.sources import FolderSource
from prelabel.table import read_predictions
from support.piles import write_predictions
from support.reports import HOSTILE, NOTHING, PredictedFolder, page_of, predicted_folder, shown

COUNT = 240
FAILED = {
    7: "cannot be decoded: byte 17",
    9: "cannot be decoded: byte 4096",
    230: "empty (0 bytes)",
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> PredictedFolder:
    return predicted_folder(tmp_path_factory.mktemp("known"), COUNT, HOSTILE, failed=FAILED)


def test_hostile_names_stay_text(known: PredictedFolder, tmp_path: Path) -> None:
    labels = known.write_labels(tmp_path / "labels.csv")
    inputs = replace(NOTHING, predictions=known.predictions, images=str(known.images), labels=str(labels))
    _, page = page_of(inputs, tmp_path)
    assert [one["src"] for one in page.all("img") if one["src"] == "x"] == []
    for name in HOSTILE:
        assert name.translate({0: "\ufffd", 27: "\ufffd"}) in page.text
    # What could turn the text around it ends with its own element or isolate.
    assert all(one["alt"][0] == "\u2068" and one["alt"][-1] == "\u2069" for one in page.all("img"))  # type: ignore[index]


def test_text_of_any_kind_is_encodable_and_escaped() -> None:
    assert text("a<b>\"'&\x00\x1b\ud800\u202e") == "a&lt;b&gt;&quot;&#x27;&amp;\ufffd\ufffd\\ud800\u202e"
    assert attribute('x" onload="y') == "\u2068x&quot; onload=&quot;y\u2069"


def test_the_numbers_are_those_of_the_predictions(known: PredictedFolder, tmp_path: Path) -> None:
    labels = known.write_labels(tmp_path / "labels.csv")
    source, page = page_of(replace(NOTHING, predictions=known.predictions, labels=str(labels)), tmp_path)
    good = np.setdiff1d(np.arange(COUNT), list(FAILED))
    guess, truth = known.probabilities[good].argmax(axis=1), known.truth[good]
    confidence = known.probabilities[good].max(axis=1).astype(np.float64)
    assert "rows240with a prediction237errors3classes7with a label237of them right" in page.text
    assert f"of them right{shown((guess == truth).mean())}" in page.text
    assert f"237 rows have one and a prediction. {(guess != truth).sum()} predictions are unlike it." in page.text
    header, *lines = page.tables["Classes"]
    assert header == ["class", "predicted", "mean confidence", "labelled", "precision", "recall"]
    for k, line in enumerate(lines):
        right = ((guess == k) & (truth == k)).sum()
        assert line[1:] == [
            f"{(guess == k).sum()}",
            shown(confidence[guess == k].mean()),
            f"{(truth == k).sum()}",
            shown(right / (guess == k).sum()),
            shown(right / (truth == k).sum()),
        ]
    expected = Counter(zip(truth.tolist(), guess.tolist(), strict=True))
    worst = page.tables["Worst confusions"][1:]
    counts = sorted((count for (label, k), count in expected.items() if label != k), reverse=True)
    assert [int(line[2]) for line in worst] == counts[:20]
    cleaned = [name.translate({0: "\ufffd", 27: "\ufffd"}) for name in HOSTILE]
    for label, prediction, count, share in worst:
        a, b = cleaned.index(label), cleaned.index(prediction)
        assert (int(count), share) == (expected[a, b], shown(expected[a, b] / (truth == a).sum()))
    bars = [int(line[1]) for line in page.tables["Confidence"][1:]]
    assert bars == np.histogram(confidence.clip(0, 1), 20, (0, 1))[0].tolist()
    realness = read_predictions(known.predictions, ["realness"])["realness"].drop_null().to_numpy()
    assert [int(line[1]) for line in page.tables["Realness"][1:]] == np.histogram(realness, 20, (0, 1))[0].tolist()
    rows = [int(line[1]) for line in page.tables["By confidence"][1:]]
    assert sum(rows) == 237
    assert rows[-1] == (confidence > 14 / 15).sum()
    last = page.tables["By confidence"][-1]
    assert last[3] == shown((guess == truth)[confidence > 14 / 15].mean())
    cells = [int(one) for one in re.findall(r'text-anchor="middle">(\d+)</text>', source)]
    assert Counter(expected.values()) <= Counter(cells)


def test_errors_are_counted_by_cause(known: PredictedFolder, tmp_path: Path) -> None:
    _, page = page_of(replace(NOTHING, predictions=known.predictions), tmp_path)
    (_, *lines) = page.tables["3 rows without a prediction, by cause"]
    assert [line[:2] for line in lines] == [["cannot be decoded: byte N", "2"], ["empty", "1"]]
    assert lines[0][2] == f"{known.ids[7]}, {known.ids[9]}"
    causes = Causes()
    for i in range(MAX_CAUSES + 5):
        causes.add(str(i), "".join(chr(97 + int(digit)) for digit in str(i)))  # digits would become N
    assert (len(causes.found), causes.found[OTHER_CAUSES].count, causes.rows) == (MAX_CAUSES + 1, 5, MAX_CAUSES + 5)


def test_sheets_show_the_extremes(known: PredictedFolder, tmp_path: Path) -> None:
    source, page = page_of(replace(NOTHING, predictions=known.predictions, images=str(known.images)), tmp_path)
    good = np.setdiff1d(np.arange(COUNT), list(FAILED))
    confidence = known.probabilities[good].max(axis=1)
    sheet = source.split('<section id="least-certain"')[1].split("</section>")[0]
    rows = [int(one.replace(",", "")) for one in re.findall(r"<dt>Row</dt><dd>([\d,]+)</dd>", sheet)]
    assert rows == good[np.argsort(-confidence, kind="stable")][::-1][:48].tolist()
    # Class by class eight certain, eight uncertain, eight unreal ones.
    per_class = source.split('<section id="per-class"')[1].split("</section>")[0]
    assert per_class.count('class="tile"') == 7 * 3 * 8
    assert len(page.all("img")) == 3 * 48 + 7 * 3 * 8
    assert f"{3 * 48 + 7 * 3 * 8} images are in this file, made so small that all are under 8 MB." in page.text


def test_without_images_the_sheets_are_names(known: PredictedFolder, tmp_path: Path) -> None:
    _, page = page_of(replace(NOTHING, predictions=known.predictions), tmp_path)
    assert page.all("img") == []
    assert "Without images: --images shows them." in page.text
    assert known.ids[0] in page.text


def test_without_lanes_it_says_how_to_get_them(known: PredictedFolder, tmp_path: Path) -> None:
    _, page = page_of(replace(NOTHING, predictions=known.predictions), tmp_path)
    assert "There are no lanes" in page.text
    assert "prelabel audit draw" in page.text
    assert "Lanes" not in page.tables


def test_label_errors_come_from_a_sample_where_there_are_many(known: PredictedFolder, tmp_path: Path) -> None:
    labels = known.write_labels(tmp_path / "labels.csv")
    inputs = replace(NOTHING, predictions=known.predictions, labels=str(labels))
    _, whole = page_of(inputs, tmp_path)
    assert "found by cleanlab in all 237 rows with a label and a prediction." in whole.text
    _, part = page_of(inputs, tmp_path, sample=100, seed=3)
    assert "in a random sample of 100 of the 237 rows with a label and a prediction, seed 3." in part.text
    assert part.tables["Worst confusions"] == whole.tables["Worst confusions"]


def test_the_input_carries_labels(tmp_path: Path) -> None:
    known = predicted_folder(tmp_path / "labelled", 6, ("a", "b"))
    for i, k in enumerate(known.truth):
        folder = known.images / "test" / "ab"[k]
        folder.mkdir(parents=True, exist_ok=True)
        (known.images / f"{i:05d}.png").rename(folder / f"{i:05d}.png")
    source = FolderSource(known.images)
    names = [sample.label for sample in source.read(0, 6)]
    write_predictions(tmp_path / "again", known.probabilities, classes=("a", "b"), manifest_hash=source.manifest_hash)
    _, page = page_of(replace(NOTHING, predictions=tmp_path / "again", labels=str(known.images)), tmp_path)
    guess = ["ab"[k] for k in known.probabilities.argmax(axis=1)]
    assert f"of them right{shown(np.mean(np.array(guess) == np.array(names)))}" in page.text


def test_duplicates_with_different_labels_come_first(known: PredictedFolder, tmp_path: Path) -> None:
    guess = known.probabilities.argmax(axis=1)
    twins = [(20, 10), (21, int(next(j for j in range(21) if guess[j] != guess[21] and j not in FAILED)))]
    twins[0] = (20, int(next(j for j in range(20) if guess[j] == guess[20] and j not in FAILED)))
    table = pa.table({"id": [known.ids[a] for a, _ in twins], "duplicate_of": [known.ids[b] for _, b in twins]})
    pq.write_table(table, tmp_path / "duplicates.parquet")
    inputs = replace(NOTHING, predictions=known.predictions, duplicates=tmp_path / "duplicates.parquet")
    source, page = page_of(inputs, tmp_path)
    assert "2 images repeat an earlier one; 1 of them have another label than it." in page.text
    sheet = source.split('<section id="duplicates"')[1].split("</section>")[0]
    rows = [int(one) for one in re.findall(r"<dt>Row</dt><dd>(\d+)</dd>", sheet)]
    assert rows == [*twins[1], *twins[0]]


def test_the_model_card_is_of_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    probabilities = np.full((5, 3), 1 / 3, np.float32)
    write_predictions(tmp_path / "predictions", probabilities, classes=bundle.classes, model_id=bundle.model_id)
    inputs = replace(NOTHING, predictions=tmp_path / "predictions", bundle=tiny_bundle)
    _, page = page_of(inputs, tmp_path)
    assert f"model_id{bundle.model_id}" in page.text
    assert f"name{bundle.name}" in page.text
    assert "real_images1,000" in page.text
    assert bundle.files["model.onnx"] in page.text
    assert [line[0] for line in page.tables["Classes of the model"][1:]] == list(bundle.classes)
    write_predictions(tmp_path / "other", probabilities)
    with pytest.raises(InputError, match="but the predictions are of m1"):
        page_of(replace(inputs, predictions=tmp_path / "other"), tmp_path)


def test_only_errors(tmp_path: Path) -> None:
    known = predicted_folder(tmp_path / "errors", 3, ("a", "b"), failed=dict.fromkeys(range(3), "broken"))
    _, page = page_of(replace(NOTHING, predictions=known.predictions, images=str(known.images)), tmp_path)
    assert page.all("img") == []
    assert page.tables["3 rows without a prediction, by cause"][1][:2] == ["broken", "3"]
    assert page.tables["Classes"][1] == ["a", "0", "\u2013"]


def test_one_class_and_no_errors(tmp_path: Path) -> None:
    known = predicted_folder(tmp_path / "one", 4, ("only",))
    labels = known.write_labels(tmp_path / "labels.csv")
    _, page = page_of(replace(NOTHING, predictions=known.predictions, labels=str(labels)), tmp_path)
    assert "None: every row has a prediction." in page.text
    assert "No class was taken for another." in page.text
    assert "Not searched: the given labels are all of one class" in page.text


def test_a_hundred_classes_and_one_image_in_many_sheets(tmp_path: Path) -> None:
    classes = tuple(f"class {k} of a hundred" for k in range(100))
    known = predicted_folder(tmp_path / "hundred", 500, classes, side_px=4)
    labels = known.write_labels(tmp_path / "labels.csv")
    inputs = replace(NOTHING, predictions=known.predictions, images=str(known.images), labels=str(labels))
    source, page = page_of(inputs, tmp_path)
    guess = known.probabilities.argmax(axis=1)
    assert [line[1] for line in page.tables["Classes"][1:]] == [str((guess == k).sum()) for k in range(100)]
    drawing = source.split('<svg class="heatmap"')[1].split("</svg>")[0]
    pairs = set(zip(known.truth.tolist(), guess.tolist(), strict=True))
    assert drawing.count('class="right"') + drawing.count('class="wrong"') == len(pairs)
    assert 'text-anchor="middle"' not in drawing  # no numbers in cells that small
    assert len(page.tables["Worst confusions"]) <= 21


def test_the_same_inputs_give_the_same_bytes(known: PredictedFolder, tmp_path: Path) -> None:
    labels = known.write_labels(tmp_path / "labels.csv")
    inputs = replace(NOTHING, predictions=known.predictions, images=str(known.images), labels=str(labels))
    assert page_of(inputs, tmp_path, sample=100)[0] == page_of(inputs, tmp_path, sample=100)[0]
