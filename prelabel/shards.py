"""The plan of bulk work: which images make which shard, what its files are called, and what its statistics say.

A shard is `shard_size` images in the order of the input. Nothing here reads or writes: every runner, on this machine or
on many, follows this plan, so that all of them make the same files.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prelabel import __version__
from prelabel.table import ShardInfo

CONFIDENCE_BINS = 20
"""Bins of the histogram of confidences, each 0.05 wide."""
MAX_CAUSES = 20
"""Different causes that one shard's statistics name; the rest counts as `OTHER_CAUSES`."""
OTHER_CAUSES = "other causes"


@dataclass(frozen=True)
class Run:
    """What an output directory belongs to; the content of `_run.json`."""

    input: str
    """Path or URL of the input as it was given."""
    manifest_hash: str
    """Hash of the input."""
    images: int
    """Images in the whole input."""
    model_id: str
    """The model."""
    classes: tuple[str, ...]
    """Class names in label order."""
    shard_size: int
    """Images per shard; the last has what is left."""
    version: str = __version__
    """Version of prelabel that started the run."""
    execution_provider: str = ""
    """What computed the first rows, as `prelabel.predictions.Model` says; "" where that is not known."""

    @property
    def key(self) -> str:
        """12 hexadecimal characters that stand for input and model."""
        return hashlib.sha256(f"{self.manifest_hash} {self.model_id}".encode()).hexdigest()[:12]

    @property
    def shards(self) -> int:
        """How many shards the whole input makes."""
        return -(-self.images // self.shard_size)

    def shard_of(self, position: int) -> int:
        """Returns the number of the shard that holds an image."""
        return position // self.shard_size

    def shard_rows(self, shard: int, images: int) -> range:
        """Returns the positions that a shard holds when only the first `images` images are wanted."""
        start = shard * self.shard_size
        return range(start, max(start, min(start + self.shard_size, images)))

    def missing(self, images: int, finished: Set[int]) -> list[range]:
        """Returns the positions of each shard that is still to be made, in order, of the first `images` images."""
        shards = range(-(-images // self.shard_size))
        return [self.shard_rows(shard, images) for shard in shards if shard not in finished]

    def shard_name(self, shard: int) -> str:
        """Returns the file name of a shard's rows."""
        return f"part-{shard:05d}-{self.key}.parquet"

    def statistics_name(self, shard: int) -> str:
        """Returns the file name of a shard's statistics."""
        # Readers of Parquet data sets pass over names that start with an underscore.
        return f"_part-{shard:05d}-{self.key}.json"

    def shard_info(self, shard: int) -> ShardInfo:
        """Returns what the file of a shard says about itself."""
        return ShardInfo(self.version, self.model_id, self.classes, self.manifest_hash, shard, shard * self.shard_size)


@dataclass(frozen=True)
class Counts:
    """What some prediction rows hold, in numbers; may be added up."""

    rows: int = 0
    """Images, failed ones too."""
    errors: Counter[str] = field(default_factory=Counter)
    """Cause -> images that got an error instead of a prediction; see `cause_of`."""
    labels: Counter[str] = field(default_factory=Counter)
    """Class name -> images with that label."""
    confidence: tuple[int, ...] = (0,) * CONFIDENCE_BINS
    """Images by confidence: bin i counts i/20 <= confidence < (i+1)/20; the last one counts 1 too."""

    @property
    def failed(self) -> int:
        """Images that got an error instead of a prediction."""
        return self.errors.total()

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows,
            self.errors + other.errors,
            self.labels + other.labels,
            tuple(mine + theirs for mine, theirs in zip(self.confidence, other.confidence, strict=True)),
        )


@dataclass(frozen=True)
class ShardStatistics:
    """What a finished shard holds and how it was made; the JSON file beside its rows."""

    shard: int
    """Number of the shard, from 0."""
    counts: Counts
    """What its rows hold."""
    wall_s: float
    """Seconds since the same worker had labelled the shard before it; 0 where that is not known."""
    file_bytes: int
    """Size of the Parquet file that these statistics are of; one of another size is another one."""

    def to_json(self, run: Run) -> str:
        """Returns the content of the file."""
        fields = {
            **dataclasses.asdict(run.shard_info(self.shard)),
            "rows": self.counts.rows,
            "errors": dict(self.counts.errors.most_common()),
            "labels": {name: self.counts.labels[name] for name in run.classes},
            "confidence": list(self.counts.confidence),
            "wall_s": round(self.wall_s, 6),
            "file_bytes": self.file_bytes,
        }
        return json.dumps(fields) + "\n"

    @classmethod
    def from_json(cls, content: bytes, run: Run) -> "ShardStatistics | None":
        """Reads the content of the file.

        Returns:
            None where it is damaged or of another run: the shard's Parquet file has to tell.
        """
        try:
            fields = json.loads(content)
            info = ShardInfo(**{one.name: fields[one.name] for one in dataclasses.fields(ShardInfo)})
            info = dataclasses.replace(info, version=run.version, classes=tuple(info.classes))
            if info != run.shard_info(info.shard):
                return None
            counts = Counts(
                int(fields["rows"]),
                Counter(fields["errors"]),
                +Counter(fields["labels"]),
                tuple(int(count) for count in fields["confidence"]),
            )
            whole = counts.labels.total() + counts.failed == counts.rows and len(counts.confidence) == CONFIDENCE_BINS
            return cls(info.shard, counts, float(fields["wall_s"]), int(fields["file_bytes"])) if whole else None
        except (ValueError, KeyError, TypeError):
            return None


def cause_of(message: str) -> str:
    """Returns an error message without what differs from image to image: numbers and what stands in brackets."""
    text = re.sub(r"\s*\([^()]*\)", "", message)
    return re.sub(r"\d+", "N", text)[:120].strip()


def count_causes(messages: Iterable[str]) -> Counter[str]:
    """Counts error messages by cause; the most frequent `MAX_CAUSES` by name."""
    causes = Counter(cause_of(message) for message in messages)
    named = Counter(dict(causes.most_common(MAX_CAUSES)))
    if rest := causes.total() - named.total():
        named[OTHER_CAUSES] += rest
    return named


def confidence_histogram(confidence: NDArray[np.float32]) -> tuple[int, ...]:
    """Counts confidences (float32 [n], 0..1) in `CONFIDENCE_BINS` bins of equal width."""
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    return tuple(np.bincount(bins, minlength=CONFIDENCE_BINS).tolist())


def neighbours(missing: Sequence[range]) -> list[list[range]]:
    """Joins shards that follow each other: a source reads a stretch once instead of starting anew for each shard."""
    stretches: list[list[range]] = []
    for rows in missing:
        if stretches and stretches[-1][-1].stop == rows.start:
            stretches[-1].append(rows)
        else:
            stretches.append([rows])
    return stretches
