"""JPEG files that would take time without taking bytes."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prelabel.errors import ImageError
from prelabel.images import ImageSpec, decode_image
from prelabel.jpeg_scans import has_more_scans

SPEC = ImageSpec(28, 28, 1)


def jpeg(mode: str = "RGB", **how: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **how)
    return file.getvalue()


def with_scans(data: bytes, more: int) -> bytes:
    """The file with its last scan repeated."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * more + data[-2:]


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (jpeg(), 1),
        (jpeg("L", progressive=True), 6),
        (jpeg(progressive=True), 10),
        (jpeg(progressive=True, restart_marker_blocks=2), 10),
        (jpeg(comment=b"\xff\xda" * 90), 1),
        (jpeg() + b"\xff\xda\x00\x02" * 90, 1),
        (with_scans(jpeg("L", progressive=True), 90), 96),
    ],
    ids=["baseline", "grey", "progressive", "restarts", "comment", "bytes behind it", "repeated"],
)
def test_the_scans_of_the_picture_are_counted_and_no_other_bytes(data: bytes, scans: int) -> None:
    assert has_more_scans(data, scans - 1)
    assert not has_more_scans(data, scans)


def test_a_file_with_very_many_scans_is_refused_and_a_usual_one_is_not() -> None:
    plain = jpeg("L", progressive=True)
    with pytest.raises(ImageError, match="more scans than the limit of 64"):
        decode_image(with_scans(plain, 90), SPEC)
    assert decode_image(with_scans(plain, 5), SPEC).shape == SPEC.shape


@given(st.binary(max_size=200), st.integers(0, 3))
def test_whatever_the_bytes_there_are_no_more_scans_than_marks_of_them(data: bytes, most: int) -> None:
    assert has_more_scans(data, most) <= (data.count(b"\xff\xda") > most)
