"""Any number of images is run in a few batch sizes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.engine_base import PADDING_SHARE, Raw, bucket_sizes, pieces, predict_in_buckets
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
