"""Whatever lies in a pile, by whatever reader it comes: each image is one row, and those that can be decoded are."""

import io
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.sources import open_source
from prelabel.table import read_predictions
from support.samples import ListPredictor


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(Image.new("RGB", (6, 8), "white"), "JPEG", exif=exif)


GOOD = Image.new("RGB", (8, 8))
FRAMES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
CONTENTS: dict[str, tuple[bytes, str | None]] = {
    "16bit.png": (encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16))), None),
    "animated.gif": (encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "more than one frame"),
    "bomb.png": (bomb(), "over the limit of 64000000 pixels: Image size ("),
    "cmyk.jpg": (encode(GOOD.convert("CMYK"), "JPEG"), None),
    "empty.png": (b"", "0 bytes"),
    "good.png": (encode(GOOD), None),
    "palette.png": (encode(GOOD.convert("P")), None),
    "pdf.png": (b"%PDF-1.7 and so on", "not an image in a known format"),
    "rotated.jpg": (rotated(), None),
    "truncated.png": (encode(Image.effect_noise((64, 64), 50))[:2000], "cannot be decoded"),
}


def write_folder(path: Path) -> Path:
    path.mkdir()
    for name, (content, _) in CONTENTS.items():
        (path / name).write_bytes(content)
    return path


def write_tar(path: Path) -> Path:
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        for name, (content, _) in CONTENTS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.with_suffix(".tar")


def write_parquet(path: Path) -> Path:
    table = pa.table({"id": list(CONTENTS), "image": [content for content, _ in CONTENTS.values()]})
    pq.write_table(table, path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def write_list(path: Path) -> Path:
    write_folder(path.with_name("listed"))
    path.with_suffix(".txt").write_text("".join(f"listed/{name}\n" for name in CONTENTS))
    return path.with_suffix(".txt")


@pytest.mark.parametrize("write", [write_folder, write_tar, write_parquet, write_list])
def test_each_bad_image_is_an_error_row_and_each_odd_one_a_prediction(tmp_path: Path, write: object) -> None:
    source = open_source(write(tmp_path / "pile"))  # type: ignore[operator]
    config = BulkConfig(tmp_path / "out", shard_size=4, batch_size=3, decode_threads=2)
    summary = run_bulk(config, source, "pile", ListPredictor(), progress="none")
    rows = read_predictions(tmp_path / "out").to_pylist()
    assert summary.images == len(rows) == len(CONTENTS)
    assert len({row["id"] for row in rows}) == len(rows)
    for row, (name, (_, error)) in zip(rows, CONTENTS.items(), strict=True):
        assert Path(name).stem in row["id"]
        assert (row["error"] is None) == (error is None), row
        assert error is None or error in row["error"]


def test_odd_files_of_a_folder_are_rows_too(tmp_path: Path) -> None:
    pile = write_folder(tmp_path / "pile")
    (pile / "loop").symlink_to(pile)
    (pile / "self.png").symlink_to(pile / "self.png")
    (pile / "gone.png").symlink_to(pile / "nothing")
    os.mkfifo(pile / "pipe.png")
    Path(os.fsdecode(os.fsencode(pile) + b"/\xff\xfe.png")).write_bytes(encode(GOOD))
    config = BulkConfig(tmp_path / "out", decode_threads=1)
    run_bulk(config, open_source(pile), "pile", ListPredictor(), progress="none")
    errors = {row["id"]: row["error"] for row in read_predictions(tmp_path / "out").to_pylist()}
    assert len(errors) == len(CONTENTS) + 4
    assert errors["\\xff\\xfe.png"] is None
    assert errors["self.png"] == "cannot be read: Too many levels of symbolic links"
    assert errors["gone.png"] == "cannot be read: No such file or directory"
    assert errors["pipe.png"] == "cannot be read: not a regular file"
