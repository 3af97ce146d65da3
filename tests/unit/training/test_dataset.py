import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prelabel.errors import InputError
from prelabel.sources import open_source
from training import collect
from training.dataset import class_names, load_dataset, load_test


def png(value: int = 200, size: tuple[int, int] = (12, 10), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 10, 10)).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, classes: dict[str, int], unlabelled: int = 5, mode: str = "L") -> Path:
    for name, count in classes.items():
        (root / "labelled" / name).mkdir(parents=True)
        for i in range(count):
            (root / "labelled" / name / f"{i}.png").write_bytes(png(10 * i, mode=mode))
    (root / "unlabelled" / "deeper").mkdir(parents=True)
    for i in range(unlabelled):
        (root / "unlabelled" / "deeper" / f"{i}.jpg").write_bytes(png(7 * i, mode=mode))
    return root


def load(path: Path | str, **options: object):  # type: ignore[no-untyped-def]
    return load_dataset(path, **{"label_count": None, "seed": 0, **options})  # type: ignore[arg-type]


def test_a_folder_gives_classes_by_name_and_the_pile(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, {"dog": 3, "cat": 2})).training
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.spec.channels == 1
    assert len(data.unlabelled) == 5


@pytest.mark.parametrize(("unlabelled", "pile"), [(3, 8), (5, 5)])
def test_a_pile_smaller_than_what_is_labelled_gets_it_too(unlabelled: int, pile: int, tmp_path: Path) -> None:
    """Few images of the pile may be of one class, and each step asks for all."""
    data = load(write_folder(tmp_path, {"a": 3, "b": 2}, unlabelled)).training
    assert (len(data.labelled), len(data.unlabelled)) == (5, pile)


def test_colour_images_give_three_channels(tmp_path: Path) -> None:
    assert load(write_folder(tmp_path, {"a": 2, "b": 2}, mode="RGB")).training.spec.channels == 3


def test_a_test_folder_is_the_test_split_and_no_part_of_training(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    shutil.copytree(tmp_path / "labelled", tmp_path / "test")
    dataset = load(tmp_path)
    assert len(dataset.training.labelled) == 4
    test, skipped = load_test(dataset.test_source, dataset.training)
    assert (test.labels.tolist(), skipped) == ([0, 0, 1, 1], ())


def test_parquet_with_null_labels(tmp_path: Path) -> None:
    table = {"image": [png(i) for i in range(6)], "label": ["x", None, "y", None, "x", None]}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    data = load(tmp_path / "train.parquet").training
    assert data.classes == ("x", "y")
    assert (data.labels.tolist(), len(data.unlabelled)) == ([0, 1, 0], 3)


def test_numbers_are_ordered_as_numbers() -> None:
    assert class_names(["10", "9", "2"]) == ("2", "9", "10")
    assert class_names(["b10", "b9"]) == ("b10", "b9")


@pytest.mark.parametrize("labels", [6, 7, 30])
def test_a_label_draw_is_balanced_and_decided_by_the_seed(labels: int, idx_dataset: Path) -> None:
    first, again, other = (load(idx_dataset, label_count=labels, seed=s).training for s in (1, 1, 2))
    counts = np.bincount(first.labels, minlength=3)
    assert counts.sum() == labels
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(first.labelled, again.labelled)
    assert (first.labelled != other.labelled).any()


def test_a_draw_hides_every_other_label(idx_dataset: Path) -> None:
    dataset = load(idx_dataset, label_count=6)
    assert len(dataset.training.labels) == 6
    assert dataset.hidden is not None
    assert len(dataset.hidden.labels) == 240 - 6
    assert len(dataset.training.unlabelled) == 240


def test_a_broken_image_is_skipped_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 2})
    (tmp_path / "labelled/a/1.png").write_bytes(png()[:40])
    (tmp_path / "unlabelled/deeper/3.jpg").write_bytes(b"")
    dataset = load(tmp_path)
    assert dataset.training.labels.tolist() == [0, 0, 1, 1]
    assert len(dataset.training.unlabelled) == 4
    assert sorted(Path(reason.split(": ")[0]).name for reason in dataset.skipped) == ["1.png", "3.jpg"]


