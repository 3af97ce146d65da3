"""Which shape images are brought to."""

import io
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prelabel.errors import InputError
from prelabel.sources import Sample
from training import collect
from training.collect import Collector, choose_spec, warn_of_flat
from training.dataset import load_dataset


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


def test_more_images_than_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "machine_memory_bytes", lambda: collect.COPIES * 10 * 16 * 16)
    for most, fits in ((10, True), (11, False)):
        collector = Collector(16, most)
        for sample in samples([(16, 16)] * 3):
            collector.add(sample)
        if fits:
            assert collector.finish()[1].shape == (3, 16, 16, 1)
        else:
            with pytest.raises(
                InputError, match=r"train on 11 images of 16 x 16 x 1 .* --max-unlabelled or --image-size"
            ):
                collector.finish()


@pytest.mark.parametrize(("flat", "told"), [(5, False), (6, True)])
def test_images_that_show_nothing_are_told_where_they_are_most(
    flat: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    faint = np.tile(np.linspace(100, 130, 12, dtype=np.uint8), (10, 12, 1))[..., None]
    faint[-flat:] = 7
    with caplog.at_level(logging.WARNING):
        warn_of_flat("images", faint, [f"{number}.png" for number in range(10)])
    assert (
        f"60 % of the images are almost of one colour as they are read, for example {10 - flat}.png" in caplog.text
    ) is told


def test_large_files_are_decoded_by_several_threads_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "WAITING_BYTES", 30_000)
    monkeypatch.setattr(collect, "CHUNK_BYTES", 60_000)
    monkeypatch.setattr(collect, "LARGE_FILE_BYTES", 100)
    decoders = set()
    real = Sample.pixels
    monkeypatch.setattr(Sample, "pixels", lambda one, spec: decoders.add(threading.get_ident()) or real(one, spec))
    counted: list[int] = []
    collector = Collector(16, 40, counted.append)
    for number in range(40):
        file = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (80, 80)).astype(np.uint8)
        Image.fromarray(noise // 8 + 5 * number).save(file, "PNG")
        content = file.getvalue() if number != 20 else b"no image"
        collector.add(Sample(f"{number}", f"{number}", content, "a"))
    _, images = collector.finish()
    means = images.mean(axis=(1, 2, 3))
    assert [round((mean - 15.5) / 5) for mean in means if mean] == [number for number in range(40) if number != 20]
    assert list(collector.failed) == [20]
    assert sum(counted) == 40
    assert threading.get_ident() not in decoders


def test_labelled_images_that_show_nothing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ink on transparent ground, beside a pile that was flattened before."""
    for number, folder in enumerate(("labelled/a", "labelled/b", "unlabelled")):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(6 if folder == "unlabelled" else 3):
            pixels = np.random.default_rng(3 * number + i).integers(0, 256, (10, 12)).astype(np.uint8)
            image = Image.fromarray(pixels) if folder == "unlabelled" else Image.new("LA", (12, 10), (0, 200))
            image.save(tmp_path / folder / f"{i}.png")
    load_dataset(tmp_path, label_count=None, seed=0)
    assert "100 % of the labelled images are almost of one colour" in caplog.text
    assert "unlabelled images are almost" not in caplog.text
