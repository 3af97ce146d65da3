"""Measures bulk work end to end beside decoding alone and inference alone: `make bench-bulk`.

The piles are made of the embedded MNIST images. Each measurement is a process of its own (scripts.bench_bulk_part);
those of one pile take turns for `rounds` rounds, so that what the machine does meanwhile hits all of them. Nothing else
may run. Results go to docs/results/bulk.json; `make docs` renders them.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from PIL import Image

from prelabel.bundle import load_bundle
from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from prelabel.sources import IdxSource
from scripts.bench_processes import server
from scripts.provenance import provenance

COMMAND = "make bench-bulk"
Row = dict[str, Any]
MNIST = Path("data/mnist/train-images-idx3-ubyte.gz")
SHARD_SIZES = (256, 4096)
"""The cost of a shard is the difference between few and many of them."""
ACTORS = (0, 1, 2, 4)
"""Workers on Ray; 0: the same without Ray, on all cores."""


@dataclass(frozen=True)
class Options:
    """Measure bulk work; about twelve minutes on two free cores."""

    model: Path = Path("runs/demo/bundle")
    """The bundle, of 28 x 28 grey images."""
    images: int = 100_000
    """Images of each pile."""
    rounds: int = 3
    """Turns of each measurement."""
    large: int = 1_000_000
    """Images of the largest generated pile, over which memory is watched; also measured: a tenth and a hundredth."""
    folder: Path = Path("runs/bench-bulk")
    """Where the piles are made; removed at the end. Holds about 1 GB."""
    results: Path = Path("docs/results/bulk.json")
    """Where results go."""


def main() -> None:
    """Measures everything and writes the results."""
    options = tyro.cli(Options, prog="python -m scripts.bench_bulk")
    if min(options.images, options.rounds, options.large // 100) < 1:
        raise InputError("--images and --rounds must be 1 or more, --large 100 or more")
    options.folder.mkdir(parents=True)
    try:
        content = measure(options)
    finally:
        shutil.rmtree(options.folder)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.results, json.dumps(content, indent=1) + "\n")


def measure(options: Options) -> Row:
    """Returns all results."""
    bundle = load_bundle(options.model)
    content: Row = {
        **provenance(COMMAND),
        "model": {"name": bundle.name, "input": bundle.input.shape, "classes": len(bundle.classes)},
        "images": options.images,
        "rounds": options.rounds,
        "piles": {},
    }
    with server(options.model) as ours:
        for name, make in PILES.items():
            pile = make(options.folder, options.images)
            turns = {
                "decode": part(options, "decode", pile),
                "infer": part(options, "infer", pile),
                "embedded": part(options, "run", pile),
                "infer-served": part(options, "infer", pile, server=ours.address),
                "served": part(options, "run", pile, server=ours.address),
            }
            content["piles"][name] = {
                "image_bytes": sum(one.stat().st_size for one in files_in(pile)) / options.images,
                "measured": take_turns(name, turns, options.rounds),
            }
            remove(pile)
    pile = parquet(options.folder, options.images)
    turns = {str(size): part(options, "run", pile, shard_size=size) for size in SHARD_SIZES}
    content["by_shard_size"] = take_turns("shards of", turns, options.rounds)
    turns = {str(actors): part(options, "shards", pile, actors=actors) for actors in ACTORS}
    content["by_actors"] = take_turns("Ray actors", turns, options.rounds)
    turns = {str(size): part(options, "shards", pile, actors=1, shard_size=size) for size in SHARD_SIZES}
    content["one_actor_by_shard_size"] = take_turns("one Ray actor, shards of", turns, options.rounds)
    remove(pile)
    pile = parquet(options.folder, options.large)
    content["growth"] = [
        watched(options, pile, images) for images in (options.large // 100, options.large // 10, options.large)
    ]
    return content


def take_turns(title: str, turns: dict[str, Callable[[], Row]], rounds: int) -> dict[str, list[Row]]:
    """Returns the results by name, one for each round."""
    measured: dict[str, list[Row]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            measured[name].append(turn())
            print(f"round {number + 1}, {title} {name}: {measured[name][-1]['images_per_s']:,.0f} images/s", flush=True)
    return measured


def part(options: Options, kind: str, pile: Path, **flags: object) -> Callable[[], Row]:
    """Returns a measurement, to be called."""
    return lambda: json.loads(
        subprocess.run(command(options, kind, pile, **flags), stdout=subprocess.PIPE, text=True, check=True).stdout
    )


def command(options: Options, kind: str, pile: Path, **flags: object) -> list[str]:
    """Returns the command of one measurement."""
    more = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    module = [sys.executable, "-m", "scripts.bench_bulk_part", "--kind", kind]
    return [*module, "--input", str(pile), "--model", str(options.model), *more]


def watched(options: Options, pile: Path, images: int) -> Row:
    """Runs over the first `images` images; adds the resident memory of the process and those that it started."""
    samples = []
    started = time.perf_counter()
    arguments = command(options, "run", pile, images=images)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            samples.append((round(time.perf_counter() - started, 2), resident_bytes(process.pid)))
            time.sleep(0.25)
        assert process.stdout is not None
        row: Row = json.loads(process.stdout.read())
    print(f"{images:,} images: {row['images_per_s']:,.0f} images/s, {max(size for _, size in samples):,} bytes")
    return row | {"resident_bytes": samples}


def resident_bytes(pid: int) -> int:
    """Returns the proportional share of memory of a process and its children: shared pages count once."""
    total = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total = 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, StopIteration):  # it has just ended
        return total
    return total + sum(resident_bytes(int(child)) for child in children)


def digits(count: int) -> Iterator[tuple[str, Image.Image]]:
    """Yields `count` names and images uint8 [28, 28], over and over."""
    images = IdxSource(MNIST).images
    for i in range(count):
        yield f"{i:08d}", Image.fromarray(images[i % len(images)])


def encoded(image: Image.Image, kind: str) -> bytes:
    """Returns an image file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def png_folder(folder: Path, count: int) -> Path:
    """Makes a folder of 28 x 28 grey PNG files, 1,000 a sub-folder."""
    pile = folder / "png"
    for i, (name, image) in enumerate(digits(count)):
        path = pile / f"{i // 1000:05d}" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, "PNG"))
    return pile


