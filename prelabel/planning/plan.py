"""A plan of bulk work: what lies there, what is done, how long the rest takes. Writes nothing."""

import math
from dataclasses import dataclass

import numpy as np

from prelabel.duplicates.fingerprints import fingerprint
from prelabel.duplicates.groups import find_groups
from prelabel.duplicates.pairs import Near
from prelabel.errors import InputError
from prelabel.manifest import other_contents
from prelabel.output import read_run
from prelabel.planning.sample import SampleFacts
from prelabel.planning.speed import Speed
from prelabel.predictions import Model
from prelabel.progress import Progress, ProgressMode
from prelabel.sources import Source
from prelabel.storage import Storage, open_storage
from prelabel.table import read_stored_info

COUNT_ALL_IMAGES = 100_000
"""Up to so many images duplicates are counted in all of them: about a minute of decoding."""
SAMPLED_IMAGES = 20_000
"""Of more images, duplicates are counted in so many."""
BLOCK_IMAGES = 256
"""That sample is of blocks: neighbours are read fast, and copies often lie side by side."""


@dataclass(frozen=True)
class DuplicateCounts:
    """Duplicates among the images that were compared."""

    images: int
    """Images that were compared: all that can be read, or a sample of blocks."""
    all: bool
    """Whether these are all. The share of duplicates in a sample is smaller than in the pile: copies lie outside."""
    exact: int
    """Images with the same pixels as an earlier one."""
    near: int
    """Images that are near an earlier one."""


@dataclass(frozen=True)
class ModelFacts:
    """The model that would predict."""

    model_id: str
    """Its identity."""
    classes: tuple[str, ...]
    """Class names in label order."""
    input_shape: tuple[int, int, int]
    """Height, width in pixels, and channels that images are brought to."""
    unknown_labels: tuple[str, ...]
    """Labels in the sample of the input that are no classes of the model."""


@dataclass(frozen=True)
class OutputFacts:
    """What lies in the output directory, and what is to do."""

    path: str
    """The directory."""
    shard_size: int
    """Images per file."""
    shards: int
    """Files of the whole run."""
    shards_done: int
    """Files that are there."""
    images_to_do: int
    """Images that are missing."""
    bytes_to_write: int | None
    """Size of the missing files, estimated; None without a model."""
    obstacle: str | None
    """Why a run cannot go on in this directory."""
    shard_size_there: int | None
    """Images per file with which it could, where these are all that is in the way."""


@dataclass(frozen=True)
class TimeNeeded:
    """Seconds for the images that are to do, each stage alone with all cores, and all together; None: not measured."""

    cores: int
    """Cores of this machine that may be used."""
    read_s: float | None
    """Reading."""
    decode_s: float | None
    """Decoding."""
    inference_s: float | None
    """Inference."""
    write_s: float | None
    """Making rows and writing them."""
    end_to_end_s: float | None
    """All together."""


@dataclass(frozen=True)
class Plan:
    """What `prelabel plan` says."""

    input: str
    """Path as it was given."""
    kind: str
    """`folder`, `parquet`, `idx`, ...: the reader of `prelabel.sources`."""
    images: int
    """Images, unreadable ones too."""
    bytes_estimated: int
    """Their size, from the mean of the sample."""
    sample: SampleFacts
    """What a random sample holds."""
    duplicates: DuplicateCounts | None
    """None where they were not asked for."""
    model: ModelFacts | None
    """None without a model."""
    output: OutputFacts | None
    """None without an output directory."""
    speed: Speed
    """Measured on a stretch of the input."""
    time: TimeNeeded
    """What follows from it."""
    next_command: str
    """What to run next."""


