"""TIFF and BMP files that would take time or memory without taking bytes, and odd EXIF."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from prelabel.errors import ImageError
from prelabel.images import ImageSpec, decode_image

SPEC = ImageSpec(8, 8, 1)
LONG = 4


def tiff(width: int, height: int, tile: tuple[int, int], *more: tuple[int, int, int], order: str = "<") -> bytes:
    """A grey TIFF file whose tiles all have the same bytes; `more` are tags behind the others."""
    packed = zlib.compress(bytes(tile[0] * tile[1]))
    tiles = -(-width // tile[0]) * -(-height // tile[1])
    tags = [(256, LONG, width), (257, LONG, height), (258, LONG, 8), (259, LONG, 8), (262, LONG, 1), (277, LONG, 1)]
    tags += [(322, LONG, tile[0]), (323, LONG, tile[1])]
    lists = 10 + 12 * (len(tags) + 2 + len(more)) + 4
    where, sizes = [lists + 8 * tiles] * tiles, [len(packed)] * tiles
    entries = [struct.pack(order + "HHII", tag, kind, 1, value) for tag, kind, value in tags]
    for tag, values, place in ((324, where, lists), (325, sizes, lists + 4 * tiles)):
        entries.append(struct.pack(order + "HHII", tag, LONG, tiles, values[0] if tiles == 1 else place))
    entries += [struct.pack(order + "HHII", tag, kind, 1, value) for tag, kind, value in more]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return (
        head
        + b"".join(entries)
        + struct.pack(order + "I", 0)
        + struct.pack(f"{order}{2 * tiles}I", *where, *sizes)
        + packed
    )


def bmp(width: int, height: int, rows: bytes) -> bytes:
    """A run-length coded BMP file."""
    palette = b"".join(struct.pack("<I", grey * 0x010101) for grey in range(256))
    start = 14 + 40 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + palette + rows


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [(16, 16), (100, 300), (1000, 700)])
def test_tiles_that_cover_the_picture_are_decoded(size: tuple[int, int], order: str) -> None:
    assert decode_image(tiff(*size, (256, 256), order=order), SPEC, max_pixels=1_000_000).shape == SPEC.shape


def test_a_tile_far_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="tiles of the TIFF file have 4194304 pixels, over the limit of 1173576"):
        decode_image(tiff(16, 16, (2048, 2048)), SPEC, max_pixels=100_000)


def test_many_tiles_of_the_same_bytes_are_counted_each() -> None:
    many = tiff(16, 16_000, (65_536, 16))
    assert len(many) < 20_000
    with pytest.raises(ImageError, match="tiles of the TIFF file have 1048576000 pixels, over the limit"):
        decode_image(many, SPEC)


@pytest.mark.parametrize("again", [(322, LONG, 16), (323, LONG, 16), (322, 99, 16)])
def test_tiles_of_two_sizes_are_refused(again: tuple[int, int, int]) -> None:
    with pytest.raises(ImageError, match="states the size of its tiles twice"):
        decode_image(tiff(16, 16, (2048, 2048), again), SPEC)


@pytest.mark.parametrize("tile", [(16, 0), (0, 16)])
def test_tiles_without_a_size_are_refused(tile: tuple[int, int]) -> None:
    data = tiff(16, 16, (16, 16))
    for tag, side in zip((322, 323), tile, strict=True):
        data = data.replace(struct.pack("<HHII", tag, LONG, 1, 16), struct.pack("<HHII", tag, LONG, 1, side))
    with pytest.raises(ImageError, match=f"tiles of {tile[0]} x {tile[1]} pixels"):
        decode_image(data, SPEC)


def test_big_endian_bigtiff_which_pillow_misreads_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="big-endian BigTIFF files are not read"):
        decode_image(b"MM\0+" + tiff(16, 16, (16, 16), order=">")[4:], SPEC)


def test_run_length_coded_bmp_files_have_a_limit_of_their_own() -> None:
    assert decode_image(bmp(1000, 1000, b"\1\7\0\0" * 1000), SPEC).shape == SPEC.shape
    with pytest.raises(ImageError, match="8000 x 8000 pixels are over the limit of 4194304 pixels of a run-length"):
        decode_image(bmp(8000, 8000, b"\1\7\0\0" * 8000), SPEC)


def test_large_bmp_files_without_runs_are_decoded() -> None:
    file = io.BytesIO()
    Image.new("L", (2100, 2100), 7).save(file, "BMP")
    assert (decode_image(file.getvalue(), SPEC) == 7).all()


@pytest.mark.parametrize(("tag", "value"), [(0x011A, "72"), (0x010F, 3), (0x0128, b"\2")])
def test_odd_values_in_exif_do_not_matter(tag: int, value: object) -> None:
    """Writers give resolutions as text and makers as numbers: the picture is turned all the same."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 200
    kind, content = {str: (2, b"72\0\0"), int: (5, None), bytes: (1, b"\2\0\0\0")}[type(value)]
    entries = struct.pack("<HHI4s", tag, kind, 3 if content == b"72\0\0" else 1, content or struct.pack("<I", 38))
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    both = orientation + entries if tag > 0x0112 else entries + orientation
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + both + struct.pack("<I", 0) + struct.pack("<II", 3, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    turned = decode_image(file.getvalue(), SPEC)[:, :, 0]
    assert turned[:4].min() > 150
    assert turned[4:].max() < 50
