"""The same images under another path are taken up; others of the same names and sizes are not."""

import io
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prelabel.bulk import BulkConfig, BulkSummary, run_bulk
from prelabel.errors import InputError
from prelabel.manifest import CHECKED_IMAGES, MANIFEST_FILE
from prelabel.planning.plan import output_facts
from prelabel.sources import ParquetSource, SpotSource, open_source
from prelabel.storage_local import LocalStorage
from support.samples import ListModel, ListPredictor

COUNT = 200


def write_folder(root: Path, seed: int) -> Path:
    for i in range(COUNT):
        (root / f"{i:03d}.bmp").write_bytes(b"%03d of %d" % (i, seed))
    return root


def write_list(root: Path, seed: int) -> Path:
    write_folder(root, seed)
    (root / "list.txt").write_text("".join(f"{i:03d}.bmp\n" for i in range(COUNT)))
    return root / "list.txt"


def write_tar(root: Path, seed: int) -> Path:
    with tarfile.open(root / "t.tar", "w") as archive:
        for i in range(COUNT):
            member = tarfile.TarInfo(f"{i:03d}.bmp")
            member.size = 8
            archive.addfile(member, io.BytesIO(b"%03d of %d" % (i, seed)))
    return root / "t.tar"


def write_parquet(root: Path, seed: int) -> Path:
    table = pa.table({"image": [b"%03d of %d" % (i, seed) for i in range(COUNT)]})
    pq.write_table(table, root / "t.parquet", 70, use_dictionary=False, compression="none", write_statistics=False)
    return root / "t.parquet"


def label(where: Path | str, output: Path) -> BulkSummary:
    config = BulkConfig(output, shard_size=50)
    return run_bulk(config, open_source(where), str(where), ListPredictor(), progress="none")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return tmp_path / "first", tmp_path / "second"


@pytest.mark.parametrize("write", [write_folder, write_list, write_tar, write_parquet])
def test_other_images_of_the_same_names_and_sizes_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, write: Callable[[Path, int], Path]
) -> None:
    first, same, other = write(folders[0], 1), write(folders[1], 1), folders[1]
    label(first, tmp_path / "out")
    assert label(same, tmp_path / "out").shards_skipped == 4
    other = write(folders[1], 2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert open_source(other).manifest_hash == open_source(first).manifest_hash
    message = (
        rf"input {first}, not {other}, where names .* are the same and the images are not: \d+ of \d+ that .* differ"
    )
    with pytest.raises(
        InputError, match=rf"{message} \(.*\): choose another directory, or start over with --overwrite"
    ):
        label(other, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    facts = output_facts(str(tmp_path / "out"), open_source(other), str(other), ListModel(), 50, None)
    assert re.search(message, str(facts.obstacle))


def test_the_same_name_from_another_directory_is_another_input(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, folder in enumerate(folders):
        (folder / "frames").mkdir()
        write_folder(folder / "frames", seed)
    monkeypatch.chdir(folders[0])
    label("frames", tmp_path / "out")
    label("../first/frames", tmp_path / "out")
    monkeypatch.chdir(folders[1])
    with pytest.raises(InputError, match=rf"input {folders[0]}/frames, not {folders[1]}/frames, where"):
        label("frames", tmp_path / "out")


def test_images_that_cannot_be_read_are_not_compared(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = folders
    write_folder(first, 1)
    for i in range(0, COUNT, 2):
        (first / f"{i:03d}.bmp").unlink()
        (first / f"{i:03d}.bmp").symlink_to("nothing")
    label(first, tmp_path / "out")
    shutil.copytree(first, second, symlinks=True, dirs_exist_ok=True)
    assert label(second, tmp_path / "out").shards_skipped == 4


def test_a_run_from_before_there_were_checks_goes_on(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, other = write_folder(folders[0], 1), write_folder(folders[1], 2)
    label(first, tmp_path / "out")
    kept = pq.read_table(tmp_path / "out" / MANIFEST_FILE)
    metadata = {b"manifest_hash": kept.schema.metadata[b"manifest_hash"]}
    pq.write_table(kept.replace_schema_metadata(metadata), tmp_path / "out" / MANIFEST_FILE)
    assert label(other, tmp_path / "out").shards_skipped == 4


def test_some_images_from_all_over_the_input_are_compared(tmp_path: Path) -> None:
    def spots(source: object) -> list[range]:
        assert isinstance(source, SpotSource)
        return source.spots(CHECKED_IMAGES)

    found = spots(open_source(write_folder(tmp_path, 1)))
    assert [len(rows) for rows in found] == [1] * CHECKED_IMAGES
    assert max(b.start - a.start for a, b in zip([range(0), *found], [*found, range(COUNT, COUNT)], strict=True)) <= 4
    write_parquet(tmp_path, 1)
    # The first rows of the three row groups: to reach a later one, those before it would have to be unpacked.
    tables = spots(ParquetSource(LocalStorage(tmp_path), ["t.parquet"]))
    assert tables == [range(0, 22), range(70, 92), range(140, 162)]


def test_fewer_large_images_are_compared(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prelabel.manifest.CHECKED_BYTES", 50)  # each has eight
    label(write_folder(folders[0], 1), tmp_path / "out")
    with pytest.raises(InputError, match=r"7 of 7 that were compared differ \((\d+\.bmp, ){3}\.\.\.\)"):
        label(write_folder(folders[1], 2), tmp_path / "out")