def count_duplicates(
    source: Source, *, all_images: bool, seed: int, threads: int, mode: ProgressMode
) -> DuplicateCounts:
    """Counts duplicates in the whole pile, or in a random sample of its blocks."""
    blocks = [range(start, min(start + BLOCK_IMAGES, len(source))) for start in range(0, len(source), BLOCK_IMAGES)]
    wanted = SAMPLED_IMAGES // BLOCK_IMAGES
    if not all_images and wanted < len(blocks):
        chosen = np.random.default_rng(seed).choice(len(blocks), wanted, replace=False)
        blocks = [blocks[i] for i in sorted(chosen.tolist())]
    total = sum(map(len, blocks))
    with Progress(total, "images", "looking for duplicates", mode=mode) as report:
        prints = fingerprint(source, blocks, threads, report)
    groups = find_groups(prints, Near())
    return DuplicateCounts(len(prints), total == len(source), groups.exact_count, groups.near_count)


def model_facts(model: Model, sample: SampleFacts) -> ModelFacts:
    """Says what matters of a model."""
    unknown = tuple(sorted(set(sample.labels) - set(model.classes)))
    return ModelFacts(model.model_id, model.classes, model.input.shape, unknown)


def output_facts(
    directory: str, source: Source, input_name: str, model: Model | None, shard_size: int, row_bytes: float | None
) -> OutputFacts:
    """Looks at an output directory that may not exist yet; writes nothing.

    Args:
        directory: As for `prelabel run --output`.
        source: The pile.
        input_name: Its path or URL, as the user gave it.
        model: The model, where there is one.
        shard_size: Images per file of a new run.
        row_bytes: Size of a row in a file.

    Raises:
        InputError: Its `_run.json` is damaged.
    """
    output = open_storage(directory)
    kind = output.kind()
    names = set(output.names()) if kind == "folder" else set()
    run = read_run(output) if names else None
    obstacle, shard_size_there, done, missing = None, None, 0, len(source)
    if kind == "file":
        obstacle = "it is a file: choose a directory"
    if run is None:
        others = sorted(name.rstrip("/") for name in names if not name.startswith("."))
        if others:
            obstacle = f"it holds other files ({', '.join(others[:3])}): choose an empty or new directory"
    if run is not None:
        if run.manifest_hash != source.manifest_hash:
            obstacle = f"it holds predictions for {run.input} with {run.images:,} images, of another or a changed input"
        elif model is not None and run.model_id != model.model_id:
            obstacle = f"it holds predictions of model {run.model_id}"
        elif elsewhere := other_contents(output, run.manifest_hash, source, input_name):
            obstacle = f"it holds predictions for input {elsewhere[0]}, not {elsewhere[1]}"
        elif run.shard_size != shard_size:
            obstacle = f"it holds shards of size {run.shard_size}: give --shard-size {run.shard_size}"
            shard_size_there = run.shard_size
    if run is not None and obstacle is None:
        for shard in range(math.ceil(len(source) / shard_size)):
            rows = min(shard_size, len(source) - shard * shard_size)
            if run.shard_name(shard) in names and _is_done(output, run.shard_name(shard), rows):
                done, missing = done + 1, missing - rows
    return OutputFacts(
        path=directory,
        shard_size=shard_size,
        shards=math.ceil(len(source) / shard_size),
        shards_done=done,
        images_to_do=missing,
        bytes_to_write=None if row_bytes is None else round(row_bytes * missing),
        obstacle=obstacle,
        shard_size_there=shard_size_there,
    )


def _is_done(output: Storage, name: str, rows: int) -> bool:
    try:
        return read_stored_info(output, name)[1] == rows  # an earlier run with --limit may have ended within this shard
    except InputError:
        return False  # damaged: it will be predicted again


def time_needed(speed: Speed, images: int, cores: int) -> TimeNeeded:
    """Returns how long `images` images take at the measured speed."""

    def seconds(per_s: float | None) -> float | None:
        return None if per_s is None else images / per_s

    return TimeNeeded(
        cores,
        seconds(speed.read_per_s),
        seconds(speed.decode_per_s),
        seconds(speed.inference_per_s),
        seconds(speed.write_per_s),
        seconds(speed.end_to_end_per_s),
    )