def test_max_unlabelled_keeps_a_spread_of_the_pile(idx_dataset: Path) -> None:
    assert len(load(idx_dataset, label_count=6, max_unlabelled=50).training.unlabelled) == 50


def test_max_unlabelled_bounds_the_labelled_images_beside_the_pile_where_labels_are_drawn(idx_dataset: Path) -> None:
    dataset = load(idx_dataset, label_count=6, max_unlabelled=50)
    assert dataset.hidden is not None
    assert len(dataset.training.labels) + len(dataset.hidden.labels) == 100
    assert len(load(idx_dataset, max_unlabelled=50).training.labels) == 240


def test_labelled_images_that_are_all_kept_take_no_place_of_the_pile(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 20, "b": 20}, unlabelled=10)
    for most, kept in ((50, 10), (12, 10), (5, 5), (1, 1)):
        training = load(tmp_path, max_unlabelled=most).training
        # A pile as small as this one gets the labelled images as well.
        assert (len(training.labels), len(training.unlabelled)) == (40, 40 + kept)


def test_where_labels_come_late_the_pile_gives_the_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"image": [png(size=(20 if i < 8 else 30, 18)) for i in range(10)], "label": [*[None] * 8, "x", "y"]}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    assert load(tmp_path / "train.parquet").training.spec.shape == (18, 30, 1)
    monkeypatch.setattr(collect, "WAITING_BYTES", 100)
    assert load(tmp_path / "train.parquet").training.spec.shape == (18, 20, 1)


def test_files_of_a_large_data_set_are_not_all_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"a": 4, "b": 4}, unlabelled=8)
    (tmp_path / "unlabelled/deeper/3.jpg").write_bytes(b"")
    whole = load(tmp_path)
    monkeypatch.setattr(collect, "WAITING_BYTES", 100)
    chosen = []
    choose = collect.choose_spec
    monkeypatch.setattr(
        collect, "choose_spec", lambda samples, size: chosen.append(len(samples)) or choose(samples, size)
    )
    streamed = load(tmp_path)
    assert chosen[0] < 8
    assert streamed.skipped == whole.skipped
    for name in ("labelled", "labels", "unlabelled"):
        np.testing.assert_array_equal(getattr(streamed.training, name), getattr(whole.training, name))


def test_images_that_are_not_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "unlabelled/photo.heic").write_bytes(b"x")
    load(tmp_path)
    assert "1 .heic" in caplog.text


def no_labelled_folder(path: Path) -> None:
    write_folder(path, {"a": 2, "b": 2})
    shutil.rmtree(path / "labelled")


def empty_labelled_folder(path: Path) -> None:
    (path / "labelled").mkdir()


def one_class(path: Path) -> None:
    write_folder(path, {"only": 4})


def class_of_broken_images(path: Path) -> None:
    write_folder(path, {"good": 3, "broken": 1})
    (path / "labelled/broken/0.png").write_bytes(b"no image")


def broken_pile(path: Path) -> None:
    write_folder(path, {"a": 2, "b": 2})
    for image in path.rglob("unlabelled/**/*.jpg"):
        image.write_bytes(b"")


def all_broken(path: Path) -> None:
    write_folder(path, {"a": 1, "b": 1})
    for image in path.rglob("labelled/*/*.png"):
        image.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_labelled_folder, "is no data set"),
        (empty_labelled_folder, "0 labelled classes"),
        (one_class, r"1 labelled classes \(only\)"),
        (class_of_broken_images, r"class 'broken' has no image that can be decoded, for example .*broken/0\.png: "),
        (all_broken, r"none of the 2 labelled images can be decoded, for example .*0\.png: "),
        (broken_pile, r"none of the 5 unlabelled images can be decoded, for example .*\.jpg"),
    ],
)
def test_unusable_folders_are_clear_errors(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_too_few_labels_name_the_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"many": 9, "few": 2})
    with pytest.raises(InputError, match=r"class 'few' has 2 usable labels, but --labels 10 over 2 classes wants 5"):
        load(tmp_path, label_count=10)
    with pytest.raises(InputError, match="less than one for each of the 2 classes"):
        load(tmp_path, label_count=1)