def jpeg_folder(folder: Path, count: int) -> Path:
    """Makes a folder of 64 x 64 RGB JPEG files, 1,000 a sub-folder."""
    pile = folder / "jpeg"
    for i, (name, image) in enumerate(digits(count)):
        path = pile / f"{i // 1000:05d}" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image.resize((64, 64)).convert("RGB"), "JPEG"))
    return pile


def parquet(folder: Path, count: int) -> Path:
    """Makes a Parquet file of 28 x 28 grey PNG files, 10,000 rows a row group."""
    path = folder / "pile.parquet"
    known = [encoded(image, "PNG") for _, image in digits(min(count, 60_000))]
    schema = pa.schema({"id": pa.string(), "image": pa.binary()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, 10_000):
            rows = range(start, min(start + 10_000, count))
            images = [known[row % len(known)] for row in rows]
            writer.write_table(pa.table({"id": [f"{row:08d}" for row in rows], "image": images}, schema=schema))
    return path


def tar_shards(folder: Path, count: int) -> Path:
    """Makes WebDataset shards of 28 x 28 grey PNG files, 10,000 a tar file."""
    pile = folder / "tar"
    pile.mkdir()
    images = digits(count)
    for start in range(0, count, 10_000):
        with tarfile.open(pile / f"{start // 10_000:06d}.tar", "w") as tar:
            for name, image in (next(images) for _ in range(min(10_000, count - start))):
                content = encoded(image, "PNG")
                entry = tarfile.TarInfo(f"{name}.png")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return pile


def idx(folder: Path, count: int) -> Path:
    """Makes an IDX file of 28 x 28 grey pixels."""
    path = folder / "pile-images-idx3-ubyte"
    images = IdxSource(MNIST).images
    header = bytes([0, 0, 8, 3]) + np.array([count, *images.shape[1:]], ">u4").tobytes()
    path.write_bytes(header + images[np.arange(count) % len(images)].tobytes())
    return path


PILES = {
    "PNG folder": png_folder,
    "JPEG folder": jpeg_folder,
    "Parquet": parquet,
    "WebDataset": tar_shards,
    "IDX": idx,
}


def files_in(pile: Path) -> list[Path]:
    """Returns the files of a pile."""
    return [path for path in pile.rglob("*") if path.is_file()] if pile.is_dir() else [pile]


def remove(pile: Path) -> None:
    """Removes a pile."""
    if pile.is_dir():
        shutil.rmtree(pile)
    else:
        pile.unlink()


if __name__ == "__main__":
    main()
