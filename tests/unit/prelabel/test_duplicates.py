"""Duplicates in real folders, Parquet and IDX files, from the pictures to the file of duplicates."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prelabel import __main__ as cli
from prelabel.duplicates.fingerprints import Fingerprints, batches_of, fingerprint
from prelabel.duplicates.table import read_duplicates
from prelabel.errors import InputError
from prelabel.progress import Progress
from prelabel.sources import Sample, Source, open_source
from support.datasets import write_idx
from support.pictures import encoded, picture
from support.samples import ListSource


def run(*arguments: object) -> int:
    return cli.main(["duplicates", *(str(one) for one in arguments), "--progress", "none"])


def fingerprints(source: Source, *blocks: range) -> Fingerprints:
    with Progress(len(source), "images", "", mode="none") as report:
        return fingerprint(source, blocks or [range(len(source))], 2, report)


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    """Six different pictures, and copies of three of them."""
    folder = tmp_path / "pile"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(encoded(picture(i)))
    (folder / "7-same-bytes.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "7-same-pixels.bmp").write_bytes(encoded(picture(1), "BMP"))
    (folder / "8-jpeg.jpg").write_bytes(encoded(picture(2), "JPEG", quality=80))
    (folder / "8-small.png").write_bytes(encoded(picture(3).resize((40, 40))))
    (folder / "8-small-again.png").write_bytes(encoded(picture(3).resize((40, 40)), compress_level=1))
    return folder


def test_copies_are_found_in_whatever_file(pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "duplicates.parquet"
    assert run("--input", pile, "--output", output) == 0
    assert capsys.readouterr().out == f"11 images: 2 exact and 3 near duplicates in {output}\n"
    rows = {row["id"]: row for row in pq.read_table(output).to_pylist()}
    assert {identity: (row["duplicate_of"], row["kind"]) for identity, row in rows.items()} == {
        "7-same-bytes.png": ("1.png", "exact"),
        "7-same-pixels.bmp": ("1.png", "exact"),
        "8-jpeg.jpg": ("2.png", "near"),
        "8-small.png": ("3.png", "near"),
        "8-small-again.png": ("3.png", "near"),
    }
    assert all(row["distance"] <= (4 if row["kind"] == "near" else 0) for row in rows.values())


def test_exact_only(pile: Path, tmp_path: Path) -> None:
    output = tmp_path / "duplicates.parquet"
    assert run("--input", pile, "--output", output, "--exact-only") == 0
    table, info = read_duplicates(output)
    # Without near-duplicates the second small file is a copy of the first one.
    assert list(
        zip(*(table[name].to_pylist() for name in ("id", "duplicate_of", "distance", "kind")), strict=True)
    ) == [
        ("7-same-bytes.png", "1.png", 0, "exact"),
        ("7-same-pixels.bmp", "1.png", 0, "exact"),
        ("8-small.png", "8-small-again.png", 0, "exact"),
    ]
    assert (info.exact, info.near, info.distance, info.difference) == (3, 0, None, None)


def test_the_file_says_what_it_is_about(pile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pile / "empty.png").touch()
    (pile / "0-cut-off.png").write_bytes((pile / "0.png").read_bytes()[:60])
    output = tmp_path / "duplicates.parquet"
    assert run("--input", pile, "--output", output, "--distance", 0, "--difference", 0) == 0
    assert "2 images could not be decoded and were left out" in capsys.readouterr().out
    table, info = read_duplicates(output)
    assert [(field.name, str(field.type), field.nullable) for field in table.schema] == [
        ("id", "string", False),
        ("duplicate_of", "string", False),
        ("distance", "int32", False),
        ("kind", "string", False),
    ]
    assert info.manifest_hash == open_source(pile).manifest_hash
    assert (info.images, info.unreadable, info.exact, info.near) == (13, 2, 3, 0)
    assert (info.distance, info.difference) == (0, 0.0)
    assert json.loads(table.schema.metadata[b"prelabel"])["kind"] == "duplicates"


def test_no_duplicates_are_a_file_without_rows(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12)).astype(np.uint8)
    write_idx(tmp_path / "x-images-idx3-ubyte.gz", images)
    assert run("--input", tmp_path / "x-images-idx3-ubyte.gz", "--output", tmp_path / "out.parquet") == 0
    assert read_duplicates(tmp_path / "out.parquet")[0].num_rows == 0


def test_only_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "pile").mkdir()
    for name in "abc":
        (tmp_path / "pile" / f"{name}.png").write_bytes(b"the same rubbish")
    assert run("--input", tmp_path / "pile", "--output", tmp_path / "out.parquet") == 0
    assert read_duplicates(tmp_path / "out.parquet")[1].unreadable == 3


def test_parquet_and_idx_have_the_fingerprints_of_the_files(tmp_path: Path) -> None:
    pixels = np.stack([np.asarray(picture(i, 28).convert("L")) for i in range(600)])
    write_idx(tmp_path / "x-images-idx3-ubyte.gz", pixels)
    (tmp_path / "pile").mkdir()
    files = [encoded(Image.fromarray(one)) for one in pixels]
    for i, file in enumerate(files):
        (tmp_path / "pile" / f"{i:04d}.png").write_bytes(file)
    pq.write_table(pa.table({"image": files}), tmp_path / "x.parquet")
    of_idx, of_folder, of_parquet = (
        fingerprints(open_source(tmp_path / name)) for name in ("x-images-idx3-ubyte.gz", "pile", "x.parquet")
    )
    for other in (of_folder, of_parquet):
        assert other.positions.tolist() == list(range(600))
        assert (other.digests == of_idx.digests).all()
        assert (other.hashes == of_idx.hashes).all()
        assert (other.thumbnails == of_idx.thumbnails).all()
    assert len(set(of_idx.hashes.tolist())) == 600
    some = fingerprints(open_source(tmp_path / "pile"), range(10, 20), range(300, 590))
    assert some.positions.tolist() == [*range(10, 20), *range(300, 590)]
    assert some.ids == tuple(f"{i:04d}.png" for i in some.positions)
    assert (some.hashes == of_idx.hashes[some.positions]).all()


def test_colour_brightness_and_flat_pictures_are_told_apart(tmp_path: Path) -> None:
    """The hash alone does not see any of it."""
    (tmp_path / "pile").mkdir()
    red = picture(0).getchannel("R")
    black = Image.new("L", red.size)
    pictures = {
        "red": Image.merge("RGB", (red, black, black)),
        "green": Image.merge("RGB", (black, red, black)),
        "dark": red.point(lambda value: value // 2),
        "bright": red.point(lambda value: 128 + value // 2),
        "black": black,
        "white": Image.new("L", red.size, 255),
        "black-again": Image.new("RGB", red.size),
        "black-smaller": Image.new("RGB", (9, 9)),
    }
    for name, image in pictures.items():
        (tmp_path / "pile" / f"{name}.png").write_bytes(encoded(image))
    assert run("--input", tmp_path / "pile", "--output", tmp_path / "out.parquet") == 0
    found = [
        (row["id"], row["duplicate_of"], row["kind"]) for row in pq.read_table(tmp_path / "out.parquet").to_pylist()
    ]
    assert found == [
        ("black-smaller.png", "black-again.png", "near"),
        ("black.png", "black-again.png", "exact"),
    ]
    prints = fingerprints(open_source(tmp_path / "pile"))
    by_name = dict(zip(prints.ids, prints.hashes.tolist(), strict=True))
    assert (by_name["red.png"] ^ by_name["green.png"]).bit_count() <= 4
    assert (by_name["dark.png"] ^ by_name["bright.png"]).bit_count() <= 4
    assert by_name["black.png"] == by_name["white.png"]


def test_a_file_of_somebody_else_is_not_replaced(pile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pile.parent / "labels.parquet"
    pq.write_table(pa.table({"label": ["cat"]}), table)
    before = table.read_bytes()
    assert run("--input", pile, "--output", table) == 2
    assert "is no file of duplicates" in capsys.readouterr().err
    assert table.read_bytes() == before
    assert run("--input", pile, "--output", pile.parent / "nowhere" / "x.parquet") == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    pile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not even root may write there.
    assert run("--input", pile, "--output", "/proc/self/d.parquet") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --output /proc/self/d.parquet: folder /proc/self cannot be written: ")
    assert "fingerprints" not in error


def test_an_earlier_result_is_replaced(pile: Path) -> None:
    output = pile.parent / "out.parquet"
    assert run("--input", pile, "--output", output) == 0
    (pile / "7-same-bytes.png").unlink()
    assert run("--input", pile, "--output", output) == 0
    assert read_duplicates(output)[1].exact == 1


def test_large_files_are_worked_on_in_smaller_batches() -> None:
    class Photos(ListSource):
        def read(self, start: int, stop: int) -> Iterator[Sample]:
            return (dataclasses.replace(one, content=bytes(20 << 20)) for one in super().read(start, stop))

    found = [(rows, [one.id for one in batch]) for rows, batch in batches_of(Photos(12), [range(1, 7), range(8, 10)])]
    assert [rows for rows, _ in found] == [range(1, 5), range(5, 7), range(8, 10)]
    assert all(ids == [f"{i:05d}" for i in rows] for rows, ids in found)


def test_a_source_that_ends_early_is_an_error(pile: Path) -> None:
    source = open_source(pile)
    with pytest.raises(InputError, match="the input ended at image 11 of 12"):
        fingerprints(source, range(12))
