"""Batches ahead of the model: cut alike from every source, bounded in number and in bytes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prelabel.decoders import decoded_by_processes
from prelabel.errors import (
    InputError,
)
from prelabel.feed import Cut, decoded_by_threads, pixel_batches
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch
from prelabel.sources import IdxSource
from support.bulk_runs import bulk, rows
from support.datasets import write_idx
from support.samples import SPEC, ListModel, ListPredictor, ListSource, answer_for


@pytest.mark.parametrize("spec", [SPEC, ImageSpec(5, 3, 3)])
def test_pixels_that_need_no_decoding_give_the_batches_of_their_samples(tmp_path: Path, spec: ImageSpec) -> None:
    write_idx(tmp_path / "a-images-idx3-ubyte.gz", np.random.default_rng(0).integers(0, 256, (25, 2, 2), np.uint8))
    source, cut = IdxSource(tmp_path / "a-images-idx3-ubyte.gz"), Cut(spec, shard_size=10, batch_size=4)
    missing = [range(10), range(20, 25)]
    pairs = list(zip(pixel_batches(source, missing, cut), decoded_by_threads(source, missing, cut, 2), strict=True))
    assert len(pairs) == 5
    for fast, plain in pairs:
        assert fast.batch == plain.batch
        np.testing.assert_array_equal(fast.pixels, plain.pixels)
    with pytest.raises(InputError, match="the input ended at image 25, before image 28"):
        list(pixel_batches(source, [range(20, 30)], cut))


@pytest.mark.parametrize(("window", "threads"), [(1, 1), (4, 2)])
def test_reading_ahead_is_bounded(tmp_path: Path, window: int, threads: int) -> None:
    source, ahead = ListSource(400), []

    class Watching(ListPredictor):
        def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
            for answer in super().predict_stream(batches, window):
                ahead.append(source.read_count - len(self.predicted))
                yield answer

    bulk(tmp_path / "out", source, Watching(), window=window, decode_threads=threads)
    assert len(ahead) == 120  # shards of ten are batches of 4, 4 and 2
    # In flight, decoded or being decoded, and the one that is being read.
    assert 0 < max(ahead) <= 4 * (window + 2 * threads + 1)


class Photos(ListSource):
    """Files of 20 MiB, which are no images."""

    def read(self, start: int, stop: int) -> Iterator[Any]:
        for sample in super().read(start, stop):
            yield dataclasses.replace(sample, content=bytes(20 << 20))


def test_large_files_make_smaller_batches_and_the_same_shards(tmp_path: Path) -> None:
    predictor = ListPredictor()
    summary = bulk(tmp_path / "out", Photos(25), predictor, batch_size=8)
    assert predictor.batch_sizes == [4, 4, 2, 4, 4, 2, 4, 1]  # of 80 MiB: the one that reaches 64 MiB is the last
    assert (summary.errors, summary.shards_written) == (25, 3)
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"{i:05d}" for i in range(25)]
    cut = Cut(SPEC, shard_size=10, batch_size=8)
    for decoded in (decoded_by_threads, decoded_by_processes):
        found = [len(one.batch.ids) for one in decoded(Photos(25), [range(10), range(20, 25)], cut, 1)]
        assert found == [4, 4, 2, 4, 1]


def test_batches_are_no_larger_than_the_server_and_memory_allow(tmp_path: Path) -> None:
    predictor = ListPredictor(ListModel(max_request_images=3))
    bulk(tmp_path / "small", ListSource(33), predictor)
    assert max(predictor.batch_sizes) == 3

    class Large(ListSource):
        def read(self, start: int, stop: int) -> Iterator[Any]:
            for sample in super().read(start, stop):
                yield dataclasses.replace(sample, content=np.zeros((2000, 1500, 3), np.uint8))

    class Sizes(ListPredictor):
        def _answer(self, batch: Pixels) -> PredictionBatch:
            self.batch_sizes.append(len(batch))
            return answer_for(range(len(batch)), "model-1")

    large = Sizes(ListModel(input=ImageSpec(2000, 1500, 3)))
    bulk(tmp_path / "large", Large(3), large)
    assert large.batch_sizes == [1, 1, 1]  # of 9 MB
