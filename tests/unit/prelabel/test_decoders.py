"""Decoding in other processes: the batches of the threads, and nothing is lost when a process dies."""

import itertools
import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.decoders import decoded_by_processes, stretches
from prelabel.errors import InputError, WorkerError
from prelabel.feed import Cut, Decoded, decoded_by_threads
from prelabel.shards import Run
from prelabel.sources import FolderSource
from prelabel.table import read_predictions
from support.samples import SPEC, ListPredictor, ListSource, write_pile

CUT = Cut(SPEC, shard_size=10, batch_size=4)
MISSING = [range(0, 10), range(10, 20), range(30, 40), range(40, 47)]


def by_shard(batches: Iterable[Decoded]) -> dict[int, list[Decoded]]:
    shards = defaultdict(list)
    for decoded in batches:
        shards[decoded.batch.shard].append(decoded)
    return dict(sorted(shards.items()))


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_yield_the_batches_of_the_threads(tmp_path: Path, processes: int) -> None:
    pile = FolderSource(write_pile(tmp_path / "pile", 47, broken=[3, 30, 31, 32, 33]))
    wanted = by_shard(decoded_by_threads(pile, MISSING, CUT, threads=2))
    found = by_shard(decoded_by_processes(pile, MISSING, CUT, processes))
    assert list(found) == list(wanted) == [0, 1, 3, 4]
    for shard, batches in wanted.items():
        assert [one.batch for one in found[shard]] == [one.batch for one in batches]
        for one, other in zip(found[shard], batches, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)


class Failing(ListSource):
    """Does something at position 25, in the process that reads."""

    def act(self) -> None:
        raise NotImplementedError

    def read(self, start, stop):  # type: ignore[no-untyped-def]
        for sample in super().read(start, stop):
            if sample.id == "00025":
                self.act()
            yield sample


class Dying(Failing):
    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Changed(Failing):
    def act(self) -> None:
        raise InputError("pile changed")


class Away(Failing):
    def act(self) -> None:
        raise OSError(5, "Input/output error")


class Faulty(Failing):
    def act(self) -> None:
        raise IndexError("2 out of bounds")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Faulty(47), WorkerError, "a process that decodes images failed: IndexError: 2 out of bounds"),
        (Dying(47), WorkerError, "a process that decodes images died.*fewer --decode-processes"),
        (Changed(47), InputError, "^pile changed$"),
        (Away(47), OSError, "Input/output error"),
        (ListSource(35), InputError, "the input ended at image 35, before image"),
    ],
)  # fmt: skip
def test_trouble_in_a_process_is_told(source: ListSource, error: type[Exception], message: str) -> None:
    missing = [range(0, 10), range(10, 20), range(20, 30), range(30, 40)]
    with pytest.raises(error, match=message):
        list(decoded_by_processes(source, missing, CUT, 2))


def test_a_run_whose_decoder_dies_keeps_what_is_done_and_is_taken_up(tmp_path: Path) -> None:
    config = BulkConfig(tmp_path / "out", shard_size=10, batch_size=4, decode_processes=1)
    with pytest.raises(WorkerError, match=r"died.*; \d+ of 47 images are done and kept .* run the same command again"):
        run_bulk(config, Dying(47), "pile", ListPredictor(), progress="none")
    kept = len(list((tmp_path / "out").glob("part-*")))
    summary = run_bulk(config, ListSource(47), "pile", ListPredictor(), progress="none")
    assert summary.shards_skipped == kept
    rows = read_predictions(tmp_path / "out")
    assert rows["id"].to_pylist() == [f"{i:05d}" for i in range(47)]
    # Shards that arrive interleaved have their own answers.
    np.testing.assert_array_equal(rows["realness"].to_numpy(), np.arange(47, dtype=np.float32) / np.float32(2**16))


def test_closing_ends_the_processes() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    batches = decoded_by_processes(ListSource(400), [range(i, i + 10) for i in range(0, 400, 10)], CUT, 2)
    next(batches)
    assert len(children.read_text().split()) == len(before) + 2
    batches.close()
    assert children.read_text().split() == before


def test_processes_get_whole_shards_that_follow_each_other() -> None:
    run = Run("pile", "hash", 10_000, "m", ("a",), shard_size=10)
    missing = run.missing(9_995, frozenset({3, 500}))
    for processes in (1, 4, 300):
        parts = stretches(missing, processes)
        assert [rows for part in parts for rows in part] == missing
        assert all(one.stop == other.start for part in parts for one, other in itertools.pairwise(part))
        assert max(map(len, parts)) <= 16
        assert len(parts) >= min(processes, len(missing))
