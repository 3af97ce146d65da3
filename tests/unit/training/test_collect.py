"""Which shape images are brought to."""

import io
from collections.abc import Iterable

import pytest
from PIL import Image

from prelabel.sources import Sample
from training.collect import choose_spec


def samples(sizes: Iterable[tuple[int, int]]) -> list[Sample]:
    """Grey images of (width, height) pixels."""
    found = []
    for number, size in enumerate(sizes):
        file = io.BytesIO()
        Image.new("L", size, 200).save(file, "PNG")
        found.append(Sample(f"{number}.png", f"{number}.png", file.getvalue(), "a"))
    return found


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((28, 28), (28, 28)),
        ((256, 128), (32, 64)),
        ((8, 8), (16, 16)),
        ((12, 10), (16, 19)),
        ((24, 6), (16, 64)),
        ((200, 10), (8, 64)),
    ],
)
def test_images_have_16_to_64_px_and_long_ones_64_first(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert choose_spec(samples([size, size]), None).shape == (*shape, 1)
    for side in (8, 20, 100):
        assert choose_spec(samples([size, size]), side).shape == (side, side, 1)


def test_where_sizes_differ_no_odd_image_decides() -> None:
    spec = choose_spec(samples([(320, 20), *((30 + n, 28 + n) for n in range(1, 12))]), None)
    assert 28 <= spec.height <= 40
    assert 30 <= spec.width <= 42


def test_a_size_that_many_images_have_is_taken() -> None:
    sizes = [(20, 16) if n % 3 == 0 else (30 + n, 28 + n) for n in range(12)]
    assert choose_spec(samples(sizes), None).shape == (16, 20, 1)
