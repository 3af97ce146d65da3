"""Runs a bulk job whose process is killed at random moments, again and again, until it finishes; prints how many times.

A script of its own: `python killing.py PILE BUNDLE OUTPUT SEED`. Each try is a fork, so that none pays for the imports.
"""

import os
import random
import select
import signal
import sys
from pathlib import Path

import onnxruntime  # noqa: F401
import pyarrow.parquet  # noqa: F401

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.embedded import load_predictor
from prelabel.sources import open_source


def work(pile: Path, bundle: Path, output: Path) -> None:
    predictor = load_predictor(bundle, "cpu", 1, "onnxruntime", "float32")
    config = BulkConfig(output, shard_size=2, batch_size=2, decode_threads=1)
    run_bulk(config, open_source(pile), str(pile), predictor, progress="none")


def main() -> None:
    pile, bundle, output = map(Path, sys.argv[1:4])
    generator = random.Random(int(sys.argv[4]))
    longest_s, kills = 0.05, 0
    while True:
        if not (child := os.fork()):
            work(pile, bundle, output)
            os._exit(0)
        waiting = os.pidfd_open(child)
        ended, _, _ = select.select([waiting], [], [], generator.uniform(0, longest_s))
        os.close(waiting)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            print(kills)
            return
        kills += 1
        longest_s *= 1.1  # on a slow machine, too, some try comes far enough


if __name__ == "__main__":
    main()
