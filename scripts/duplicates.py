"""Measures what counts as a near-duplicate on MNIST and on photographs; writes docs/results/duplicates.json.

On MNIST: how many pairs and duplicates each pair of thresholds makes, and how many of them are of two classes. On
square parts of photographs: how many are found again after they were saved or scaled anew. The published figures are
of china.jpg and flower.jpg, which come with scikit-learn, and grace_hopper.jpg, which comes with Matplotlib.

Usage: python -m scripts.duplicates --photos FOLDER
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from prelabel.duplicates.fingerprints import Fingerprints, fingerprint
from prelabel.duplicates.groups import find_groups
from prelabel.duplicates.pairs import Near, near_pairs
from prelabel.files import write_text_atomically
from prelabel.images import IMAGE_SUFFIXES, Pixels
from prelabel.progress import Progress
from prelabel.sources import IdxSource, Sample, Source
from scripts.provenance import provenance

OUTPUT = Path("docs/results/duplicates.json")
NO_LIMIT = 255.0
THRESHOLDS = (
    Near(0, NO_LIMIT),
    Near(2, NO_LIMIT),
    Near(4, NO_LIMIT),
    Near(4, 4.0),
    Near(4, 3.0),
    Near(4, 2.0),
    Near(8, 3.0),
)
PART_SIZES_PX = (64, 128)


@dataclass(frozen=True)
class Options:
    """Options of the measurement."""

    photos: Path
    """Folder of photographs."""
    digits: Path = Path("data/mnist/train-images-idx3-ubyte.gz")
    """IDX file with labels beside it."""


@dataclass(frozen=True)
class Pictures:
    """Pictures in memory as a source."""

    pixels: Sequence[Pixels]
    """uint8 [h, w, 3] each."""
    manifest_hash: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, start: int, stop: int) -> Any:
        """Yields pictures start..stop."""
        return (Sample(str(i), str(i), self.pixels[i]) for i in range(start, stop))


def prints_of(source: Source) -> Fingerprints:
    """Returns the fingerprints of all images."""
    with Progress(len(source), "images", "taking fingerprints") as report:
        return fingerprint(source, [range(len(source))], 2, report)


def thresholds(source: IdxSource) -> list[dict[str, Any]]:
    """Returns what each of `THRESHOLDS` finds among labelled images."""
    prints, labels = prints_of(source), source.labels
    assert labels is not None
    rows = []
    for near in THRESHOLDS:
        pairs = of_two_classes = 0
        for earlier, later, _ in near_pairs(prints, prints.positions, near):
            pairs += len(earlier)
            of_two_classes += int((labels[earlier] != labels[later]).sum())
        copies = np.flatnonzero((of := find_groups(prints, near).duplicate_of) >= 0)
        rows.append(
            {
                "distance": near.distance,
                "difference": near.difference,
                "pairs": pairs,
                "pairs_of_two_classes": of_two_classes,
                "duplicates": len(copies),
                "duplicates_of_two_classes": int((labels[copies] != labels[of[copies]]).sum()),
                "duplicates_by_label": np.bincount(labels[copies], minlength=int(labels.max()) + 1).tolist(),
            }
        )
    return rows


def parts(photos: Sequence[Path], size_px: int) -> list[Image.Image]:
    """Cuts photographs into squares."""
    found = []
    for path in photos:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for left in range(0, image.width - size_px, size_px):
            for top in range(0, image.height - size_px, size_px):
                found.append(image.crop((left, top, left + size_px, top + size_px)))
    return found


def found_again(pictures: Sequence[Image.Image], change: Callable[[Image.Image], Image.Image]) -> float:
    """Returns the share of pictures that are near-duplicates of themselves after a change."""
    before, after = (
        prints_of(Pictures([np.asarray(one) for one in some])) for some in (pictures, [*map(change, pictures)])
    )
    bits = np.bitwise_count(before.hashes ^ after.hashes)
    difference = np.abs(before.thumbnails.astype(np.int64) - after.thumbnails).mean(axis=1)
    near = Near()
    return float(((bits <= near.distance) & (difference <= near.difference)).mean())


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    """Returns the change of saving as JPEG."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Returns the change of scaling."""
    return lambda image: image.resize((int(image.width * factor), int(image.height * factor)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image) -> Image.Image:
    """Cuts off a fiftieth of width and height, or one pixel."""
    return image.crop((0, 0, image.width - max(1, image.width // 50), image.height - max(1, image.height // 50)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 75": jpeg(75),
    "JPEG, quality 50": jpeg(50),
    "JPEG, quality 25": jpeg(25),
    "half the size": scaled(0.5),
    "twice the size": scaled(2.0),
    "2 % cut off": cropped,
    "5 % brighter": lambda image: image.point(lambda value: min(255, round(1.05 * value))),
}


def main(options: Options) -> None:
    """Measures and writes the report."""
    photos = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    digits = IdxSource(options.digits)
    sets = {f"{size} x {size} px of photographs": parts(photos, size) for size in PART_SIZES_PX}
    sets["MNIST digits"] = [Image.fromarray(one).convert("RGB") for one in digits.images[:1000]]
    report = provenance("python -m scripts.duplicates --photos FOLDER") | {
        "photos": [path.name for path in photos],
        "images": len(digits),
        "thresholds": thresholds(digits),
        "pictures": {name: len(pictures) for name, pictures in sets.items()},
        "found_again": {
            name: {change: found_again(pictures, do) for change, do in CHANGES.items()}
            for name, pictures in sets.items()
        },
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(OUTPUT, json.dumps(report, indent=2) + "\n")


def thresholds_table(result: dict[str, Any]) -> str:
    """Returns the table of `thresholds`, the default in bold."""
    lines = ["| counts as near | pairs | of two classes | duplicates |", "|---|---|---|---|"]
    for row in result["thresholds"]:
        what = f"hashes differ in up to {row['distance']} bits"
        if row["difference"] < NO_LIMIT:
            what += f", thumbnails by up to {row['difference']:g} levels"
        share = row["pairs_of_two_classes"] / max(row["pairs"], 1)
        cells = [
            what,
            f"{row['pairs']:,}",
            f"{row['pairs_of_two_classes']:,} ({100 * share:.2g} %)",
            f"{row['duplicates']:,} ({100 * row['duplicates'] / result['images']:.2g} %)",
        ]
        if Near(row["distance"], row["difference"]) == Near():
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`{result['command']}`, commit {result['commit'][:12]}."])


def found_table(result: dict[str, Any]) -> str:
    """Returns the table of `found_again`."""
    names = list(result["found_again"])
    heads = [f"{name} ({result['pictures'][name]:,})" for name in names]
    lines = [f"| found again | {' | '.join(heads)} |", f"|---|{'---|' * len(names)}"]
    for change in next(iter(result["found_again"].values())):
        shares = [f"{100 * result['found_again'][name][change]:.0f} %" for name in names]
        lines.append(f"| {change} | {' | '.join(shares)} |")
    return "\n".join([*lines, "", f"Photographs: {', '.join(result['photos'])}."])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