def test_a_missing_path_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nothing")


def test_test_images_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    shutil.copytree(tmp_path / "labelled", tmp_path / "test")
    (tmp_path / "test/a").rename(tmp_path / "test/new")
    (tmp_path / "test/b/0.png").write_bytes(png()[:40])
    dataset = load(tmp_path)
    test, skipped = load_test(dataset.test_source, dataset.training)
    assert test.labels.tolist() == [1]
    assert [Path(reason.split(": ")[0]).name for reason in skipped] == ["0.png", "0.png", "1.png"]
    assert sum("label 'new'" in reason for reason in skipped) == 2


def test_images_without_a_class_folder_and_empty_classes_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "labelled/loose.png").write_bytes(png())
    (tmp_path / "labelled/empty").mkdir()
    assert load(tmp_path).training.classes == ("a", "b")
    assert "1 images lie in" in caplog.text
    assert "no class 'empty'" in caplog.text


@pytest.mark.parametrize("kind", ["tar", "npz", "memory"])
def test_training_and_bulk_work_read_the_same_images_in_the_same_order(tmp_path: Path, kind: str) -> None:
    labels = ["cat", "dog", None, None, None]
    images = [np.full((10, 12), 20 * i, np.uint8) for i in range(5)]
    if kind == "npz":
        where: str | Path = tmp_path / "x.npz"
        np.savez(where, images=np.stack(images), labels=np.array([label or "" for label in labels]))
    elif kind == "tar":
        where = tmp_path
        with tarfile.open(tmp_path / "train.tar", "w") as shard, tarfile.open(tmp_path / "test.tar", "w") as test:
            for i, label in enumerate(labels):
                members = {f"{i}.png": png(20 * i)} | ({f"{i}.cls": label.encode()} if label else {})
                for name, content in members.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    for archive in (shard, test):
                        archive.addfile(member, io.BytesIO(content))
    else:
        where = "memory://training"
        store = fsspec.filesystem("memory")
        for i, label in enumerate(labels):
            folder = f"labelled/{label}" if label else "unlabelled"
            store.pipe_file(f"/training/{folder}/{i}.png", png(20 * i))
    dataset = load(where)
    assert dataset.training.classes == ("cat", "dog")
    shown = dict(zip(dataset.training.labelled[:, 0, 0, 0].tolist(), dataset.training.labels.tolist(), strict=True))
    assert shown == {0: 0, 20: 1}
    assert dataset.training.unlabelled[:, 0, 0, 0].tolist() == [40, 60, 80]
    assert (dataset.test_source is not None) == (kind == "tar")
    source = open_source(tmp_path / "train.tar" if kind == "tar" else where)
    assert source.manifest_hash == dataset.manifest_hash
    assert sorted(str(one.label) for one in source.read(0, 5)) == sorted(map(str, labels))


def test_a_folder_of_train_and_test_npz_is_a_data_set(tmp_path: Path) -> None:
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((4, 10, 12), np.uint8), labels=[0, 1, 0, 1])
    dataset = load(tmp_path)
    assert dataset.test_source is not None
    assert len(dataset.test_source) == len(dataset.training.labels) == 4


def test_a_draw_from_a_part_of_a_huge_data_set_has_every_class(tmp_path: Path) -> None:
    """Classes lie one behind the other: neither the spread nor the first ones have enough of each."""
    labels = [f"{i // 40:02d}" for i in range(400)]
    table = pa.table({"image": [png(i % 200) for i in range(400)], "label": labels})
    pq.write_table(table, tmp_path / "train.parquet")
    for count in (10, 55):
        training = load(tmp_path, label_count=count, max_unlabelled=7).training
        assert len(training.classes) == 10
        assert np.bincount(training.labels).min() == count // 10
        assert len(training.unlabelled) == 7
