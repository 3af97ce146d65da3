"""The first images to label, when there is no model: different from each other, and each typical of many."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from prelabel.errors import InputError
from prelabel.progress import Progress, ProgressMode
from prelabel.selection.clusters import representatives
from prelabel.selection.embed import embed
from prelabel.selection.look import look_at, sample_blocks
from prelabel.selection.selection import Selection, duplicate_ids
from prelabel.sources import Source

METHOD = "k-means of pooled patch features, the image nearest to the mean of each cluster"


@dataclass(frozen=True)
class FirstConfig:
    """How the first images are selected."""

    sample: int = 50_000
    """Images to look at, drawn at random in blocks of 64 neighbours: a larger pile costs no more time and memory
    (about 350 MB)."""
    classes: tuple[str, ...] = ()
    """Class names, for Label Studio's labelling configuration; without them none is written."""


def select_first(
    source: Source,
    count: int,
    seed: int,
    config: FirstConfig,
    duplicates: Path | None,
    threads: int,
    progress: ProgressMode,
) -> Selection:
    """Selects images of a pile that nothing is known of; those of the largest clusters come first.

    Args:
        source: The pile.
        count: Images to select, 1 or more.
        seed: Decides what is looked at, and the start of the clustering.
        config: Options.
        duplicates: File of `prelabel duplicates`, whose duplicates are not selected.
        threads: Threads that decode.
        progress: How progress is shown.

    Raises:
        InputError: There are fewer usable images than wanted, or a file is not usable.
    """
    if config.sample < count:
        raise InputError(f"--sample {config.sample} is not usable: at least --count {count} wanted")
    skipped = frozenset[str]() if duplicates is None else duplicate_ids(duplicates, source.manifest_hash)
    if count > len(source):
        raise InputError(f"--count {count} is not usable: the input has {len(source):,} images")
    blocks = sample_blocks(len(source), config.sample, seed)
    with Progress(sum(map(len, blocks)), "images", "looking", mode=progress) as report:
        looked = look_at(source, blocks, skipped, threads, report)
    usable = len(looked.ids)
    if count > usable:
        raise InputError(
            f"--count {count} is not usable: of the {sum(map(len, blocks)):,} images looked at, {usable:,} can be "
            f"selected ({looked.duplicates:,} are duplicates, {len(looked.unreadable):,} cannot be decoded)"
        )
    generator = np.random.default_rng([seed, 0x5E1EC7])
    chosen, sizes = representatives(embed(np.stack(looked.pixels), generator), count, generator)
    return Selection(
        manifest_hash=source.manifest_hash,
        rows=tuple(looked.positions[i] for i in chosen),
        ids=tuple(looked.ids[i] for i in chosen),
        paths=tuple(looked.paths[i] for i in chosen),
        reasons=tuple(_reason(size, usable) for size in sizes),
        classes=config.classes,
        about={
            "method": METHOD,
            "seed": seed,
            "images": len(source),
            "looked_at": sum(map(len, blocks)),
            "duplicates_left_out": looked.duplicates,
            "unreadable": [asdict(one) for one in looked.unreadable],
        },
    )


def _reason(size: int, images: int) -> str:
    if not size:
        return "drawn at random: there are fewer different pictures than wanted"
    return f"stands for {size:,} of {images:,} images ({100 * size / images:.3g} %)"
