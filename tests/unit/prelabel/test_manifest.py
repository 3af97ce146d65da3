"""What a later run says about an input that changed."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.errors import InputError
from prelabel.manifest import MANIFEST_FILE, what_changed, write_manifest
from prelabel.sources import FolderSource, open_source
from prelabel.storage_local import LocalStorage
from prelabel.table import read_predictions
from support.datasets import write_idx
from support.samples import ListPredictor


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def label(pile: Path, output: Path, **options: bool) -> None:
    run_bulk(BulkConfig(output, **options), FolderSource(pile), str(pile), ListPredictor(), progress="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("added", "removed", "grown", "wanted"),
    [
        (["d.png"], [], [], "1 added (d.png)"),
        ([f"{i}.png" for i in range(5)], [], [], "5 added (0.png, 1.png, 2.png, ...)"),
        ([], ["a.png"], [], "1 removed (a.png)"),
        ([], [], ["b.png"], "1 of another size (b.png)"),
        (["x/d.png"], ["a.png"], ["b.png"], "1 added (x/d.png), 1 removed (a.png), 1 of another size (b.png)"),
        ([], [], [], "the same names and sizes, in another order or with other contents"),
    ],
)
def test_what_changed_is_counted_and_named(
    tmp_path: Path, added: list[str], removed: list[str], grown: list[str], wanted: str
) -> None:
    pile, output = fill(tmp_path / "pile", "a.png", "b.png", "c.png"), LocalStorage(tmp_path)
    before = FolderSource(pile)
    write_manifest(output, before, before.manifest_hash, str(pile))
    fill(pile, *added)
    for name in removed:
        (pile / name).unlink()
    for name in grown:
        (pile / name).write_bytes(b"much longer")
    assert what_changed(output, before.manifest_hash, FolderSource(pile)) == wanted
    assert what_changed(output, "another input's", FolderSource(pile)) is None
    (tmp_path / MANIFEST_FILE).write_bytes(b"damaged")
    assert what_changed(output, before.manifest_hash, FolderSource(pile)) is None


def test_a_run_on_a_grown_input_says_what_is_new_and_changes_nothing(tmp_path: Path) -> None:
    pile, output = fill(tmp_path / "pile", "a.png", "c.png"), tmp_path / "out"
    label(pile, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert MANIFEST_FILE in before
    fill(pile, "b.png")
    with pytest.raises(InputError, match=r"as it was \(2 images.*\): 1 added \(b\.png\): choose another .*--overwrite"):
        label(pile, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    label(pile, output, overwrite=True)
    assert read_predictions(output)["id"].to_pylist() == ["a.png", "b.png", "c.png"]
    fill(pile, "d.png")
    with pytest.raises(InputError, match=r"1 added \(d\.png\)"):
        label(pile, output)


def test_a_manifest_that_a_kill_prevented_is_made_by_the_next_run(tmp_path: Path) -> None:
    pile, output = fill(tmp_path / "pile", "a.png"), tmp_path / "out"
    label(pile, output)
    (output / MANIFEST_FILE).unlink()
    label(pile, output)
    fill(pile, "b.png")
    with pytest.raises(InputError, match=r"1 added \(b\.png\)"):
        label(pile, output)


def test_names_that_are_not_utf8_are_kept_escaped(tmp_path: Path) -> None:
    output, images = LocalStorage(tmp_path), np.zeros((1, 2, 2), np.uint8)
    write_idx(tmp_path / "\udcff-images-idx3-ubyte.gz", images)
    with (tmp_path / "\udcff.npz").open("wb") as file:
        np.savez(file, images=images)
    for name in ("\udcff-images-idx3-ubyte.gz", "\udcff.npz"):
        write_manifest(output, open_source(tmp_path / name), "hash", name)
        assert pq.read_table(tmp_path / MANIFEST_FILE)["name"].to_pylist() == [name.replace("\udcff", "\\xff")]


def test_an_input_larger_than_one_batch_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prelabel.manifest._ROWS_AT_ONCE", 2)
    pile, output = fill(tmp_path / "pile", *(f"{i}.png" for i in range(5))), LocalStorage(tmp_path)
    before = FolderSource(pile)
    write_manifest(output, before, before.manifest_hash, str(pile))
    fill(pile, "5.png")
    assert what_changed(output, before.manifest_hash, FolderSource(pile)) == "1 added (5.png)"
