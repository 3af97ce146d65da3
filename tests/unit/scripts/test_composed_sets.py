import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from prelabel.errors import InputError
from scripts.composed.foreign import Foreign, foreign_images
from scripts.composed.glyphs import distinct_characters
from scripts.composed.mnist import load_digits
from scripts.composed.split import Split
from scripts.composed_sets import SIZES, SetName, compose, describe, is_there, write_set
from training.dataset import load_dataset, load_test
from training.splits import find_splits

SHAPES = {
    "letters": (26, (28, 28, 1)),
    "colour-letters-32": (10, (32, 32, 3)),
    "colour-digits-32": (10, (32, 32, 3)),
    "shapes-64": (6, (64, 64, 3)),
    "binary-64": (2, (64, 64, 3)),
    "glyphs-100": (100, (32, 32, 1)),
    "digit-halves": (2, (28, 28, 1)),
    "unbalanced-digits": (10, (28, 28, 1)),
    "polluted-digits": (10, (28, 28, 1)),
    "optical-digits-8": (10, (8, 8, 1)),
}


def written(folder: Path, name: SetName, train_count: int, test_count: int) -> Path:
    train, test = compose(name, "train", 3, train_count), compose(name, "test", 3, test_count)
    write_set(folder, train, test, describe(name, 3, train, test))
    return folder


@pytest.mark.parametrize("name", SIZES)
def test_set_has_its_classes_and_shape_and_depends_on_seed_and_split_alone(name: SetName) -> None:
    count = 200
    split = compose(name, "train", 0, count)
    class_count, shape = SHAPES[name]
    assert split.images.dtype == np.uint8
    assert split.images.shape[1:] == shape
    assert len(split.images) == len(split.labels) == pytest.approx(count, abs=3)
    assert len({label for label in split.labels if label is not None}) == class_count
    again = compose(name, "train", 0, count)
    np.testing.assert_array_equal(split.images, again.images)
    assert split.labels == again.labels
    for other in (compose(name, "train", 1, count), compose(name, "test", 0, count)):
        assert not np.array_equal(split.images, other.images)


@pytest.mark.parametrize("name", SIZES)
def test_no_image_is_blank_and_none_occurs_twice(name: SetName) -> None:
    images = compose(name, "train", 0, 200).images
    assert (images.reshape(len(images), -1).std(axis=1) > 2).all()
    assert len({image.tobytes() for image in images}) == len(images)


def test_glyph_classes_are_distinct_and_the_same_for_all_seeds() -> None:
    characters = distinct_characters(100)
    assert len(set(characters)) == 100
    split = compose("glyphs-100", "test", 7, 100)
    assert {f"U+{ord(character):04X}" for character in characters} == set(split.labels)


def test_unbalanced_frequencies_fall_to_a_tenth() -> None:
    for split, count in zip(("train", "test"), SIZES["unbalanced-digits"], strict=True):
        _, counts = np.unique(compose("unbalanced-digits", split, 0, count).labels, return_counts=True)
        assert counts.sum() == pytest.approx(count, abs=5)
        np.testing.assert_allclose(counts / counts[0], 0.1 ** (np.arange(10) / 9), atol=0.001)


def test_pollution_has_no_labels_and_leaves_the_digits_in_their_order() -> None:
    split = compose("polluted-digits", "train", 0, 500)
    foreign = np.array([label is None for label in split.labels])
    assert split.origins is not None
    assert foreign.sum() == 100
    assert set(np.array(split.origins)[foreign]) == {"letters", "inverted", "noise", "neighbours"}
    assert set(np.array(split.origins)[~foreign]) == {"digit"}
    images, labels = load_digits(Path("data/mnist"), "train")
    np.testing.assert_array_equal(split.images[~foreign, ..., 0], images[:400])
    assert [label for label in split.labels if label is not None] == [str(label) for label in labels[:400]]


def test_polluted_set_has_a_clean_test_split() -> None:
    split = compose("polluted-digits", "test", 0, 50)
    np.testing.assert_array_equal(split.images[..., 0], load_digits(Path("data/mnist"), "test")[0][:50])
    assert None not in split.labels


@pytest.mark.parametrize("name", ["shapes-64", "letters"])
def test_trainer_reads_what_was_written(name: SetName, tmp_path: Path) -> None:
    folder = written(tmp_path / name, name, 104, 52)
    dataset = load_dataset(folder, label_count=26, seed=0)
    training = dataset.training
    train = compose(name, "train", 3, 104)
    assert training.spec.shape == train.images.shape[1:]
    assert (len(training.labelled), len(training.unlabelled)) == (26, 104)
    np.testing.assert_array_equal(training.unlabelled, train.images)
    assert dataset.hidden is not None
    assert len(dataset.hidden.images) == 78
    assert dataset.test_source is not None
    test, skipped = load_test(dataset.test_source, training)
    assert test is not None
    assert not skipped
    wanted = compose(name, "test", 3, 52)
    np.testing.assert_array_equal(test.images, wanted.images)
    assert tuple(training.classes[label] for label in test.labels) == wanted.labels


def test_trainer_puts_pollution_into_the_pile_and_never_among_the_labels(tmp_path: Path) -> None:
    dataset = load_dataset(written(tmp_path / "set", "polluted-digits", 400, 10), label_count=20, seed=0)
    assert dataset.hidden is not None
    assert len(dataset.training.unlabelled) == 400
    assert len(dataset.training.labelled) + len(dataset.hidden.images) == 320


def test_set_is_written_the_same_way_each_time(tmp_path: Path) -> None:
    folders = [written(tmp_path / side, "binary-64", 20, 10) for side in ("a", "b")]
    for name in ("train.parquet", "test.parquet", "composed.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    hashes = {find_splits(folder)[0].manifest_hash for folder in folders}
    assert len(hashes) == 1


def test_existing_set_is_recognised_and_another_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    assert not is_there(folder, "binary-64", 3)
    written(folder, "binary-64", 20, 10)
    assert is_there(folder, "binary-64", 3)
    with pytest.raises(InputError, match=r"'seed': 3.*remove it, or give another --output"):
        is_there(folder, "binary-64", 4)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"no composed\.json"):
        is_there(tmp_path / "mine", "letters", 0)


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    train = compose("binary-64", "train", 0, 4)
    not_names = Split(train.images, (1.5, 2.5, 3.5, 4.5))
    with pytest.raises(TypeError, match="got a 'float'"):
        write_set(tmp_path / "set", train, not_names, {})
    assert list(tmp_path.iterdir()) == []


def test_description_names_the_licence_of_what_is_made_of_mnist(tmp_path: Path) -> None:
    description = json.loads((written(tmp_path / "set", "unbalanced-digits", 100, 50) / "composed.json").read_text())
    assert description["licence"].startswith("CC BY-SA 3.0")
    assert description["classes"] == 10
    assert description["seed"] == 3


@pytest.mark.parametrize("kind", get_args(Foreign))
def test_foreign_images_are_uint8_and_depend_on_the_seed(kind: Foreign) -> None:
    images = foreign_images(kind, 50, 0)
    assert images.shape == (50, 28, 28, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, foreign_images(kind, 50, 0))
    assert not np.array_equal(images, foreign_images(kind, 50, 1))
