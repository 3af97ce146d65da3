"""Any number of images is run in a few batch sizes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.engine_base import PADDING_SHARE, Raw, bucket_sizes, pieces, predict_in_buckets, quota_cores
from prelabel.images import ImageSpec, Pixels
from support.engines import ECHO_BUNDLE, marked, marks_of


@given(st.integers(1, 2000), st.integers(1, 300))
def test_pieces_make_up_the_batch_with_little_padding(rows: int, max_batch_size: int) -> None:
    buckets = bucket_sizes(ECHO_BUNDLE, max_batch_size)
    parts = list(pieces(rows, buckets))
    assert sum(taken for taken, _ in parts) == rows
    for taken, bucket in parts:
        assert bucket in buckets
        assert bucket * (1 - PADDING_SHARE) <= taken <= bucket
    assert len(parts) <= rows // buckets[-1] + len(buckets)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (1, [(1, 1)]),
        (3, [(3, 4)]),
        (5, [(4, 4), (1, 1)]),
        (255, [(255, 256)]),
        (600, [(256, 256), (256, 256), (64, 64), (24, 32)]),
    ],
)
def test_pieces_of_some_batches(rows: int, wanted: list[tuple[int, int]]) -> None:
    assert list(pieces(rows, bucket_sizes(ECHO_BUNDLE, 256))) == wanted


def test_batch_sizes_are_powers_of_two_up_to_the_largest_and_fewer_of_large_images() -> None:
    assert bucket_sizes(ECHO_BUNDLE, 1) == (1,)
    assert bucket_sizes(ECHO_BUNDLE, 8) == (1, 2, 4, 8)
    assert bucket_sizes(ECHO_BUNDLE, 12) == (1, 2, 4, 8, 12)
    photos = dataclasses.replace(ECHO_BUNDLE, input=ImageSpec(512, 512, 3))
    assert bucket_sizes(photos, 256) == (1, 2, 4, 8, 10)
    posters = dataclasses.replace(ECHO_BUNDLE, input=ImageSpec(4096, 4096, 3))
    assert bucket_sizes(posters, 256) == (1,)


@given(st.integers(1, 200))
def test_each_image_gets_its_own_answer_and_padding_none(count: int) -> None:
    sizes: list[int] = []

    def echo(images: Pixels) -> Raw:
        sizes.append(len(images))
        marks = images.reshape(len(images), 4).view("<u4").ravel().astype(np.float32)
        return np.stack([marks, marks], axis=1), marks

    buckets = bucket_sizes(ECHO_BUNDLE, 32)
    answer = predict_in_buckets(marked(range(1, count + 1)), ECHO_BUNDLE, buckets, echo)
    assert marks_of(answer) == list(range(1, count + 1))
    assert answer.probabilities.shape == (count, 2)
    assert set(sizes) <= set(buckets)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_container_s_limit_on_processor_time_counts_as_cores(
    files: dict[str, str], cores: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert quota_cores(tmp_path) == cores
